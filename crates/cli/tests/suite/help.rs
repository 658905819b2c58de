//! The output of `--help`, compared with `help.txt` and `help_….txt` beside this file. Those of the command and of `serve` are as
//! they are without the feature `cluster`.

use crate::command::Fresh;

#[cfg(not(feature = "cluster"))]
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
    let subcommands = [
        (
            &["resume"][..],
            "help_resume.txt",
            include_str!("help_resume.txt"),
        ),
        (&["models"], "help_models.txt", include_str!("help_models.txt")),
        (
            &["models", "pull"],
            "help_models_pull.txt",
            include_str!("help_models_pull.txt"),
        ),
        (
            &["models", "rm"],
            "help_models_rm.txt",
            include_str!("help_models_rm.txt"),
        ),
        (
            &["models", "verify"],
            "help_models_verify.txt",
            include_str!("help_models_verify.txt"),
        ),
        (&["login"], "help_login.txt", include_str!("help_login.txt")),
        (&["doctor"], "help_doctor.txt", include_str!("help_doctor.txt")),
        (&["convert"], "help_convert.txt", include_str!("help_convert.txt")),
        #[cfg(not(feature = "cluster"))]
        (&["serve"], "help_serve.txt", include_str!("help_serve.txt")),
        #[cfg(feature = "cluster")]
        (&["worker"], "help_worker.txt", include_str!("help_worker.txt")),
        (&["ps"], "help_ps.txt", include_str!("help_ps.txt")),
        (&["show"], "help_show.txt", include_str!("help_show.txt")),
        (
            &["completions"],
            "help_completions.txt",
            include_str!("help_completions.txt"),
        ),
    ];
    for (words, file, written) in subcommands {
        let run = Fresh::new().run(&[words, &["--help"]].concat()).succeeds();
        assert!(
            run.stdout == written,
            "`generate {} --help` has changed; if it should, write this into {file}:\n{}",
            words.join(" "),
            run.stdout
        );
    }
}

#[test]
fn the_word_help_is_no_prompt() {
    let fresh = Fresh::new();
    for (words, same) in [
        (&["help"][..], &["--help"][..]),
        (&["help", "models", "pull"], &["models", "pull", "--help"]),
    ] {
        assert!(fresh.run(words).succeeds().stdout == fresh.run(same).succeeds().stdout);
    }
    assert_eq!(fresh.files("."), [""; 0]);
}

#[test]
fn the_version_is_the_crate_s() {
    let run = Fresh::new().run(&["--version"]).succeeds();
    assert_eq!(run.stdout, format!("generate {}\n", env!("CARGO_PKG_VERSION")));
}
