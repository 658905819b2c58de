//! Tests of interrupted and resumed runs, and of manipulated states.

use std::fs;
use std::path::{Path, PathBuf};

use candle_core::Tensor;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::*;
use crate::checksummed::{self, Checksummed, Durability};
use crate::scheduler::SamplerKind;
use crate::{
    Error, Event, GuidanceScale, ImageSize, Interrupt, ModelChoice, ModelFiles, Recommended, RefinerChoice,
    Request, SavedImage, Strength, UserDirs,
};

/// A folder with the state of a run of two images that was interrupted after its third step of eight.
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
        let error = crate::Engine::new()
            .run(&request(folder.path()), &mut observer, &interrupt)
            .unwrap_err();
        assert!(matches!(error, Error::Interrupted), "{error:?}");
        Self {
            id: kept.unwrap(),
            folder,
        }
    }

    fn user_dirs(&self) -> UserDirs {
        user_dirs(self.folder.path())
    }

    fn state(&self) -> PathBuf {
        let runs = self.user_dirs().runs().unwrap();
        runs.join(&self.id).with_extension("safetensors")
    }

    /// Rewrites the state with a changed description or missing latents, and a valid checksum.
    fn rewrite(&self, change: impl FnOnce(&mut Checksummed<Value>)) {
        let mut checksummed = checksummed::read::<Value>(&self.state()).unwrap();
        change(&mut checksummed);
        let tensors: Vec<(String, &Tensor)> = checksummed
            .tensors
            .iter()
            .map(|(name, tensor)| (name.clone(), tensor))
            .collect();
        let part = self.folder.path().join("part");
        checksummed::replace(
            &self.state(),
            &part,
            Durability::Process,
            &checksummed.description,
            &tensors,
        )
        .unwrap();
    }

    fn resume(&self) -> crate::Result<Vec<SavedImage>> {
        let claimed = ClaimedRun::claim(&self.user_dirs(), &self.id)?;
        let mut observer = |_: &Event<'_>| {};
        crate::Engine::new().resume(
            claimed,
            vec![model()],
            &self.user_dirs(),
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

/// A run with a model and a refiner that was interrupted and resumed.
struct Continued {
    /// The output folder.
    _folder: TempDir,
    after: usize,
    /// Its outline when it was interrupted.
    outline: Outline,
    /// Steps after it was resumed.
    steps: usize,
    images: Vec<SavedImage>,
}

impl Continued {
    /// Interrupts a run of `request` after `after` steps, and resumes it.
    fn after(after: usize, request: impl Fn(&Path) -> Request) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let interrupt = Interrupt::default();
        let (mut steps, mut kept) = (0, None);
        let mut observer = |event: &Event<'_>| match event {
            Event::Step { .. } => {
                steps += 1;
                if steps == after {
                    interrupt.raise();
                }
            }
            Event::Kept { run } => kept = Some((*run).to_owned()),
            _ => {}
        };
        crate::Engine::new()
            .run(&request(folder.path()), &mut observer, &interrupt)
            .unwrap_err();
        let user_dirs = user_dirs(folder.path());
        let outline = interrupted_runs(&user_dirs).unwrap().remove(0).outline.unwrap();
        let claimed = ClaimedRun::claim(&user_dirs, &kept.unwrap()).unwrap();
        let (mut steps, models) = (0, vec![model(), model()]);
        let mut observer = |event: &Event<'_>| steps += usize::from(matches!(event, Event::Step { .. }));
        let images = crate::Engine::new()
            .resume(claimed, models, &user_dirs, &mut observer, &Interrupt::default())
            .unwrap();
        Self {
            _folder: folder,
            after,
            outline,
            steps,
            images,
        }
    }

    #[track_caller]
    fn assert_gave(&self, expected: &[SavedImage]) {
        assert_eq!(self.images.len(), expected.len());
        for (one, other) in self.images.iter().zip(expected) {
            let [one, other] = [one, other].map(|saved| fs::read(&saved.image).unwrap());
            assert!(one == other, "interrupted after {} steps", self.after);
        }
    }
}

fn user_dirs(folder: &Path) -> UserDirs {
    UserDirs {
        state: Some(folder.join("state")),
        cache: None,
    }
}

