//! Where prompts come from, and the seeds of their images.

use std::fs;
use std::io::Write;
use std::process::Stdio;

use crate::command::{Fresh, Run};
use serde_json::Value;

const SMALL: [&str; 4] = ["--size", "64x64", "--steps", "1"];

/// Runs the binary with `text` on stdin.
fn piped(fresh: &Fresh, words: &[&str], text: &str) -> Run {
    let mut child = fresh
        .command()
        .args([words, &SMALL[..]].concat())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    Run::of(child.wait_with_output().unwrap())
}

/// The metadata of the images of `run`.
fn metadata(fresh: &Fresh, run: &Run) -> Vec<Value> {
    let of = |path: &std::path::PathBuf| {
        let text = fs::read(fresh.path().join(path).with_extension("json")).unwrap();
        serde_json::from_slice(&text).unwrap()
    };
    run.images().iter().map(of).collect()
}

#[test]
fn a_prompt_can_come_through_a_pipe() {
    let fresh = Fresh::new();
    for words in [&["-"][..], &[]] {
        let run = piped(&fresh, words, "a red circle\n").succeeds();
        assert_eq!(metadata(&fresh, &run)[0]["prompt"], "a red circle");
    }
    let run = piped(&fresh, &["-"], "\u{feff}a red circle\r\n").succeeds();
    assert_eq!(metadata(&fresh, &run)[0]["prompt"], "a red circle");
    piped(&fresh, &["-"], " \n").fails(2, "the prompt is empty");
    piped(&fresh, &[], "").fails(2, "there is no PROMPT");
    // What is typed wins.
    let run = piped(&fresh, &["a blue square"], "a red circle").succeeds();
    assert_eq!(metadata(&fresh, &run)[0]["prompt"], "a blue square");
}

#[test]
fn empty_prompts_are_refused() {
    let fresh = Fresh::new();
    for prompt in ["", "  ", "\n"] {
        fresh.run(&[prompt]).fails(2, "the prompt is empty");
        fresh.run(&["--prompt", prompt]).fails(2, "the prompt is empty");
    }
}

#[test]
fn a_file_of_prompts_makes_one_run() {
    let fresh = Fresh::new();
    fs::write(
        fresh.path().join("prompts.txt"),
        "a red circle\n\n# three squares\n--prompt \"two green squares\" --seed 7 --cfg_scale 2 --steps=2\n\
         --negative_prompt 'a circle' \"a blue square\" --output named.png\n",
    )
    .unwrap();
    let run = fresh
        .run(&[&["--prompt-file", "prompts.txt", "--seed", "3"], &SMALL[..]].concat())
        .succeeds();
    let images = metadata(&fresh, &run);
    let shown = |key: &str| {
        images
            .iter()
            .map(|image| image[key].to_string())
            .collect::<Vec<_>>()
    };
    assert_eq!(
        shown("prompt"),
        [
            r#""a red circle""#,
            r#""two green squares""#,
            r#""a blue square""#
        ]
    );
    assert_eq!(shown("seed"), ["3", "7", "3"]);
    assert_eq!(shown("steps"), ["1", "2", "1"]);
    assert_eq!(shown("guidance_scale")[1], "2.0");
    assert_eq!(images[2]["negative_prompt"], "a circle");
    assert!(run.stdout.ends_with("named.png\n"), "{}", run.stdout);

    for (text, cause) in [
        ("", "holds no prompt"),
        ("a cat\n--steps 3\n", "line 2: there is no prompt"),
        ("--prompt 'a cat\n", "line 1: a quotation mark is not closed"),
        (
            "--restore_faces --prompt x\n",
            "line 1: unexpected argument '--restore-faces'",
        ),
        (
            "--prompt x --quiet\n",
            "line 1: this line has an option that holds for the whole run",
        ),
        (
            "--prompt x --open\n",
            "line 1: this line has an option that holds for the whole run",
        ),
        (
            "--prompt x -o -\n",
            "line 1: stdout takes the image of the whole run",
        ),
        (
            "--prompt x --help\n",
            "line 1: --help and --version are for the command line",
        ),
        (
            "--prompt x --batch_size 2 --n_iter 3\n",
            "line 1: `--batch_size` and `--n_iter` are one option",
        ),
        (
            "--prompt x --seed 1 --seed 2\n",
            "line 1: `--seed` is given more than once",
        ),
        ("a\0b\n", "line 1: it is no text"),
        ("--prompt x --steps 0\n", "line 1: invalid value '0'"),
    ] {
        fs::write(fresh.path().join("bad.txt"), text).unwrap();
        fresh.run(&["--prompt-file", "bad.txt"]).fails(2, cause);
    }
    fresh
        .run(&["--prompt-file", "missing.txt"])
        .fails(2, "cannot read the prompts of `missing.txt`");
    fresh
        .run(&["a cat", "--prompt-file", "prompts.txt"])
        .fails(2, "cannot be used with");
}

/// The stages and the images of `run`, which has written events.
fn stages_and_images(fresh: &Fresh, run: &Run) -> (Vec<String>, Vec<Vec<[u8; 3]>>) {
    let events = run.events();
    let of = |kind: &'static str| events.iter().filter(move |event| event["event"] == kind);
    let stages = of("stage").map(|event| event["stage"].as_str().unwrap().to_owned());
    let images = of("saved").map(|event| {
        let image = fresh.path().join(event["image"].as_str().unwrap());
        crate::command::Image::read(&image).pixels
    });
    (stages.collect(), images.collect())
}

