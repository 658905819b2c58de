//! `generate completions`, `generate man`, and the width of the help.

use crate::command::{Fresh, Run};

#[test]
fn there_is_a_script_for_each_shell() {
    let fresh = Fresh::new();
    for (shell, parts) in [
        (
            "bash",
            &["_generate()", "--negative-prompt", "again", "photorealistic"][..],
        ),
        ("zsh", &["#compdef generate", "--sampler", "dpmpp_2m", "doctor"]),
        ("fish", &["complete -c generate", "negative-prompt"]),
        ("powershell", &["Register-ArgumentCompleter"]),
        ("elvish", &["edit:completion"]),
    ] {
        let run = fresh.run(&["completions", shell]).succeeds();
        for part in parts {
            assert!(
                run.stdout.contains(part),
                "{part} is not in the script for {shell}"
            );
        }
        assert_eq!(run.stderr, "");
    }
    fresh.run(&["completions", "csh"]).fails(2, "csh");
}

#[cfg(unix)]
#[test]
fn bash_completes_options_and_commands() {
    let fresh = Fresh::new();
    std::fs::write(
        fresh.path().join("script"),
        fresh.run(&["completions", "bash"]).succeeds().stdout,
    )
    .unwrap();
    let script = r#"
        command -v bash > /dev/null || { echo --negative-prompt; echo again; exit; }
        bash -c 'source ./script
            complete_word() { COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); COMPREPLY=(); _generate generate "${@: -1}" "${@: -2:1}"; printf "%s\n" "${COMPREPLY[@]}"; }
            complete_word generate --neg; complete_word generate aga'"#;
    let run = Run::of(fresh.shell(script).output().unwrap());
    assert_eq!(
        run.stdout.split_whitespace().collect::<Vec<_>>(),
        ["--negative-prompt", "again"],
        "{}",
        run.stderr
    );
}

#[test]
fn there_is_a_manual_page() {
    let fresh = Fresh::new();
    let page = fresh.run(&["man"]).succeeds().stdout;
    for part in [".TH generate 1", "\\-\\-negative\\-prompt", "EXIT", "again"] {
        assert!(
            page.to_uppercase().contains(&part.to_uppercase()),
            "{part} is not in the page"
        );
    }
    let page = fresh.run(&["man", "models", "pull"]).succeeds().stdout;
    assert!(page.contains(".TH generate-models-pull 1"), "{page}");
    fresh.run(&["man", "nothing"]).fails(2, "no command `nothing`");
    assert!(
        page.contains(&format!("\"generate-models-pull {}\"", env!("CARGO_PKG_VERSION"))),
        "{page}"
    );
    // Every command is in the list, in the page and in the script of a shell.
    let help = fresh.run(&["--help"]).succeeds().stdout;
    let page = fresh.run(&["man"]).succeeds().stdout;
    let script = fresh.run(&["completions", "fish"]).succeeds().stdout;
    for command in [
        "again",
        "plan",
        "show",
        "resume",
        "models",
        "login",
        "doctor",
        "convert",
        "completions",
        "man",
    ] {
        assert!(help.contains(&format!("\n  {command} ")), "{command}: {help}");
        assert!(
            page.contains(&format!("generate\\-{command}(1)")),
            "{command}: {page}"
        );
        assert!(
            script.contains(&format!("-a \"{command}\"")),
            "{command}: {script}"
        );
    }
    let help = fresh.run(&["plan", "--help"]).succeeds().stdout;
    assert!(
        help.contains("Usage: generate plan \"PROMPT\" [OPTIONS]"),
        "{help}"
    );
    assert_eq!(fresh.run(&["help", "plan"]).succeeds().stdout, help);
}

#[test]
fn lists_fit_the_width_of_the_terminal() {
    let fresh = Fresh::new();
    for (columns, most) in [("80", 80), ("200", 100)] {
        for words in [
            &["--quality", "help"][..],
            &["--sampler", "help"],
            &["--scheduler", "help"],
            &["doctor"],
            &["plan", "x", "--refiner", "demo"],
        ] {
            let output = fresh
                .command()
                .args(words)
                .env("COLUMNS", columns)
                .output()
                .unwrap();
            let list = Run::of(output).succeeds().stdout;
            for line in list.lines() {
                assert!(line.chars().count() <= most, "{columns}: {line}");
            }
        }
    }
}

#[test]
fn the_help_fits_the_width_of_the_terminal() {
    let fresh = Fresh::new();
    for (columns, most) in [("60", 60), ("80", 80), ("200", 100)] {
        for words in [
            &["--help"][..],
            &["again", "--help"],
            &["models", "--help"],
            &["convert", "--help"],
        ] {
            let output = fresh
                .command()
                .args(words)
                .env("COLUMNS", columns)
                .output()
                .unwrap();
            let help = Run::of(output).succeeds().stdout;
            for line in help.lines() {
                // A command of an example stays whole.
                let is_example = line.starts_with("  generate ");
                assert!(line.chars().count() <= most || is_example, "{columns}: {line}");
            }
            assert!(
                help.lines().any(|line| line.chars().count() + 15 > most),
                "{columns} {words:?}"
            );
        }
    }
}
