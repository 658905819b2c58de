//! [`Running`]: a run in the background, which tests interrupt and kill.

use std::io::{BufRead, BufReader};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::thread;

use crate::command::{Fresh, Run};
use serde_json::Value;

/// A run in the background with its events.
pub(crate) struct Running {
    child: Child,
    lines: BufReader<ChildStdout>,
}

impl Running {
    pub(crate) fn start(fresh: &Fresh, arguments: &[&str]) -> Self {
        let mut child = fresh
            .command()
            .args(arguments)
            .arg("--json")
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap());
        Self { child, lines }
    }

    /// Waits for an event of this kind; `false` if the run ends first.
    pub(crate) fn wait_for(&mut self, kind: &str) -> bool {
        let mut line = String::new();
        while self.lines.read_line(&mut line).unwrap() > 0 {
            if serde_json::from_str::<Value>(&line).is_ok_and(|event| event["event"] == kind) {
                return true;
            }
            line.clear();
        }
        false
    }

    /// Kills the run as `kill -9` does.
    pub(crate) fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Sends Ctrl-C and waits for the end.
    pub(crate) fn interrupt(self) -> Run {
        let id = self.child.id().to_string();
        assert!(
            Command::new("kill")
                .args(["-INT", &id])
                .status()
                .unwrap()
                .success()
        );
        let lines = self.lines;
        let reader = thread::spawn(move || lines.lines().map_while(Result::ok).collect::<Vec<_>>());
        let mut run = Run::of(self.child.wait_with_output().unwrap());
        run.stdout = reader.join().unwrap().join("\n");
        run
    }
}
