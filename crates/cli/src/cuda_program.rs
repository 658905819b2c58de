//! Hands the command over to `generate-cuda`, the same program built for NVIDIA GPUs, where it lies beside this one.
//!
//! A program that is linked with NVIDIA's libraries does not start where they are missing. So there are two, of which people
//! start one, on machines with and without a GPU.

use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Output, Stdio};

use sd_pipeline::device::HAS_CUDA;

use crate::terminal;

/// The name of the other program, without the extension of programs.
const NAME: &str = "generate-cuda";
/// The driver's library: without it there is no GPU to compute on.
const DRIVER: &str = "libcuda.so";

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
    if HAS_CUDA {
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
    let output = Command::new(program)
        .arg("--version")
        .stdin(Stdio::null())
        .output()
        .map_err(|error| Unfit::Start(error.to_string()))?;
    fitness(&output)
}

/// What the output of `--version` says.
fn fitness(output: &Output) -> Result<(), Unfit> {
    if output.status.success() {
        let version = String::from_utf8_lossy(&output.stdout);
        return match version.trim() {
            version if version == own_version() => Ok(()),
            version => Err(Unfit::Version(version.to_owned())),
        };
    }
    let stderr = String::from_utf8_lossy(&output.stderr);
    let reason = stderr.lines().next().unwrap_or_default();
    match reason {
        reason if reason.contains(DRIVER) => Err(Unfit::NoDriver),
        "" => Err(Unfit::Start(output.status.to_string())),
        reason => Err(Unfit::Start(reason.to_owned())),
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
    Err(Command::new(program).args(std::env::args_os().skip(1)).exec())
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
