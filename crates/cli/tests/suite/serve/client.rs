//! A server in the background, and a client of HTTP that is as small as the tests need.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::command::{Fresh, Image, Run};

/// The longest that a test waits for a job or an answer.
const LONGEST: Duration = Duration::from_secs(120);

/// A server in the background, which is killed when it is dropped.
pub(super) struct Server {
    child: Child,
    pub(super) address: String,
    /// Sent with each request.
    pub(super) authorization: Option<String>,
}

/// An answer of the server.
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) headers: String,
    pub(super) body: Vec<u8>,
}

impl Server {
    /// The server in the folder of `fresh`.
    pub(super) fn start(fresh: &Fresh, arguments: &[&str]) -> Self {
        let mut child = command(fresh, arguments).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.as_mut().unwrap())
            .read_line(&mut line)
            .unwrap();
        let address = line.trim().strip_prefix("http://").map(str::to_owned);
        if address.is_none() {
            let run = Run::of(child.wait_with_output().unwrap());
            panic!("the server does not start: {}", run.stderr);
        }
        Self {
            child,
            address: address.unwrap(),
            authorization: None,
        }
    }

    /// Bytes of memory that are its own, without pages of files, as Linux counts them.
    #[cfg(target_os = "linux")]
    pub(super) fn anonymous_memory(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:"));
        let kilobytes: u64 = line.unwrap().trim().trim_end_matches(" kB").parse().unwrap();
        kilobytes << 10
    }

    /// Kills it as `kill -9` does.
    pub(super) fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Sends Ctrl-C, and waits for the end.
    pub(super) fn stop(mut self) -> Run {
        let id = self.child.id().to_string();
        let sent = Command::new("kill").args(["-INT", &id]).status().unwrap();
        assert!(sent.success());
        let mut texts = [String::new(), String::new()];
        let (mut stdout, mut stderr) = (
            self.child.stdout.take().unwrap(),
            self.child.stderr.take().unwrap(),
        );
        stdout.read_to_string(&mut texts[0]).unwrap();
        stderr.read_to_string(&mut texts[1]).unwrap();
        let code = self.child.wait().unwrap().code();
        let [stdout, stderr] = texts;
        Run { stdout, stderr, code }
    }

    /// Sends `bytes`, and returns all that comes until the server ends the connection.
    pub(super) fn exchange(&self, bytes: &[u8]) -> Vec<u8> {
        let mut stream = TcpStream::connect(&self.address).unwrap();
        stream.set_read_timeout(Some(LONGEST)).unwrap();
        // It may have answered and closed before it has read everything.
        let _ = stream.write_all(bytes);
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        answer
    }

    pub(super) fn send(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
        let mut bytes = self.head(method, path, headers, body.len()).into_bytes();
        bytes.extend(body);
        Answer::of(&self.exchange(&bytes))
    }

    fn head(&self, method: &str, path: &str, headers: &[(&str, &str)], length: usize) -> String {
        let mut head =
            format!("{method} {path} HTTP/1.1\r\nConnection: close\r\nContent-Length: {length}\r\n");
        if !headers.iter().any(|(name, _)| *name == "Host") {
            head += &format!("Host: {}\r\n", self.address);
        }
        if let Some(authorization) = &self.authorization {
            head += &format!("Authorization: {authorization}\r\n");
        }
        for (name, value) in headers {
            head += &format!("{name}: {value}\r\n");
        }
        head + "\r\n"
    }

    pub(super) fn get(&self, path: &str) -> Answer {
        self.send("GET", path, &[], &[])
    }

    pub(super) fn post(&self, path: &str, body: &Value) -> Answer {
        let body = body.to_string();
        self.send(
            "POST",
            path,
            &[("Content-Type", "application/json")],
            body.as_bytes(),
        )
    }

    /// Follows a stream of events in the background: its lines, until it ends.
    pub(super) fn follow(&self, path: &str) -> thread::JoinHandle<Vec<(String, Value)>> {
        let mut stream = TcpStream::connect(&self.address).unwrap();
        stream.set_read_timeout(Some(LONGEST)).unwrap();
        stream
            .write_all(self.head("GET", path, &[], 0).as_bytes())
            .unwrap();
        // The answer begins once the server listens to the events.
        let mut lines = BufReader::new(stream);
        let mut status = String::new();
        lines.read_line(&mut status).unwrap();
        assert!(status.contains(" 200 "), "{status}");
        thread::spawn(move || {
            let mut bytes = status.into_bytes();
            let _ = lines.read_to_end(&mut bytes);
            Answer::of(&bytes).events()
        })
    }

    /// Submits a job, and returns its id.
    #[track_caller]
    pub(super) fn submit(&self, request: &Value) -> String {
        let job = self.post("/api/jobs", request).is(202);
        job["id"].as_str().unwrap().to_owned()
    }

    pub(super) fn job(&self, id: &str) -> Value {
        self.get(&format!("/api/jobs/{id}")).is(200)
    }

    /// Waits until a job has ended, or until `is_so`.
    #[track_caller]
    pub(super) fn wait(&self, id: &str, is_so: impl Fn(&Value) -> bool) -> Value {
        let start = Instant::now();
        loop {
            let job = self.job(id);
            let is_ended = ["done", "failed", "cancelled"]
                .iter()
                .any(|state| job["state"] == *state);
            if is_ended || is_so(&job) {
                return job;
            }
            assert!(start.elapsed() < LONGEST, "{job}");
            thread::sleep(Duration::from_millis(10));
        }
    }

    /// Waits until a job is done.
    #[track_caller]
    pub(super) fn done(&self, id: &str) -> Value {
        let job = self.wait(id, |_| false);
        assert_eq!(job["state"], "done", "{job}");
        job
    }

    /// The image `index` of a job.
    #[track_caller]
    pub(super) fn image(&self, fresh: &Fresh, id: &str, index: usize) -> Image {
        let answer = self.get(&format!("/api/jobs/{id}/images/{index}"));
        assert_eq!(answer.status, 200);
        image_of(fresh, &answer.body)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Answer {
    fn of(bytes: &[u8]) -> Self {
        let end = bytes.windows(4).position(|window| window == b"\r\n\r\n");
        let (head, rest) = end.map_or((bytes, &[][..]), |end| (&bytes[..end], &bytes[end + 4..]));
        let headers = String::from_utf8_lossy(head).into_owned();
        let status = headers.split(' ').nth(1).and_then(|status| status.parse().ok());
        let is_chunked = headers
            .to_ascii_lowercase()
            .contains("transfer-encoding: chunked");
        Self {
            status: status.unwrap_or(0),
            body: if is_chunked {
                unchunked(rest)
            } else {
                rest.to_vec()
            },
            headers,
        }
    }

    /// The body, as JSON if it is some.
    pub(super) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or(Value::Null)
    }

    pub(super) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The first part of the text, for messages.
    pub(super) fn start(&self) -> String {
        self.text().chars().take(500).collect()
    }

    /// Asserts that the status is `status`, and returns the body.
    #[track_caller]
    pub(super) fn is(&self, status: u16) -> Value {
        assert_eq!(self.status, status, "{}\n{}", self.headers, self.start());
        self.json()
    }

    /// The server-sent events of the body.
    pub(super) fn events(&self) -> Vec<(String, Value)> {
        let text = self.text();
        let blocks = text.split("\n\n").filter(|block| block.contains("data:"));
        let of = |block: &str, field: &str| {
            let values = block.lines().filter_map(|line| line.strip_prefix(field));
            values.map(str::trim).collect::<String>()
        };
        blocks
            .map(|block| {
                let data = serde_json::from_str(&of(block, "data:")).unwrap();
                (of(block, "event:"), data)
            })
            .collect()
    }
}