fn model() -> ModelChoice {
    ModelChoice {
        name: "tiny".to_owned(),
        files: ModelFiles::at(concat!(
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
        seeds: 1.into(),
        size: Some(ImageSize::new(64, 64).unwrap().into()),
        guidance_scale: Some(GuidanceScale(4.5)),
        output: folder.join("outputs"),
        user_dirs: user_dirs(folder),
        ..Request::new("a cat", model())
    }
}

#[test]
fn the_images_are_those_of_an_undisturbed_run() {
    let run = Interrupted::new();
    let listed = interrupted_runs(&run.user_dirs()).unwrap();
    let outline = listed[0].outline.as_ref().unwrap();
    assert_eq!((listed.len(), listed[0].id.as_str()), (1, run.id.as_str()));
    assert_eq!((outline.steps_done, outline.steps, outline.images), (3, 16, 2));
    let resumed = run.resume().unwrap();
    assert!(interrupted_runs(&run.user_dirs()).unwrap().is_empty());

    let folder = tempfile::tempdir().unwrap();
    let mut observer = |_: &Event<'_>| {};
    let undisturbed = crate::Engine::new()
        .run(&request(folder.path()), &mut observer, &Interrupt::default())
        .unwrap();
    assert_eq!(resumed.len(), 2);
    for (one, other) in resumed.iter().zip(&undisturbed) {
        assert!(fs::read(&one.image).unwrap() == fs::read(&other.image).unwrap());
        assert_eq!((one.index, one.seed), (other.index, other.seed));
    }
}

#[test]
fn a_run_resumes_wherever_it_was_interrupted() {
    let refined = |folder: &Path| Request {
        refiner: Some(RefinerChoice {
            strength: Strength(0.6),
            steps: 5,
            ..RefinerChoice::new(model())
        }),
        sampler: Some(SamplerKind::FlowHeun),
        ..request(folder)
    };
    let undisturbed = tempfile::tempdir().unwrap();
    let mut all = 0;
    let mut observer = |event: &Event<'_>| all += usize::from(matches!(event, Event::Step { .. }));
    let expected = crate::Engine::new()
        .run(&refined(undisturbed.path()), &mut observer, &Interrupt::default())
        .unwrap();
    // For each of two images 8 steps, then 3 of the refiner's 5.
    assert_eq!(all, 2 * (8 + 3));
    for after in [1, 8, 16, 17, 21] {
        let continued = Continued::after(after, refined);
        assert_eq!(
            (continued.outline.steps_done, continued.outline.steps),
            (after, all)
        );
        continued.assert_gave(&expected);
    }
}

/// Groups of two images: there is a refiner, and four evaluations are too few for a reload.
#[test]
fn a_run_in_groups_resumes_in_each_of_them() {
    let refined = |folder: &Path| Request {
        images: 5,
        steps: Some(5),
        refiner: Some(RefinerChoice {
            strength: Strength(1.0),
            steps: 5,
            ..RefinerChoice::new(model())
        }),
        ..request(folder)
    };
    let undisturbed = tempfile::tempdir().unwrap();
    let mut order = Vec::new();
    let mut observer = |event: &Event<'_>| match event {
        Event::Step { image, step: 1, .. } => order.push(format!("begin {image}")),
        Event::Saved(saved) => order.push(format!("save {}", saved.index)),
        _ => {}
    };
    let expected = crate::Engine::new()
        .run(&refined(undisturbed.path()), &mut observer, &Interrupt::default())
        .unwrap();
    let group = |images: std::ops::Range<usize>| {
        let begin = images.clone().map(|image| format!("begin {image}"));
        let save = images.map(|image| format!("save {image}"));
        // Each image with the model and with its refiner.
        [begin.clone().collect(), begin.collect(), save.collect::<Vec<_>>()].concat()
    };
    assert_eq!(order, [group(0..2), group(2..4), group(4..5)].concat());
    // In the first group, between its models, in the second, and in the last.
    for after in [3, 10, 13, 25, 38, 45] {
        let continued = Continued::after(after, refined);
        assert_eq!(
            (continued.outline.steps_done, continued.outline.steps),
            (after, 50)
        );
        assert_eq!(after + continued.steps, 50, "no step is done twice");
        continued.assert_gave(&expected);
    }
}

/// The finished image is deleted before the run is resumed.
#[test]
fn deleted_images_cause_a_warning() {
    let folder = tempfile::tempdir().unwrap();
    let interrupt = Interrupt::default();
    let (mut first, mut kept) = (None, None);
    let mut observer = |event: &Event<'_>| match event {
        Event::Saved(saved) => {
            first = Some(saved.image.clone());
            interrupt.raise();
        }
        Event::Kept { run } => kept = Some((*run).to_owned()),
        _ => {}
    };
    crate::Engine::new()
        .run(&request(folder.path()), &mut observer, &interrupt)
        .unwrap_err();
    let first = first.unwrap();
    fs::remove_file(&first).unwrap();
    let user_dirs = user_dirs(folder.path());
    let claimed = ClaimedRun::claim(&user_dirs, &kept.unwrap()).unwrap();
    let (mut warnings, mut saved) = (Vec::new(), 0);
    let mut observer = |event: &Event<'_>| match event {
        Event::Warning(warning) => warnings.push((*warning).to_owned()),
        Event::Saved(_) => saved += 1,
        _ => {}
    };
    let models = vec![model()];
    let images = crate::Engine::new()
        .resume(claimed, models, &user_dirs, &mut observer, &Interrupt::default())
        .unwrap();
    assert_eq!((images.len(), images[0].index, saved), (1, 1, 1));
    assert!(
        warnings.iter().any(|warning| warning.contains("no longer there")),
        "{warnings:?}"
    );
}

