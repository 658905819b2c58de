//! The user's configuration file: defaults and presets.

use std::fs;

use crate::command::{Fresh, Run};
use serde_json::Value;

fn metadata(fresh: &Fresh, run: &Run) -> Value {
    let path = fresh.path().join(&run.images()[0]).with_extension("json");
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

fn configured(text: &str) -> Fresh {
    let fresh = Fresh::new();
    fs::write(fresh.configuration(), text).unwrap();
    fresh
}

#[test]
fn what_is_typed_wins_over_a_preset_and_that_over_the_defaults() {
    let fresh = configured(
        "[defaults]\nsteps = 1\nseed = 7\noutput = \"generated\"\nstyle = \"fantasy\"\n\
         [presets.quick]\nmodel = \"demo\"\nsteps = 2\ncfg = 3.0\n\
         [presets.demo]\nquality = \"demo\"\nsteps = 3\n\
         [presets.larger]\nquality = \"quick\"\nupscale = 2\n",
    );
    let generated = |words: &[&str]| {
        let run = fresh
            .run(&[&["a red circle", "--model", "demo"], words].concat())
            .succeeds();
        assert!(run.images()[0].starts_with("generated"), "{}", run.stdout);
        metadata(&fresh, &run)
    };
    let found = generated(&[]);
    assert_eq!(
        (&found["steps"], &found["seed"], &found["style"]),
        (&1.into(), &7.into(), &"fantasy".into())
    );
    let found = generated(&["--quality", "quick", "--seed", "8"]);
    assert_eq!(
        (&found["steps"], &found["seed"], &found["guidance_scale"]),
        (&2.into(), &8.into(), &3.0.into())
    );
    assert_eq!(found["quality_preset"], "quick");
    assert_eq!(generated(&["--quality", "quick", "--steps", "4"])["steps"], 4);
    // The user's preset shadows the built-in one that it extends.
    assert_eq!(generated(&["--quality", "demo"])["steps"], 3);
    let found = generated(&["--quality", "larger"]);
    assert_eq!((&found["steps"], &found["upscale"]), (&2.into(), &2.into()));
    let list = fresh.run(&["--quality", "help"]).succeeds().stdout;
    assert!(
        list.contains("larger           as `quick`, upscaled by 2"),
        "{list}"
    );
}

#[test]
fn a_preset_or_a_model_can_be_the_default() {
    let fresh = configured("[defaults]\nquality = \"quick\"\n[presets.quick]\nmodel = \"demo\"\nsteps = 1\n");
    let run = fresh.run(&["a red circle"]).succeeds();
    let found = metadata(&fresh, &run);
    assert_eq!(
        (&found["steps"], &found["quality_preset"]),
        (&1.into(), &"quick".into())
    );
    let fresh = configured("[defaults]\nmodel = \"demo\"\nsteps = 1\n");
    let run = fresh.run(&["a red circle"]).succeeds();
    let found = metadata(&fresh, &run);
    assert_eq!(
        (&found["steps"], &found["quality_preset"]),
        (&1.into(), &Value::Null)
    );
}

#[test]
fn what_cannot_be_understood_is_said_with_its_place() {
    for (text, expected) in [
        ("[defaults]\nsteps = \n", "config.toml: line 2: "),
        (
            "[defaults]\nmemory = \"lots\"\n",
            "config.toml: [defaults] memory: ",
        ),
        (
            "[presets.mine]\nprompt = \"x\"\n",
            "config.toml: [presets.mine] prompt: this cannot be set",
        ),
    ] {
        configured(text).run(&["x"]).fails(2, expected);
    }
    configured("[presets.mine]\nquality = \"none\"\n")
        .run(&["x", "--quality", "mine"])
        .fails(2, "there is no preset `none`");
    configured("[presets.one]\nquality = \"two\"\n[presets.two]\nquality = \"one\"\n")
        .run(&["x", "--quality", "one"])
        .fails(2, "the preset `one` extends itself: one -> two -> one");
    // Help works with any configuration.
    configured("?").run(&["--help"]).succeeds();
}
