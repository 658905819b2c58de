//! Images of tiny random models with LoRA files of every naming and with ControlNets of Stable Diffusion 3,
//! against diffusers in f32. `tools/reference/make_conditioned.py` writes the data.

use std::path::Path;

use crate::reference;
use reference::{CaseSettings, Pixels, fixtures};
use sd_pipeline::resume::ClaimedRun;
use sd_pipeline::{
    Bytes, ControlChoice, ControlKind, Error, Event, Interrupt, LoraChoice, Request, UserDirs,
};
use serde::Deserialize;

#[derive(Deserialize)]
struct Case {
    #[serde(flatten)]
    settings: CaseSettings,
    loras: Vec<(String, f64)>,
    controls: Vec<(String, ControlKind, f64)>,
}

fn cases() -> Vec<Case> {
    reference::cases("conditioned/cases.json", 14)
}

impl Case {
    fn request(&self, output: &Path) -> Request {
        let conditioned = fixtures().join("conditioned");
        let lora = |(name, scale): &(String, f64)| LoraChoice {
            name: name.clone(),
            file: conditioned.join(format!("loras/{name}.safetensors")),
            scale: *scale,
            text_scale: *scale,
        };
        let control = |(name, kind, scale): &(String, ControlKind, f64)| ControlChoice {
            name: name.clone(),
            folder: conditioned.join(name),
            kind: *kind,
            image: fixtures().join("families/init.png"),
            scale: *scale,
        };
        Request {
            loras: self.loras.iter().map(lora).collect(),
            controls: self.controls.iter().map(control).collect(),
            ..self
                .settings
                .request(reference::model(&self.settings.model), output)
        }
    }

    fn generate(&self, images: usize, memory: Option<Bytes>) -> Vec<Pixels> {
        let folder = tempfile::tempdir().unwrap();
        let request = Request {
            memory,
            images,
            ..self.request(folder.path())
        };
        self.settings.generate(&request)
    }
}

#[test]
fn every_image_is_the_reference_s() {
    for case in cases() {
        let expected = fixtures().join(format!("conditioned/cases/{}.png", case.settings.name));
        let found = case.generate(1, None).remove(0);
        found.must_be_near(&Pixels::read(&expected), &case.settings.name);
    }
}

#[test]
fn neither_a_budget_nor_company_changes_a_pixel() {
    for case in cases() {
        if case.controls.is_empty() && case.loras.len() < 2 {
            continue;
        }
        let alone = case.generate(1, None).remove(0);
        let plan = sd_pipeline::plan(&case.request(Path::new("unused"))).unwrap();
        let streamed = case.generate(1, Some(plan.smallest_budget)).remove(0);
        assert!(alone == streamed, "{}: streamed", case.settings.name);
        let first_of_three = case.generate(3, None).remove(0);
        assert!(alone == first_of_three, "{}: beside others", case.settings.name);
    }
}

#[test]
fn an_interrupted_run_resumes_to_the_same_pixels() {
    let cases = cases();
    let case = cases
        .iter()
        .find(|case| case.settings.name == "control-large-lora");
    let case = case.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let user_dirs = UserDirs {
        state: Some(folder.path().join("state")),
        ..UserDirs::default()
    };
    let request = Request {
        user_dirs: user_dirs.clone(),
        ..case.request(&folder.path().join("outputs"))
    };
    let interrupt = Interrupt::default();
    let mut kept = None;
    let mut observer = |event: &Event<'_>| match event {
        Event::Step { step: 2, .. } => interrupt.raise(),
        Event::Kept { run } => kept = Some((*run).to_owned()),
        _ => {}
    };
    let error = sd_pipeline::Engine::new()
        .run(&request, &mut observer, &interrupt)
        .unwrap_err();
    assert!(matches!(error, Error::Interrupted), "{error:?}");
    let claimed = ClaimedRun::claim(&user_dirs, &kept.unwrap()).unwrap();
    let mut steps = 0;
    let mut observer = |event: &Event<'_>| steps += usize::from(matches!(event, Event::Step { .. }));
    let models = vec![reference::model(&case.settings.model)];
    let resumed = sd_pipeline::Engine::new()
        .resume(claimed, models, &user_dirs, &mut observer, &Interrupt::default())
        .unwrap();
    assert_eq!(steps, case.settings.steps - 2);
    assert!(Pixels::read(&resumed[0].image) == case.generate(1, None)[0]);
}
