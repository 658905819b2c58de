//! Options as other programs call them, what was probably meant, and words that are commands.

use crate::command::{Fresh, Image};

#[test]
fn options_may_have_the_names_of_other_programs() {
    let fresh = Fresh::new();
    let ours = [
        "a red circle",
        "--size",
        "64x48",
        "--steps",
        "2",
        "--cfg",
        "3",
        "--negative-prompt",
        "blue",
        "--n",
        "1",
    ];
    let first = fresh.run(&[&ours[..], &["--quiet"]].concat()).succeeds();
    let text = |run: &crate::command::Run| {
        Image::read(&fresh.path().join(&run.images()[0])).texts[0]
            .1
            .clone()
    };
    let expected = text(&first);
    for theirs in [
        // stable-diffusion.cpp
        &[
            "-p",
            "a red circle",
            "-W",
            "64",
            "-H",
            "48",
            "--steps",
            "2",
            "--cfg-scale",
            "3",
            "--negative-prompt",
            "blue",
            "-b",
            "1",
            "-m",
            "demo",
        ][..],
        // mflux
        &[
            "--prompt",
            "a red circle",
            "--width",
            "64",
            "--height",
            "48",
            "--steps",
            "2",
            "--guidance",
            "3",
            "--neg",
            "blue",
            "-m",
            "demo",
        ],
        // diffusers
        &[
            "--prompt",
            "a red circle",
            "--size",
            "64x48",
            "--num_inference_steps",
            "2",
            "--guidance_scale",
            "3",
            "--negative_prompt",
            "blue",
            "-n",
            "1",
        ],
    ] {
        let run = fresh.run(&[theirs, &["--quiet"]].concat()).succeeds();
        assert_eq!(text(&run), expected, "{theirs:?}");
    }
}

#[test]
fn a_name_of_two_meanings_is_refused_with_both() {
    let fresh = Fresh::new();
    for (words, advice) in [
        (&["x", "-s", "5"][..], "write --seed or --steps"),
        (&["x", "--image-strength", "0.4"], "write 1 - X"),
        (&["x", "--lora-model-dir", "loras"], "models_path"),
        (&["x", "--vae-tiling"], "--memory SIZE"),
        (&["x", "--type", "q8_0"], "generate convert"),
    ] {
        let run = fresh.run(words).fails(2, words[1]);
        assert!(run.stderr.contains(advice), "{}", run.stderr);
    }
    let run = fresh.run(&["x", "-n", "blurry, bad"]).fails(2, "'blurry, bad'");
    assert!(run.stderr.contains("write --negative-prompt"), "{}", run.stderr);
    assert_eq!(fresh.files("."), [""; 0]);
}

#[test]
fn what_was_probably_meant_is_named_and_nothing_else() {
    let fresh = Fresh::new();
    for (words, meant) in [
        (
            &["x", "--sampelr", "Euler"][..],
            Some("did you mean `--sampler`?"),
        ),
        (
            &["x", "--negativ-prompt", "y"],
            Some("did you mean `--negative-prompt`?"),
        ),
        (&["x", "--cfg-scal", "4"], Some("did you mean `--cfg`?")),
        (&["x", "--quailty=fast"], Some("did you mean `--quality`?")),
        (&["resume", "--discrd"], Some("did you mean `--discard`?")),
        (&["x", "--rgn", "torch"], Some("did you mean `--rng`?")),
        (&["x", "--glow", "3"], None),
        (&["x", "--xyz"], None),
        (&["x", "--quality", "ultr-hd"], Some("did you mean `ultra-hd`?")),
        (&["x", "--quality", "nonsense"], None),
        (
            &["x", "--model", "demo", "--sampler", "eular a"],
            Some("did you mean `Euler a`?"),
        ),
        (
            &["x", "--model", "demo", "--sampler", "karras"],
            Some("it is a noise schedule: --scheduler takes it"),
        ),
        (
            &["x", "--model", "demo", "--scheduler", "euler"],
            Some("it is a sampler: --sampler takes it"),
        ),
        (
            &["x", "--model", "demo", "--scheduler", "karas"],
            Some("did you mean `karras`?"),
        ),
        (
            &["x", "--model", "fast"],
            Some("it is a preset: --quality fast takes it"),
        ),
        (&["x", "--model", "dmeo"], Some("did you mean `demo`?")),
        (&["x", "--model", "elsewhere"], None),
    ] {
        let run = fresh.run(words);
        assert!(
            run.code == Some(2) || run.code == Some(4),
            "{words:?}: {}",
            run.stderr
        );
        match meant {
            Some(meant) => assert!(run.stderr.contains(meant), "{words:?}: {}", run.stderr),
            None => assert!(!run.stderr.contains("did you mean"), "{words:?}: {}", run.stderr),
        }
    }
}

#[test]
fn words_that_are_commands_never_draw() {
    let fresh = Fresh::new();
    for (words, cause) in [
        #[cfg(not(feature = "cluster"))]
        (
            &["worker", "--port", "80"][..],
            "there is no command `worker` yet",
        ),
        #[cfg(not(feature = "cluster"))]
        (&["plan", "worker"], "there is no command `worker` yet"),
        (&["ls"][..], "there is no command `ls`"),
        (&["list"], "there is no command `list`"),
        (&["plan", "serve"], "`serve` is a command, which comes first"),
        (
            &["--seed", "1", "serve"],
            "`serve` is a command, which comes first",
        ),
        (
            &["--seed", "1", "resume"],
            "`resume` is a command, which comes first",
        ),
        (
            &["--steps", "1", "plan"],
            "`plan` is a command, which comes first",
        ),
        (&["--steps", "1", "show"], "`show` is a command"),
    ] {
        let run = fresh.run(words).fails(2, cause);
        assert!(run.stderr.contains("generate --prompt "), "{}", run.stderr);
    }
    assert_eq!(fresh.files("."), [""; 0]);
    for words in [&["--prompt", "serve"][..], &["--", "serve"]] {
        let small = ["--size", "64x64", "--steps", "1"];
        // Options come before `--`.
        let words = if words[0] == "--" {
            [&small[..], words].concat()
        } else {
            [words, &small].concat()
        };
        fresh.run(&words).succeeds();
    }
}
