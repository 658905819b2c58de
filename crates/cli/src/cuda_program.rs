//! Hands the command over to `generate-cuda`, the same program built for NVIDIA GPUs, where it lies beside this one.
//!
//! A program that is linked with NVIDIA's libraries does not start where they are missing. So there are two, of which people
//! start one, on machines with and without a GPU.

use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, ExitStatus, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::{Duration, Instant};

use sd_pipeline::device::HAS_CUDA;

use crate::terminal;

/// The name of the other program, without the extension of programs.
const NAME: &str = "generate-cuda";
/// The driver's library: without it there is no GPU to compute on.
const DRIVER: &str = "libcuda.so";

/// The variable of the environment that the processes have which this one starts: they do not look for `generate-cuda`
/// again, also if that is this program under another name.
pub(crate) const HANDED_OVER: &str = "SD_GENERATE_HANDED_OVER";
/// How long `generate-cuda` may take to say its version.
const VERSION_TIMEOUT: Duration = Duration::from_secs(10);

/// Why `generate-cuda` does not carry out the command.
#[derive(Debug, PartialEq, Eq)]
enum Unfit {
    /// The machine has no driver for NVIDIA GPUs.
    NoDriver,
    /// It is another version of the program.
    Version(String),
    /// It does not start.
    Start(String),
}

/// Has `generate-cuda` carry out the command, if it lies beside this program and starts. None where this program
/// carries it out, after a warning if people would wonder why.
pub(crate) fn hand_over() -> Option<ExitCode> {
    if HAS_CUDA || std::env::var_os(HANDED_OVER).is_some() {
        return None;
    }
    let program = beside(&std::env::current_exe().ok()?)?;
    let unfit = match tried(&program) {
        Ok(()) => match carry_out(&program) {
            Ok(code) => return Some(code),
            Err(error) => Unfit::Start(error.to_string()),
        },
        Err(unfit) => unfit,
    };
    match unfit {
        Unfit::NoDriver => {}
        Unfit::Version(version) => terminal::note(&format!(
            "warning: no NVIDIA GPU is used: {NAME} is `{version}`, and this program `{}`",
            own_version()
        )),
        Unfit::Start(reason) => terminal::note(&format!(
            "warning: no NVIDIA GPU is used: {NAME} does not start: {reason} (docs/cuda.md says what it needs)"
        )),
    }
    None
}

/// `generate-cuda` beside the program at `path`, which may be a link.
fn beside(path: &Path) -> Option<PathBuf> {
    let path = path.canonicalize().ok()?;
    let program = path.with_file_name(format!("{NAME}{}", std::env::consts::EXE_SUFFIX));
    program.is_file().then_some(program)
}

/// Whether the program starts, and is of this version.
fn tried(program: &Path) -> Result<(), Unfit> {
    let start = |error: io::Error| Unfit::Start(error.to_string());
    let mut child = Command::new(program)
        .arg("--version")
        .env(HANDED_OVER, "1")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(start)?;
    let (stdout, stderr) = (
        child.stdout.take().map(beginning),
        child.stderr.take().map(beginning),
    );
    let deadline = Instant::now() + VERSION_TIMEOUT;
    let status = loop {
        match child.try_wait().map_err(start)? {
            Some(status) => break status,
            None if Instant::now() > deadline => {
                let _ = child.kill();
                let _ = child.wait();
                return Err(Unfit::Start(format!(
                    "it says nothing for {} s",
                    VERSION_TIMEOUT.as_secs()
                )));
            }
            None => thread::sleep(Duration::from_millis(2)),
        }
    };
    // A process that it has left behind may hold the pipes open.
    let said = |text: Option<Receiver<String>>| {
        text.and_then(|text| text.recv_timeout(Duration::from_millis(200)).ok())
            .unwrap_or_default()
    };
    fitness(status, &said(stdout), &said(stderr))
}

/// The beginning of what can be read, once that is known.
fn beginning(from: impl Read + Send + 'static) -> Receiver<String> {
    const LONGEST: u64 = 1024;
    let (sender, receiver) = mpsc::channel();
    // Without a thread nothing is known.
    let _ = thread::Builder::new().spawn(move || {
        let mut text = Vec::new();
        let _ = from.take(LONGEST).read_to_end(&mut text);
        let _ = sender.send(String::from_utf8_lossy(&text).into_owned());
    });
    receiver
}

/// What the output of `--version` says.
fn fitness(status: ExitStatus, stdout: &str, stderr: &str) -> Result<(), Unfit> {
    let line = |text: &str| {
        text.lines()
            .map(str::trim)
            .find(|line| !line.is_empty())
            .map(str::to_owned)
    };
    if status.success() {
        return match line(stdout).unwrap_or_default() {
            version if version == own_version() => Ok(()),
            version => Err(Unfit::Version(version.chars().take(80).collect())),
        };
    }
    match line(stderr) {
        Some(reason) if reason.contains(DRIVER) => Err(Unfit::NoDriver),
        Some(reason) => Err(Unfit::Start(reason)),
        None => Err(Unfit::Start(status.to_string())),
    }
}

/// What `--version` prints.
fn own_version() -> String {
    format!("generate {}", env!("CARGO_PKG_VERSION"))
}

/// Runs the command in the program, which takes the place of this process.
#[cfg(unix)]
fn carry_out(program: &Path) -> io::Result<ExitCode> {
    use std::os::unix::process::CommandExt;

    // It returns only where that fails.
    Err(Command::new(program)
        .args(std::env::args_os().skip(1))
        .env(HANDED_OVER, "1")
        .exec())
}

/// Runs the command in the program, and waits for it.
#[cfg(not(unix))]
fn carry_out(program: &Path) -> io::Result<ExitCode> {
    // The program hears Ctrl-C too, and ends in its own time.
    let _ = ctrlc::set_handler(|| {});
    let status = Command::new(program).args(std::env::args_os().skip(1)).status()?;
    let code = status.code().and_then(|code| u8::try_from(code).ok());
    Ok(code.map_or(ExitCode::FAILURE, ExitCode::from))
}
