//! From a run's events to its profile.

use std::path::{Path, PathBuf};

use sd_memory::Bytes;

use super::file::PageFile;
use super::{Profile, Step, Thumbnail};
use crate::Result;
use crate::event::{Event, Observer};
use crate::plan::Plan;

/// Images that a page shows at most.
const MOST_THUMBNAILS: usize = 4;

/// Has `run` work, tells `observer` what happens, and writes the run's profile to the file `path` in the end, also when
/// the run fails. An earlier profile of that name is replaced.
///
/// # Errors
/// `path` cannot be written: this is found before the run begins. Else the run's own error, or that of writing.
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

/// Takes down what a run tells, and passes it on.
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
}

/// The plan's predictions under the names that the run's monitor has for the stages: it sees the text encoders as one,
/// and what is computed once for all steps while the transformer is loaded.
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
