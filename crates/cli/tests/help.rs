//! What `--help` says: the texts of `help.txt` and `help_resume.txt` beside this file.

#![allow(clippy::unwrap_used)] // Without its data a test has failed.

mod command;

use command::Fresh;

#[test]
fn the_help_is_as_written_down() {
    let run = Fresh::new().run(&["--help"]).succeeds();
    assert_eq!(run.stderr, "");
    let written = include_str!("help.txt");
    assert!(
        run.stdout == written,
        "`generate --help` has changed; if it should, write this into help.txt:\n{}",
        run.stdout
    );
}

#[test]
fn the_help_of_each_subcommand_is_as_written_down() {
    let run = Fresh::new().run(&["resume", "--help"]).succeeds();
    let written = include_str!("help_resume.txt");
    assert!(
        run.stdout == written,
        "`generate resume --help` has changed; if it should, write this into help_resume.txt:\n{}",
        run.stdout
    );
}

#[test]
fn the_version_is_the_crate_s() {
    let run = Fresh::new().run(&["--version"]).succeeds();
    assert_eq!(run.stdout, format!("generate {}\n", env!("CARGO_PKG_VERSION")));
}
