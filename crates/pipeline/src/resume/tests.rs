//! Runs that are interrupted in this process, and states that somebody has written to.

use std::fs;
use std::path::{Path, PathBuf};

use candle_core::Tensor;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::*;
use crate::sealed::{self, Durability, Sealed};
use crate::{
    Error, Event, GuidanceScale, ImageSize, Interrupt, ModelChoice, ModelFolder, Places, Recommended,
    Request, SavedPicture,
};

/// A folder with the state of a run of two pictures that was interrupted after its third step of eight.
struct Interrupted {
    folder: TempDir,
    id: String,
}

impl Interrupted {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let interrupt = Interrupt::default();
        let mut kept = None;
        let mut observer = |event: &Event<'_>| match event {
            Event::Step { step: 3, .. } => interrupt.raise(),
            Event::Kept { run } => kept = Some((*run).to_owned()),
            _ => {}
        };
        let error = crate::generate(&request(folder.path()), &mut observer, &interrupt).unwrap_err();
        assert!(matches!(error, Error::Interrupted), "{error:?}");
        Self {
            id: kept.unwrap(),
            folder,
        }
    }

    fn places(&self) -> Places {
        places(self.folder.path())
    }

    fn state(&self) -> PathBuf {
        let runs = self.places().runs().unwrap();
        runs.join(&self.id).with_extension("safetensors")
    }

    /// Writes the state anew, with another description or without some latents, and a seal that fits.
    fn rewrite(&self, change: impl FnOnce(&mut Sealed<Value>)) {
        let mut sealed = sealed::read::<Value>(&self.state()).unwrap();
        change(&mut sealed);
        let tensors: Vec<(String, &Tensor)> = sealed
            .tensors
            .iter()
            .map(|(name, tensor)| (name.clone(), tensor))
            .collect();
        let part = self.folder.path().join("part");
        sealed::replace(
            &self.state(),
            &part,
            Durability::Process,
            &sealed.description,
            &tensors,
        )
        .unwrap();
    }

    fn resume(&self) -> crate::Result<Vec<SavedPicture>> {
        let claimed = ClaimedRun::claim(&self.places(), &self.id)?;
        let mut observer = |_: &Event<'_>| {};
        crate::resume(
            claimed,
            model(),
            &self.places(),
            &mut observer,
            &Interrupt::default(),
        )
    }

    #[track_caller]
    fn is_refused(&self) -> ResumeError {
        match self.resume() {
            Err(Error::Resume(error)) => error,
            other => panic!("{other:?}"),
        }
    }
}

fn places(folder: &Path) -> Places {
    Places {
        state: Some(folder.join("state")),
        cache: None,
    }
}

fn model() -> ModelChoice {
    ModelChoice {
        name: "tiny".to_owned(),
        folder: ModelFolder::on_disk(concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/tests/fixtures/models/tiny-large"
        )),
        recommended: Recommended::default(),
    }
}

fn request(folder: &Path) -> Request {
    Request {
        images: 2,
        steps: Some(8),
        seed: 1,
        size: Some(ImageSize::new(64, 64).unwrap()),
        guidance_scale: Some(GuidanceScale(4.5)),
        output: folder.join("outputs"),
        places: places(folder),
        ..Request::new("a cat", model())
    }
}

#[test]
fn the_pictures_are_those_of_a_run_that_nobody_disturbed() {
    let run = Interrupted::new();
    let listed = interrupted_runs(&run.places()).unwrap();
    let outline = listed[0].outline.as_ref().unwrap();
    assert_eq!((listed.len(), listed[0].id.as_str()), (1, run.id.as_str()));
    assert_eq!((outline.steps_done, outline.steps, outline.images), (3, 16, 2));
    let resumed = run.resume().unwrap();
    assert!(interrupted_runs(&run.places()).unwrap().is_empty());

    let folder = tempfile::tempdir().unwrap();
    let mut observer = |_: &Event<'_>| {};
    let undisturbed = crate::generate(&request(folder.path()), &mut observer, &Interrupt::default()).unwrap();
    assert_eq!(resumed.len(), 2);
    for (one, other) in resumed.iter().zip(&undisturbed) {
        assert!(fs::read(&one.image).unwrap() == fs::read(&other.image).unwrap());
        assert_eq!((one.index, one.seed), (other.index, other.seed));
    }
}

#[test]
fn another_version_or_device_is_refused() {
    let run = Interrupted::new();
    // Of another version not even the format need be known.
    run.rewrite(|state| state.description = json!({ "version": "0.0.1", "news": true }));
    assert!(matches!(run.is_refused(), ResumeError::OtherVersion { begun_by, .. } if begun_by == "0.0.1"));
    let run = Interrupted::new();
    run.rewrite(|state| state.description["device"] = "cpu (abacus)".into());
    assert!(
        matches!(run.is_refused(), ResumeError::OtherDevice { begun_on, .. } if begun_on == "cpu (abacus)")
    );
}

#[test]
fn a_state_that_contradicts_itself_is_damaged() {
    let changes: [fn(&mut Sealed<Value>); 6] = [
        |state| state.description["format"] = 99.into(),
        |state| state.description["pictures"][0]["steps_done"] = 9.into(),
        |state| state.description["request"]["images"] = u64::MAX.into(),
        |state| state.description["request"]["size"]["width"] = 65.into(),
        |state| state.description["seconds"] = (-1.0).into(),
        |state| state.tensors.clear(),
    ];
    for change in changes {
        let run = Interrupted::new();
        run.rewrite(change);
        let error = run.is_refused();
        assert!(
            matches!(&error, ResumeError::Damaged { file, .. } if *file == run.state()),
            "{error:?}"
        );
        // It can still be forgotten.
        discard(&run.places(), &run.id).unwrap();
        assert!(interrupted_runs(&run.places()).unwrap().is_empty());
    }
}

#[test]
fn a_claimed_run_is_nobody_else_s() {
    let run = Interrupted::new();
    let claimed = ClaimedRun::claim(&run.places(), &run.id).unwrap();
    assert!(matches!(run.is_refused(), ResumeError::AtWork { .. }));
    assert!(interrupted_runs(&run.places()).unwrap().is_empty());
    assert_eq!(claimed.model().0, "tiny");
    drop(claimed);
    run.resume().unwrap();
    assert!(matches!(run.is_refused(), ResumeError::NoSuchRun { .. }));
}

#[test]
fn latents_of_another_shape_are_damage() {
    let run = Interrupted::new();
    run.rewrite(|state| {
        for tensor in state.tensors.values_mut() {
            *tensor = tensor.narrow(3, 0, 2).unwrap().contiguous().unwrap();
        }
    });
    let error = run.is_refused();
    assert!(matches!(error, ResumeError::Damaged { .. }), "{error:?}");
}