/// The body of an answer that is sent in chunks.
fn unchunked(mut rest: &[u8]) -> Vec<u8> {
    let mut body = Vec::new();
    while let Some(end) = rest.windows(2).position(|window| window == b"\r\n") {
        let size = std::str::from_utf8(&rest[..end]).ok();
        let size = size
            .and_then(|size| usize::from_str_radix(size, 16).ok())
            .unwrap_or(0);
        let start = end + 2;
        if size == 0 || rest.len() < start + size {
            break;
        }
        body.extend(&rest[start..start + size]);
        rest = &rest[(start + size + 2).min(rest.len())..];
    }
    body
}

/// A server that is not started yet, on any free port.
pub(super) fn command(fresh: &Fresh, arguments: &[&str]) -> Command {
    let mut command = fresh.command();
    command
        .args(["serve", "--port", "0"])
        .args(arguments)
        .env_remove("SD_GENERATE_TOKEN")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

/// The image of a file's bytes.
pub(super) fn image_of(fresh: &Fresh, bytes: &[u8]) -> Image {
    let path: PathBuf = fresh.path().join("fetched.png");
    std::fs::write(&path, bytes).unwrap();
    Image::read(&path)
}

/// A request for a small image.
pub(super) fn small(prompt: &str, seed: u64) -> Value {
    json!({ "prompt": prompt, "size": "64x64", "steps": 2, "seed": seed })
}
