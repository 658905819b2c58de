//! `generate` hands over to `generate-cuda` beside it, where that starts. A script stands in for it.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::command::{Fresh, Run};

/// The program in a folder of its own, with a `generate-cuda` that is this script.
fn program_beside(fresh: &Fresh, script: &str) -> PathBuf {
    let folder = fresh.path().join("bin");
    fs::create_dir_all(&folder).unwrap();
    let program = folder.join("generate");
    let built = Path::new(env!("CARGO_BIN_EXE_generate"));
    if !program.exists() && fs::hard_link(built, &program).is_err() {
        fs::copy(built, &program).unwrap();
    }
    let beside = folder.join("generate-cuda");
    fs::write(&beside, format!("#!/bin/sh\n{script}\n")).unwrap();
    fs::set_permissions(&beside, fs::Permissions::from_mode(0o755)).unwrap();
    program
}

fn run(fresh: &Fresh, script: &str) -> Run {
    program_beside(fresh, script);
    run_in(fresh)
}

/// Runs the program that lies in the folder.
fn run_in(fresh: &Fresh) -> Run {
    let program = fresh.path().join("bin/generate");
    let settled = fresh.command();
    let mut command = Command::new(program);
    for (name, value) in settled.get_envs() {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    let arguments = ["plan", "a red circle", "--model", "demo"];
    Run::of(
        command
            .current_dir(fresh.path())
            .args(arguments)
            .output()
            .unwrap(),
    )
}

#[test]
fn the_other_program_carries_out_the_command() {
    let fresh = Fresh::new();
    let version = env!("CARGO_PKG_VERSION");
    let script = format!(
        "if [ \"$1\" = --version ]; then echo 'generate {version}'; exit; fi\necho \"<$2> $#\"; exit 7"
    );
    let run = run(&fresh, &script);
    assert_eq!(
        (run.code, run.stdout.trim()),
        (Some(7), "<a red circle> 4"),
        "{}",
        run.stderr
    );
}

#[test]
fn this_program_under_the_other_name_starts_no_others() {
    let fresh = Fresh::new();
    let beside = fresh.path().join("bin/generate-cuda");
    program_beside(&fresh, "");
    fs::remove_file(&beside).unwrap();
    std::os::unix::fs::symlink("generate", &beside).unwrap();
    let run = run_in(&fresh).succeeds();
    assert!(run.stdout.contains("denoise"), "{}", run.stdout);
}

#[test]
fn what_does_not_start_leaves_the_command_to_this_program() {
    let fresh = Fresh::new();
    let missing = |library: &str| {
        format!(
            "echo 'generate-cuda: error while loading shared libraries: {library}: cannot open shared object file' >&2; exit 127"
        )
    };
    for (script, warning) in [
        // A machine without an NVIDIA GPU is nothing to wonder about.
        (missing("libcuda.so.1"), None),
        (missing("libcublasLt.so.13"), Some("libcublasLt.so.13")),
        (
            "echo 'generate 2.9.0'".to_owned(),
            Some("generate-cuda is `generate 2.9.0`"),
        ),
        (
            "kill -9 $$".to_owned(),
            Some("generate-cuda does not start: signal: 9"),
        ),
    ] {
        let run = run(&fresh, &script).succeeds();
        assert!(run.stdout.contains("denoise"), "{}", run.stdout);
        let found = run
            .stderr
            .lines()
            .find(|line| line.starts_with("warning: no NVIDIA GPU"));
        match warning {
            Some(warning) => assert!(found.unwrap().contains(warning), "{}", run.stderr),
            None => assert_eq!(found, None),
        }
    }
}