#[test]
fn another_version_or_device_is_refused() {
    let run = Interrupted::new();
    // Of another version not even the format is known.
    run.rewrite(|state| state.description = json!({ "version": "0.0.1", "news": true }));
    assert!(matches!(run.is_refused(), ResumeError::OtherVersion { begun_by, .. } if begun_by == "0.0.1"));
    let run = Interrupted::new();
    run.rewrite(|state| state.description["device"] = "cpu (abacus)".into());
    assert!(
        matches!(run.is_refused(), ResumeError::OtherDevice { begun_on, .. } if begun_on == "cpu (abacus)")
    );
}

#[test]
fn a_state_of_an_earlier_build_is_refused_as_that() {
    let run = Interrupted::new();
    run.rewrite(|state| state.description["format"] = 3.into());
    let error = run.is_refused();
    assert!(
        matches!(error, ResumeError::OtherFormat { found: 3, .. }),
        "{error:?}"
    );
}

/// Earlier builds of this version wrote other keys.
#[test]
fn a_state_with_earlier_keys_is_read() {
    let earlier = |state: &mut Value, keys: &[(&str, &str)]| {
        let fields = state.as_object_mut().unwrap();
        for &(before, today) in keys {
            let value = fields.remove(today).unwrap();
            fields.insert(before.to_owned(), value);
        }
    };
    let rewritten = |img2img: Value| {
        let run = Interrupted::new();
        run.rewrite(|state| {
            state.description["request"]["img2img"] = img2img;
            earlier(&mut state.description["request"], &[("over", "img2img")]);
            earlier(
                &mut state.description,
                &[("leg", "pass"), ("leg_steps", "pass_steps")],
            );
        });
        run
    };
    let run = rewritten(Value::Null);
    assert_eq!(run.resume().unwrap().len(), 2);
    let run = rewritten(json!({ "image": "/init.png", "mask": null, "strength": 0.5 }));
    let state = checksummed::read::<state::Description>(&run.state()).unwrap();
    let img2img = state.description.request.img2img.unwrap();
    assert_eq!(img2img.image, Path::new("/init.png"));
    assert_eq!(img2img.strength, Strength(0.5));
    assert_eq!(state.description.pass_steps, [8]);
}

