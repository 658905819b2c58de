//! Presets, styles, and models by id.

use std::fs;

use crate::command::{Fresh, Run};
use sd_catalog::presets::{ALL, DEMO};
use serde_json::Value;

fn metadata(fresh: &Fresh, run: &Run) -> Value {
    let path = fresh.path().join(&run.images()[0]).with_extension("json");
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

#[test]
fn a_preset_whose_model_is_missing_says_which_and_how_to_get_it() {
    let fresh = Fresh::new();
    for preset in ALL.iter().filter(|preset| preset.name != DEMO) {
        let run = fresh
            .run(&["x", "--quality", preset.name])
            .fails(4, "is not on this machine");
        let named = preset.parts().any(|part| {
            run.stderr.contains(&format!(
                "`generate models pull {part}` downloads it, without HF_HUB_OFFLINE"
            ))
        });
        assert!(named, "{}: {}", preset.name, run.stderr);
    }
    fresh
        .run(&["x", "--quality", "best"])
        .fails(2, "there is no preset `best`");
    let list = fresh.run(&["--quality", "help"]).succeeds().stdout;
    assert!(ALL.iter().all(|preset| list.contains(preset.name)), "{list}");
    assert!(list.contains("with latent-consistency/lcm-lora-sdv1-5"), "{list}");
    // The row of a preset, which may be wrapped.
    let line = |name: &str, list: &str| {
        let rest = list
            .lines()
            .skip_while(|line| !line.starts_with(&format!("{name} ")));
        let row = rest
            .enumerate()
            .take_while(|(index, line)| *index == 0 || line.starts_with(' '));
        let words = row.flat_map(|(_, line)| line.split_whitespace());
        words.collect::<Vec<_>>().join(" ")
    };
    assert!(
        line("fast", &list).ends_with(", about 2.0GB to download"),
        "{list}"
    );
    assert!(
        line("sd3.5", &list).contains(", 1.3GB of memory, 10.7GB without streaming, "),
        "{list}"
    );
    assert!(
        line("sd3.5", &list).ends_with("to download after its licence is accepted"),
        "{list}"
    );
    fresh.install("families/sd15", "Lykon/DreamShaper-8");
    let list = fresh.run(&["--quality", "help"]).succeeds().stdout;
    assert!(line("fast", &list).ends_with(", on this machine"), "{list}");
    fresh.run(&["--quality", "demo"]).fails(2, "there is no PROMPT");
}

#[test]
fn the_best_that_is_there_is_generated_with() {
    let fresh = Fresh::new();
    let small = ["a cat", "--size", "64x64", "--steps", "2"];
    let run = fresh.run(&["a red circle", "--steps", "2"]).succeeds();
    assert!(
        run.stderr
            .contains("`generate models pull fast` downloads a real one"),
        "{}",
        run.stderr
    );
    assert_eq!(metadata(&fresh, &run)["quality_preset"], "demo");

    fresh.install("families/sd15", "Lykon/DreamShaper-8");
    let run = fresh.run(&small).succeeds();
    assert!(
        run.stderr.contains("Generating with the preset `fast`"),
        "{}",
        run.stderr
    );
    let found = metadata(&fresh, &run);
    assert_eq!(
        (&found["quality_preset"], &found["model"]),
        (&"fast".into(), &"Lykon/DreamShaper-8".into())
    );

    fresh.install("models/tiny-large", "stabilityai/stable-diffusion-3.5-large");
    let run = fresh
        .run(&[&small[..], &["--quality", "auto"]].concat())
        .succeeds();
    assert!(
        run.stderr.contains("Generating with the preset `sd3.5`"),
        "{}",
        run.stderr
    );
    // A preset that exceeds the budget by a single byte is not chosen.
    let planned = |more: &[&str]| {
        let words = [
            &["plan"],
            &small[..],
            &["--threads", "1", "--json", "--quality"],
            more,
        ];
        let run = fresh.run(&words.concat()).succeeds();
        serde_json::from_str::<Value>(&run.stdout).unwrap()
    };
    let smallest = |preset: &str| planned(&[preset])["smallest_budget"].as_u64().unwrap();
    let (large, fast) = (smallest("sd3.5"), smallest("fast"));
    assert!(fast < large);
    for (budget, chosen) in [(large, large), (large - 1, fast)] {
        let found = planned(&["auto", "--memory", &budget.to_string()]);
        assert_eq!(found["smallest_budget"], chosen, "{budget}");
    }

    let run = fresh
        .run(&["a cat", "--pro", "--size", "64x64", "--steps", "1"])
        .succeeds();
    assert!(
        run.stderr.contains("Stable Diffusion 3.5 Large needs"),
        "{}",
        run.stderr
    );
    let plan = fresh
        .run(&["plan", "a cat", "--pro", "--size", "64x64", "--json"])
        .succeeds();
    let plan: Value = serde_json::from_str(&plan.stdout).unwrap();
    let denoise = plan["stages"]
        .as_array()
        .unwrap()
        .iter()
        .find(|stage| stage["name"] == "denoise");
    assert_eq!(denoise.unwrap()["passes"], 28);
}

#[test]
fn what_is_said_beside_a_preset_wins_and_old_ids_are_known() {
    let fresh = Fresh::new();
    fresh.install("families/sd15", "Lykon/DreamShaper-8");
    fresh.install("families/sd21", "stable-diffusion-v1-5/stable-diffusion-v1-5");
    let run = fresh
        .run(&[
            "a cat",
            "--quality",
            "hd",
            "--steps",
            "3",
            "--cfg",
            "2",
            "--size",
            "64x64",
        ])
        .succeeds();
    let found = metadata(&fresh, &run);
    assert_eq!(
        (&found["steps"], &found["guidance_scale"], &found["upscale"]),
        (&3.into(), &2.0.into(), &2.into())
    );
    let old = [
        "a cat",
        "--model",
        "runwayml/stable-diffusion-v1-5",
        "--size",
        "64x64",
        "--steps",
        "1",
    ];
    fresh.run(&old).succeeds();
    let run = fresh
        .run(&["a cat", "--quality", "quality", "--size", "64x64", "--steps", "2"])
        .succeeds();
    assert_eq!(
        metadata(&fresh, &run)["refiner"],
        "stable-diffusion-v1-5/stable-diffusion-v1-5"
    );
}

#[test]
fn a_style_adds_its_words() {
    let fresh = Fresh::new();
    let run = fresh
        .run(&["a red circle", "--steps", "1", "--style", "fantasy"])
        .succeeds();
    let found = metadata(&fresh, &run);
    assert_eq!(found["style"], "fantasy");
    assert!(
        found["prompt"]
            .as_str()
            .unwrap()
            .starts_with("a red circle, epic fantasy")
    );
    assert!(!found["negative_prompt"].as_str().unwrap().is_empty());
    fresh
        .run(&["x", "--style", "cubism"])
        .fails(2, "the styles are anime, fantasy, scifi, realism");
}
