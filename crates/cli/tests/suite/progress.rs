//! What is shown while the program works: in a terminal, in a pipe, and as an image that forms.

#![cfg(unix)]

use std::fs::{self, File};
use std::io::{Cursor, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use nix::pty::{Winsize, openpty};

use crate::command::{Fresh, Run};
use crate::hub::server::{Server, Trouble};

/// At the size of the built-in model, of which there is no warning.
const DRAWN: [&str; 3] = ["a red circle", "--steps", "4"];

/// A program that runs in a terminal of 100 columns.
struct Terminal {
    child: Child,
    screen: File,
    bytes: Vec<u8>,
    last: Instant,
    longest_silence: Duration,
}

/// What a terminal received of a program.
struct Shown {
    text: String,
    /// The longest time without a byte, from the start on.
    longest_silence: Duration,
    code: Option<i32>,
}

impl Terminal {
    fn start(mut command: Command) -> Self {
        let size = Winsize {
            ws_row: 40,
            ws_col: 100,
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        let terminal = openpty(Some(&size), None).unwrap();
        let term = term_of(&command);
        command
            .env("TERM", term)
            .stdin(Stdio::null())
            .stdout(terminal.slave.try_clone().unwrap())
            .stderr(terminal.slave);
        // The command, which holds the other end of the terminal too, is dropped here.
        Self {
            child: command.spawn().unwrap(),
            screen: File::from(terminal.master),
            bytes: Vec::new(),
            last: Instant::now(),
            longest_silence: Duration::ZERO,
        }
    }

    /// Reads what comes next; false where the program has ended.
    fn read(&mut self) -> bool {
        let mut piece = [0; 4096];
        // Reading fails once the other end is closed.
        let Ok(count @ 1..) = self.screen.read(&mut piece) else {
            return false;
        };
        self.longest_silence = self.longest_silence.max(self.last.elapsed());
        self.last = Instant::now();
        self.bytes.extend_from_slice(&piece[..count]);
        true
    }

    /// Reads until `text` has come.
    fn wait_for(&mut self, text: &str) {
        while !String::from_utf8_lossy(&self.bytes).contains(text) {
            assert!(
                self.read(),
                "{text} never comes: {}",
                String::from_utf8_lossy(&self.bytes)
            );
        }
    }

    fn finish(mut self) -> Shown {
        while self.read() {}
        Shown {
            text: String::from_utf8(self.bytes).unwrap(),
            longest_silence: self.longest_silence,
            code: self.child.wait().unwrap().code(),
        }
    }
}

fn in_terminal(command: Command) -> Shown {
    Terminal::start(command).finish()
}

/// The kind of terminal that a test has chosen, or a usual one.
fn term_of(command: &Command) -> String {
    let chosen = command.get_envs().find(|(name, _)| *name == "TERM");
    let chosen = chosen.and_then(|(_, value)| value?.to_str().map(str::to_owned));
    chosen.unwrap_or_else(|| "xterm-256color".to_owned())
}

/// `text` as it is printed: without sequences that move the cursor or erase.
fn printed(text: &str) -> String {
    let mut printed = String::new();
    let mut letters = text.chars();
    while let Some(letter) = letters.next() {
        if letter == '\u{1b}' {
            letters.by_ref().find(char::is_ascii_alphabetic);
        } else {
            printed.push(letter);
        }
    }
    printed
}

/// A command without the variables of the terminal that runs the tests.
fn settled(mut command: Command) -> Command {
    for name in [
        "TERM",
        "TERM_PROGRAM",
        "LC_TERMINAL",
        "KITTY_WINDOW_ID",
        "KONSOLE_VERSION",
        "TMUX",
        "WT_SESSION",
    ] {
        command.env_remove(name);
    }
    command
}

#[test]
fn a_terminal_shows_every_stage_from_its_begin() {
    let fresh = Fresh::new();
    let mut command = settled(fresh.command());
    command.args(DRAWN).args(["--n", "2", "--upscale", "2"]);
    let shown = in_terminal(command);
    let text = printed(&shown.text);
    assert_eq!(shown.code, Some(0), "{text}");
    for stage in [
        "opening the model",
        "encoding the prompt",
        "loading the model",
        "denoising: ╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌ 0/8 steps, image 1 of 2",
        "1/8 steps",
        " s/step",
        "decoding",
        "upscaling",
    ] {
        assert!(text.contains(stage), "{stage} is not in {text}");
    }
    // Each image's path is a line of its own, and the status line is gone at the end.
    assert!(
        text.contains("outputs/output_") && text.contains("Done in "),
        "{text}"
    );
    assert!(shown.text.ends_with("\r\u{1b}[2K"), "{:?}", shown.text);
}

#[test]
fn a_refiner_has_steps_of_its_own() {
    let fresh = Fresh::new();
    let mut command = settled(fresh.command());
    command.args(DRAWN).args(["--refiner", "demo"]);
    let shown = in_terminal(command);
    let text = printed(&shown.text);
    assert_eq!(shown.code, Some(0), "{text}");
    assert!(
        text.contains("denoising: ") && text.contains("refining: "),
        "{text}"
    );
}

#[test]
fn a_quiet_terminal_shows_the_result_alone() {
    let fresh = Fresh::new();
    let mut command = settled(fresh.command());
    command.args(DRAWN).arg("--quiet");
    let shown = in_terminal(command);
    assert_eq!(shown.code, Some(0));
    assert_eq!(shown.text.lines().count(), 1, "{:?}", shown.text);
    assert!(shown.text.starts_with("./outputs/output_"), "{:?}", shown.text);
}

#[test]
fn a_slow_download_is_no_silence() {
    const ID: &str = "me/tiny";
    let server = Server::start();
    let families = Path::new(env!("CARGO_MANIFEST_DIR")).join("../pipeline/tests/fixtures/families");
    server.put_folder(ID, &families.join("sd15"));
    server.trouble("unet/diffusion_pytorch_model.safetensors", Trouble::Slow(400));
    let fresh = Fresh::new();
    let mut command = settled(fresh.command_at(server.endpoint()));
    command.args(["models", "pull", ID]);
    let shown = in_terminal(command);
    let text = printed(&shown.text);
    assert_eq!(shown.code, Some(0), "{text}");
    assert!(text.contains("asking the hub for me/tiny"), "{text}");
    assert!(text.contains("downloading: ") && text.contains("/s, "), "{text}");
    assert!(
        shown.longest_silence < Duration::from_secs(5),
        "{:?}",
        shown.longest_silence
    );
}

#[test]
fn without_a_terminal_nothing_is_redrawn() {
    let fresh = Fresh::new();
    let run = fresh.run(&DRAWN).succeeds();
    assert!(!run.stderr.contains(['\r', '\u{1b}']), "{:?}", run.stderr);
}

#[test]
fn an_interrupt_ends_the_display() {
    let fresh = Fresh::new();
    let mut command = settled(fresh.command());
    command.args(["a red circle", "--steps", "1000"]);
    let mut terminal = Terminal::start(command);
    terminal.wait_for("1/1000 steps");
    let kill = Command::new("kill")
        .args(["-INT", &terminal.child.id().to_string()])
        .status();
    assert!(kill.unwrap().success());
    let shown = terminal.finish();
    let text = printed(&shown.text);
    assert_eq!(shown.code, Some(130), "{text}");
    assert!(text.contains("finishing the current step"), "{text}");
    assert!(text.trim_end().ends_with("resumes it"), "{text}");
}

#[test]
fn a_preview_is_drawn_in_terminals_that_can() {
    for (variables, start) in [
        (("TERM", "xterm-kitty"), "\u{1b}_Ga=T,f=100,i="),
        (("TERM_PROGRAM", "iTerm.app"), "\u{1b}]1337;File=inline=1;"),
        (("TERM", "foot"), "\u{1b}P0;1q"),
    ] {
        let fresh = Fresh::new();
        let mut command = settled(fresh.command());
        command.args(DRAWN).arg("--preview").env(variables.0, variables.1);
        let shown = in_terminal(command);
        assert_eq!(shown.code, Some(0), "{}", shown.text);
        // One for each step.
        assert_eq!(
            shown.text.matches(start).count(),
            4,
            "{variables:?}: {:?}",
            shown.text
        );
    }
}

#[test]
fn where_no_preview_can_be_a_warning_says_so() {
    let fresh = Fresh::new();
    let run = fresh
        .run(&[&DRAWN[..], &["--preview", "--quiet"]].concat())
        .succeeds();
    assert_eq!(
        run.stderr,
        "warning: there is no preview: stderr is no terminal\n"
    );
    let mut command = settled(fresh.command());
    command.args(DRAWN).arg("--preview");
    let shown = in_terminal(command);
    assert!(
        shown.text.contains("warning: there is no preview: this terminal"),
        "{}",
        shown.text
    );
    fresh
        .run(&[&DRAWN[..], &["--preview=png"]].concat())
        .fails(2, "the previews are auto, kitty, iterm2 and sixel");
}

#[test]
fn a_preview_changes_no_image_and_is_an_event() {
    let fresh = Fresh::new();
    let pixels = |run: &Run, event: usize| {
        let saved = &run.events()[event];
        fs::read(fresh.path().join(saved["image"].as_str().unwrap())).unwrap()
    };
    let saved = |run: &Run| {
        run.events()
            .iter()
            .position(|event| event["event"] == "saved")
            .unwrap()
    };
    let plain = fresh.run(&[&DRAWN[..], &["--json"]].concat()).succeeds();
    let shown = fresh
        .run(&[&DRAWN[..], &["--json", "--preview"]].concat())
        .succeeds();
    let previews: Vec<_> = shown
        .events()
        .into_iter()
        .filter(|event| event["event"] == "preview")
        .collect();
    assert_eq!(previews.len(), 4);
    assert!(plain.events().iter().all(|event| event["event"] != "preview"));
    let last = &previews[3];
    assert_eq!(
        (&last["step"], &last["width"], &last["height"]),
        (&4.into(), &32.into(), &32.into())
    );
    // It shows the circle.
    let file = STANDARD.decode(last["png"].as_str().unwrap()).unwrap();
    let mut reader = png::Decoder::new(Cursor::new(file)).read_info().unwrap();
    let mut bytes = vec![0; reader.output_buffer_size().unwrap()];
    reader.next_frame(&mut bytes).unwrap();
    let middle = &bytes[3 * (16 * 32 + 16)..][..3];
    assert!(
        middle[0] > 150 && middle[1] < 100 && middle[2] < 100,
        "{middle:?}"
    );
    assert_eq!(pixels(&plain, saved(&plain)), pixels(&shown, saved(&shown)));
}

#[test]
fn the_first_image_is_opened_in_a_viewer() {
    let fresh = Fresh::new();
    let programs = fresh.path().join("programs");
    fs::create_dir(&programs).unwrap();
    let program = programs.join(if cfg!(target_os = "macos") {
        "open"
    } else {
        "xdg-open"
    });
    fs::write(&program, "#!/bin/sh\nprintf '%s' \"$1\" > opened\n").unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    let run = |path: String| {
        let mut command = fresh.command();
        command.args(DRAWN).args(["--open", "--n", "2"]).env("PATH", path);
        Run::of(command.output().unwrap()).succeeds()
    };
    let path = std::env::var("PATH").unwrap_or_default();
    let first = run(format!("{}:{path}", programs.display()));
    let begin = Instant::now();
    let opened = loop {
        match fs::read_to_string(fresh.path().join("opened")) {
            Ok(opened) if !opened.is_empty() => break opened,
            _ => assert!(begin.elapsed() < Duration::from_secs(30), "nothing is opened"),
        }
        thread::sleep(Duration::from_millis(10));
    };
    assert_eq!(
        Path::new(&opened).file_name(),
        first.images()[0].file_name(),
        "{opened}"
    );
    // Without a viewer the run has succeeded all the same.
    let without = run("/nowhere".to_owned());
    assert!(
        without.stderr.contains("warning: the image cannot be opened"),
        "{}",
        without.stderr
    );
}
