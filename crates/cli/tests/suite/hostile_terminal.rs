//! Escaping of terminal output, and streams, clocks and systems that fail.

#![cfg(unix)]

use std::fs;

use crate::command::{Fresh, Run};

/// Characters that move the cursor, start lines, or change the reading direction.
const EVIL: &str = "\u{1b}[2J\u{202e}evil\nerror: x";

#[track_caller]
fn is_plain(text: &str) {
    let acts =
        |letter: char| letter != '\n' && letter.is_control() || matches!(letter, '\u{202a}'..='\u{202e}');
    assert!(!text.contains(acts), "{text:?}");
    assert!(!text.lines().any(|line| line == "error: x"), "{text}");
}

#[test]
fn text_from_outside_is_escaped() {
    let fresh = Fresh::new();
    let runs = [
        fresh.run(&["plan", "x", "--model", EVIL]),
        fresh.run(&["plan", "x", "--init-image", EVIL]),
        fresh.run(&["plan", "x", "--lora", EVIL]),
        fresh.run(&["plan", EVIL, EVIL]),
        fresh.run(&["plan", "x", "--quality", EVIL]),
        fresh.run(&["resume", EVIL]),
        fresh.run(&["models", "rm", EVIL]),
    ];
    for run in runs {
        is_plain(&run.stderr);
        assert!(run.stderr.contains("\\u{1b}[2J\\u{202e}evil"), "{}", run.stderr);
    }
    // The files of a model.
    let model = fresh.tiny_model();
    let config = model.join("transformer/config.json");
    let text = fs::read_to_string(&config)
        .unwrap()
        .replace("rms_norm", "rms\\u001b[31m\\nerror: x");
    fs::write(config, text).unwrap();
    let run = fresh.run(&["plan", "x", "--model", "model", "--size", "64x64"]);
    is_plain(&run.fails(1, "\\u{1b}[31m").stderr);
}

#[test]
fn the_configuration_is_escaped_too() {
    let fresh = Fresh::new();
    fs::write(
        fresh.configuration(),
        "[presets.\"\\u001b[2J\"]\nsteps = 3\nmodel = \"demo\"\n",
    )
    .unwrap();
    let run = fresh.run(&["--quality", "help"]).succeeds();
    is_plain(&run.stdout);
    let device = fresh.configuration();
    fs::remove_file(&device).unwrap();
    assert!(
        std::process::Command::new("mkfifo")
            .arg(&device)
            .status()
            .unwrap()
            .success()
    );
    fresh
        .run(&["--quality", "help"])
        .fails(2, "it is a pipe and not a file");
}

#[test]
fn a_stdout_that_is_full_or_closed_is_an_exit_code() {
    let fresh = Fresh::new();
    let binary = env!("CARGO_BIN_EXE_generate");
    let run = |script: &str| Run::of(fresh.shell(script).output().unwrap());
    if fs::metadata("/dev/full").is_ok() {
        for arguments in ["--help", "models --json", "plan x --size 64x64", "--sampler help"] {
            run(&format!("{binary} {arguments} > /dev/full")).fails(1, "cannot write to stdout");
        }
    }
    // A closed pipe is not reported.
    let closed = run(&format!("{{ {binary} --help; echo $? >&2; }} | true"));
    assert!(matches!(closed.stderr.trim(), "141" | "0"), "{}", closed.stderr);
    let closed = run(&format!("{{ sleep 0.2; {binary} --help; echo $? >&2; }} | true"));
    assert_eq!(closed.stderr.trim(), "141");
}

#[test]
fn a_refused_thread_is_an_error() {
    let fresh = Fresh::new();
    // No stack of this size fits into memory.
    let mut command = fresh.command();
    command
        .args(["x", "--size", "64x64", "--steps", "1"])
        .env("RUST_MIN_STACK", (1_u64 << 46).to_string());
    let run = Run::of(command.output().unwrap());
    assert!(!run.stderr.contains("panicked"), "{}", run.stderr);
    run.fails(1, "");
}

#[test]
fn folders_of_the_user_that_cannot_be_made_are_no_log_lines() {
    let fresh = Fresh::new();
    fs::write(fresh.path().join("file"), "").unwrap();
    let mut command = fresh.command();
    command
        .args(["x", "--size", "64x64", "--steps", "1"])
        .env("SD_GENERATE_STATE", fresh.path().join("file/state"))
        .env("SD_GENERATE_CACHE", fresh.path().join("file/cache"));
    let run = Run::of(command.output().unwrap()).succeeds();
    for line in run.stderr.lines() {
        assert!(
            !line.contains(" WARN ") && !line.contains("sd_pipeline"),
            "{line}"
        );
    }
    let mut command = fresh.command();
    command
        .args(["resume"])
        .env("SD_GENERATE_STATE", fresh.path().join("file/state"));
    let run = Run::of(command.output().unwrap());
    assert!(!run.stderr.contains("panicked"), "{}", run.stderr);
}