#[test]
fn a_state_that_contradicts_itself_is_damaged() {
    let changes: [fn(&mut Checksummed<Value>); 29] = [
        |state| state.description["name"]["id"] = "aaaaaaaa".into(),
        |state| state.description["name"]["id"] = "../../ab".into(),
        |state| state.description["name"]["started"] = "../../../../tmp/evil".into(),
        |state| state.description["name"]["started"] = "2026-05-04T03:02:01/../../x".into(),
        |state| state.description["pass"] = 1.into(),
        |state| state.description["pass_steps"] = json!([8, 8]),
        |state| state.description["pass_steps"] = json!([7]),
        |state| state.description["pass_steps"] = json!([u64::MAX]),
        |state| state.description["models"] = json!([]),
        |state| state.description["pictures"][0]["image"] = 2.into(),
        |state| state.description["pictures"][0]["image"] = u64::MAX.into(),
        |state| state.description["pictures"][0]["evaluations"] = u64::MAX.into(),
        |state| state.description["pictures"][0]["evaluations"] = 4.into(),
        |state| state.description["pictures"][0]["is_denoised"] = true.into(),
        |state| state.description["saved"] = json!([{ "image": 0, "number": 1, "count": 1 }]),
        |state| state.description["saved"] = json!([{ "image": 1, "number": 1, "count": 2 }]),
        |state| state.description["saved"] = json!([{ "image": 1, "number": u64::MAX, "count": 1 }]),
        |state| state.description["request"]["images"] = 0.into(),
        |state| state.description["request"]["steps"] = 0.into(),
        |state| state.description["request"]["steps"] = u64::MAX.into(),
        |state| state.description["request"]["clip_skip"] = u64::MAX.into(),
        |state| state.description["request"]["output"] = "outputs".into(),
        |state| state.description["request"]["upscale"] = json!({ "factor": u64::MAX, "network": null }),
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
        // It can still be discarded.
        discard(&run.user_dirs(), &run.id).unwrap();
        assert!(interrupted_runs(&run.user_dirs()).unwrap().is_empty());
    }
}

/// Every string and number of a state, replaced by hostile values: nothing panics, and nothing is written
/// outside the run's own folders.
#[test]
fn any_field_can_be_anything() {
    let run = Interrupted::new();
    let whole = fs::read(run.state()).unwrap();
    let pointers_of = |value: &Value| {
        let mut pointers = Vec::new();
        leaves(value, String::new(), &mut pointers);
        pointers
    };
    let description = checksummed::read::<Value>(&run.state()).unwrap().description;
    let hostile = [
        json!("../../../escaped"),
        json!(""),
        json!(0),
        json!(u64::MAX),
        json!(-1),
        json!(1e300),
        Value::Null,
    ];
    let outside = run.folder.path().parent().unwrap();
    let escaped = [outside.join("escaped"), run.folder.path().join("escaped")];
    let mut refused = 0;
    for (pointer, value) in pointers_of(&description)
        .iter()
        .flat_map(|pointer| hostile.iter().map(move |value| (pointer, value)))
    {
        // The output may be anywhere: it is the user's choice.
        if pointer == "/request/output" {
            continue;
        }
        fs::write(run.state(), &whole).unwrap();
        run.rewrite(|state| *state.description.pointer_mut(pointer).unwrap() = value.clone());
        let _ = interrupted_runs(&run.user_dirs()).unwrap();
        let outcome = ClaimedRun::claim(&run.user_dirs(), &run.id).and_then(|claimed| {
            let interrupt = Interrupt::default();
            interrupt.raise();
            let models = claimed.models().iter().map(|_| model()).collect();
            crate::Engine::new().resume(
                claimed,
                models,
                &run.user_dirs(),
                &mut |_: &Event<'_>| {},
                &interrupt,
            )
        });
        refused += usize::from(!matches!(outcome, Err(Error::Interrupted)));
        assert!(escaped.iter().all(|path| !path.exists()), "{pointer} as {value}");
    }
    assert!(refused > 100, "{refused}");
}

/// JSON pointers of all leaves of `value`.
fn leaves(value: &Value, pointer: String, pointers: &mut Vec<String>) {
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                leaves(value, format!("{pointer}/{name}"), pointers);
            }
        }
        // The entries of a model's files are alike.
        Value::Array(entries) => {
            for (index, value) in entries.iter().enumerate().take(2) {
                leaves(value, format!("{pointer}/{index}"), pointers);
            }
        }
        _ => pointers.push(pointer),
    }
}

#[test]
fn a_claimed_run_is_nobody_else_s() {
    let run = Interrupted::new();
    let claimed = ClaimedRun::claim(&run.user_dirs(), &run.id).unwrap();
    assert!(matches!(run.is_refused(), ResumeError::AtWork { .. }));
    assert!(interrupted_runs(&run.user_dirs()).unwrap().is_empty());
    assert_eq!(claimed.models()[0].0, "tiny");
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
