//! Builds a profile from the events of a run.

use std::path::{Path, PathBuf};

use sd_memory::Bytes;

use super::file::PageFile;
use super::{Profile, Step, Thumbnail};
use crate::Result;
use crate::event::{Event, Observer};
use crate::plan::Plan;

/// The most thumbnails of a page.
const MOST_THUMBNAILS: usize = 4;

/// Calls `run`, passes its events to `observer`, and writes its profile to `path` at the end, also when the
/// run fails. An earlier profile at that path is replaced.
///
/// # Errors
/// `path` is not writable, which is found before the run starts; otherwise the error of the run or of
/// writing.
pub fn profiled<T>(
    path: &Path,
    observer: &mut dyn Observer,
    run: impl FnOnce(&mut dyn Observer) -> Result<T>,
) -> Result<T> {
    let file = PageFile::open(path)?;
    let mut recorder = Recorder {
        observer,
        profile: Profile::default(),
        images: Vec::new(),
    };
    let outcome = run(&mut recorder);
    let failure = outcome.as_ref().err().map(ToString::to_string);
    let written = file.write(&recorder.finish(failure).page());
    let result = outcome?;
    written?;
    Ok(result)
}

/// Records the events of a run, and forwards them.
struct Recorder<'a> {
    observer: &'a mut dyn Observer,
    profile: Profile,
    images: Vec<PathBuf>,
}

impl Recorder<'_> {
    fn finish(self, failure: Option<String>) -> Profile {
        let name = |path: &PathBuf| {
            path.file_name()
                .map_or_else(String::new, |name| name.to_string_lossy().into_owned())
        };
        Profile {
            images: self.images.iter().map(name).collect(),
            thumbnails: self
                .images
                .iter()
                .take(MOST_THUMBNAILS)
                .filter_map(|path| Thumbnail::of(path))
                .collect(),
            failure,
            ..self.profile
        }
    }

    fn note(&mut self, event: &Event<'_>) {
        let profile = &mut self.profile;
        match event {
            Event::Started { recipe } => profile.recipe = Some((*recipe).clone()),
            Event::Planned { plan } => {
                profile.budget = Some(plan.budget);
                profile.predicted_peak = Some(plan.predicted_peak);
                profile.predicted_stages = predicted_stages(plan);
            }
            Event::Step {
                image,
                step,
                duration,
                ..
            } => profile.steps.push(Step {
                image: *image,
                step: *step,
                seconds: duration.as_secs_f64(),
            }),
            Event::Warning(warning) => profile.warnings.push((*warning).to_owned()),
            Event::LeftOut { what, reason } => profile.warnings.push(format!("{what} is left out: {reason}")),
            Event::Saved(image) => self.images.push(image.image.clone()),
            Event::Measured { timeline } => profile.timeline = (*timeline).clone(),
            _ => {}
        }
    }
}

impl Observer for Recorder<'_> {
    fn observe(&mut self, event: &Event<'_>) {
        self.note(event);
        self.observer.observe(event);
    }

    fn wants_previews(&self) -> bool {
        self.observer.wants_previews()
    }
}

/// The plan's predictions under the stage names of the run's monitor. It has one stage for all text encoders,
/// and counts the conditioning as a part of loading the transformer.
fn predicted_stages(plan: &Plan) -> Vec<(String, Bytes)> {
    let mut predicted: Vec<(String, Bytes)> = Vec::new();
    for stage in &plan.stages {
        let name = match stage.name.as_str() {
            name if name.starts_with("text_encoder") => "encode",
            name => name,
        };
        match predicted.iter_mut().find(|(known, _)| known == name) {
            Some((_, peak)) => *peak = (*peak).max(stage.predicted_peak),
            None => predicted.push((name.to_owned(), stage.predicted_peak)),
        }
    }
    let of = |name: &str| {
        predicted
            .iter()
            .find(|(known, _)| known == name)
            .map(|(_, peak)| *peak)
    };
    let load = of("conditions").max(of("denoise"));
    predicted.extend(load.map(|peak| ("load".to_owned(), peak)));
    predicted
}
