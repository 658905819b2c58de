//! [`DeviceProcess`]: the process that generates the images of one of several devices.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::mpsc::Sender;
use std::thread::{self, JoinHandle};

use serde_json::Value;

use crate::cuda_program::HANDED_OVER;
use crate::share::{Task, WORD};

/// What a process said.
pub(super) enum Said {
    /// An event.
    Event(Value),
    /// Nothing more: it has ended.
    End,
}

/// A process that generates a share of the images.
pub(super) struct DeviceProcess {
    child: Child,
    /// As long as it is open, the process goes on.
    stdin: Option<ChildStdin>,
    /// Reads what it writes to stderr.
    stderr: Option<JoinHandle<String>>,
}

impl DeviceProcess {
    /// Starts the process for `task`. What it says is sent with its `number`.
    ///
    /// # Errors
    /// It cannot be started.
    pub(super) fn start(task: &Task, number: usize, sender: Sender<(usize, Said)>) -> io::Result<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        command
            .arg(WORD)
            .env(HANDED_OVER, "1")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        away_from_the_terminal(&mut command);
        let mut child = command.spawn()?;
        let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
        let mut process = Self {
            child,
            stdin,
            stderr: None,
        };
        let started = process.begin(task, stdout, stderr, number, sender);
        if let Err(error) = started {
            process.interrupt();
            let _ = process.child.wait();
            return Err(error);
        }
        Ok(process)
    }

    fn begin(
        &mut self,
        task: &Task,
        stdout: Option<ChildStdout>,
        stderr: Option<ChildStderr>,
        number: usize,
        sender: Sender<(usize, Said)>,
    ) -> io::Result<()> {
        let thread = || thread::Builder::new().name("device".to_owned());
        if let Some(stderr) = stderr {
            self.stderr = Some(thread().spawn(move || beginning(stderr))?);
        }
        if let Some(stdout) = stdout {
            thread().spawn(move || send_events(stdout, number, &sender))?;
        }
        let mut line = serde_json::to_vec(task)?;
        line.push(b'\n');
        match &mut self.stdin {
            // One that has ended already says why.
            Some(stdin) => stdin.write_all(&line).or_else(|error| match error.kind() {
                io::ErrorKind::BrokenPipe => Ok(()),
                _ => Err(error),
            }),
            None => Ok(()),
        }
    }

    /// Asks it to end after the current step.
    pub(super) fn interrupt(&mut self) {
        self.stdin = None;
    }

    /// Waits until it has ended. What went wrong, if it did not say so in an event.
    pub(super) fn wait(&mut self) -> Option<String> {
        self.stdin = None;
        let status = match self.child.wait() {
            Ok(status) => status,
            Err(error) => return Some(error.to_string()),
        };
        let said = self.stderr.take().and_then(|thread| thread.join().ok());
        let said = said.unwrap_or_default();
        match (status.success(), said.lines().last()) {
            (true, _) => None,
            (false, Some(line)) => Some(format!("{status}: {line}")),
            (false, None) => Some(status.to_string()),
        }
    }
}

impl Drop for DeviceProcess {
    /// Without its command it would go on in the background.
    fn drop(&mut self) {
        self.interrupt();
        let _ = self.child.wait();
    }
}

/// Keeps Ctrl-C from the process: the command hears it and ends the process's stdin.
fn away_from_the_terminal(command: &mut Command) {
    #[cfg(unix)]
    std::os::unix::process::CommandExt::process_group(command, 0);
    #[cfg(windows)]
    {
        const CREATE_NEW_PROCESS_GROUP: u32 = 0x200;
        std::os::windows::process::CommandExt::creation_flags(command, CREATE_NEW_PROCESS_GROUP);
    }
    #[cfg(not(any(unix, windows)))]
    let _ = command;
}

/// Sends the events of `stdout`. A line that is none is left out.
fn send_events(stdout: ChildStdout, number: usize, sender: &Sender<(usize, Said)>) {
    for line in BufReader::new(stdout).lines().map_while(Result::ok) {
        if let Ok(event) = serde_json::from_str(&line) {
            let _ = sender.send((number, Said::Event(event)));
        }
    }
    let _ = sender.send((number, Said::End));
}

/// The beginning of what `stderr` holds. The rest is read too, so that the process does not wait.
fn beginning(mut stderr: ChildStderr) -> String {
    const LONGEST: u64 = 4096;
    let mut text = Vec::new();
    let _ = (&mut stderr).take(LONGEST).read_to_end(&mut text);
    let _ = io::copy(&mut stderr, &mut io::sink());
    String::from_utf8_lossy(&text).into_owned()
}