#[test]
fn the_prompts_of_a_file_are_encoded_together() {
    const PROMPTS: [&str; 3] = ["a cat", "a (red:1.2) house by the sea", "an old lighthouse"];
    let fresh = Fresh::new();
    fresh.tiny_model();
    fs::write(fresh.path().join("prompts.txt"), PROMPTS.join("\n")).unwrap();
    let options = ["--model", "model", "--size", "64x64", "--steps", "1", "--json"];
    let run = fresh.run(&[&["--prompt-file", "prompts.txt"], &options[..]].concat());
    let (stages, together) = stages_and_images(&fresh, &run.succeeds());
    let ahead = stages.iter().filter(|stage| *stage == "encode prompts").count();
    assert_eq!((ahead, stages[0].as_str()), (1, "encode prompts"), "{stages:?}");
    // No prompt is in a cache, so that its own run encodes it.
    let alone = PROMPTS.map(|prompt| {
        let fresh = Fresh::new();
        fresh.tiny_model();
        let run = fresh.run(&[&[prompt], &options[..]].concat()).succeeds();
        let (stages, mut images) = stages_and_images(&fresh, &run);
        assert!(!stages.contains(&"encode prompts".to_owned()), "{stages:?}");
        images.remove(0)
    });
    assert!(together == alone);
}

#[test]
fn seeds_can_be_lists_ranges_and_random() {
    let fresh = Fresh::new();
    let seeds = |words: &[&str]| -> Vec<u64> {
        let run = fresh
            .run(&[&["a red circle", "--seed"], words, &SMALL[..]].concat())
            .succeeds();
        metadata(&fresh, &run)
            .iter()
            .map(|image| image["seed"].as_u64().unwrap())
            .collect()
    };
    assert_eq!(seeds(&["9,2"]), [9, 2]);
    assert_eq!(seeds(&["4..6"]), [4, 5, 6]);
    assert_eq!(seeds(&["5", "--n", "2"]), [5, 6]);
    let random = [seeds(&["random"]), seeds(&["-1"]), seeds(&["random"])];
    assert!(random[0] != random[1] || random[1] != random[2], "{random:?}");
    let run = fresh
        .run(&[&["a red circle", "--seed", "random"], &SMALL[..]].concat())
        .succeeds();
    let seed = metadata(&fresh, &run)[0]["seed"].to_string();
    assert!(run.stderr.contains(&format!("seed {seed}")), "{}", run.stderr);
    let list = |words: &[&str]| fresh.run(&[&["x", "--seed"], words].concat());
    list(&["1,2", "--n", "3"]).fails(2, "2 seeds make 2 images, not 3");
    list(&["1,x"]).fails(2, "a list like 1,2,3");
    list(&["1,1", "-o", "{seed}.png", "--overwrite"]).fails(2, "two images have the seed 1");
    let run = fresh.run(
        &[
            &[
                "a red circle",
                "--seed",
                "1,1",
                "-o",
                "{seed}_{number}.png",
                "--overwrite",
            ],
            &SMALL[..],
        ]
        .concat(),
    );
    assert_eq!(run.succeeds().images().len(), 2);
}

#[test]
fn a_repeated_command_says_how_to_get_another_image() {
    let fresh = Fresh::new();
    let run = |words: &[&str]| fresh.run(&[words, &SMALL[..]].concat()).succeeds();
    let hint = "--seed random gives another one";
    assert!(!run(&["a red circle"]).stderr.contains(hint));
    assert!(run(&["a red circle"]).stderr.contains(hint));
    assert!(!run(&["a blue circle"]).stderr.contains(hint));
    assert!(!run(&["a blue circle", "--seed", "42"]).stderr.contains(hint));
    assert!(!run(&["a blue circle", "--quiet"]).stderr.contains(hint));
}

#[test]
fn a_size_can_be_a_ratio() {
    let fresh = Fresh::new();
    let size = |text: &str| {
        let run = fresh
            .run(&["a red circle", "--steps", "1", "--size", text])
            .succeeds();
        let image = &metadata(&fresh, &run)[0];
        (
            image["width"].as_u64().unwrap(),
            image["height"].as_u64().unwrap(),
        )
    };
    assert_eq!(size("2:1"), (368, 176));
    assert_eq!(size("square"), (256, 256));
    let (width, height) = size("portrait");
    assert!(
        width < height && (60_000..70_000).contains(&(width * height)),
        "{width}x{height}"
    );
    fresh.run(&["x", "--size", "20:1"]).fails(2, "at most 8 times");
}

#[test]
fn what_the_model_was_not_trained_for_is_warned_of() {
    let fresh = Fresh::new();
    let told = |words: &[&str]| fresh.run(&[words, &["--steps", "1"]].concat()).succeeds().stderr;
    let outside = told(&["a cat in a box"]);
    assert!(
        outside.contains("the built-in model does not know `cat`"),
        "{outside}"
    );
    assert!(outside.contains("circle, square"), "{outside}");
    let inside = told(&["a red circle"]);
    assert!(
        !inside.contains("does not know") && !inside.contains("was trained at"),
        "{inside}"
    );
    // The words of a style are none of the user's.
    let styled = told(&["a red circle", "--style", "anime"]);
    assert!(!styled.contains("does not know"), "{styled}");
    let small = told(&["a red circle", "--size", "64x64"]);
    assert!(
        small.contains("the model was trained at 256x256: at 64x64"),
        "{small}"
    );
}
