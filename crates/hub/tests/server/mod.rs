//! A small local hub with the protocol of the real one, which fails on request.

#![allow(dead_code, unreachable_pub)] // Each test binary uses a part.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};
use sha1::Sha1;
use sha2::{Digest, Sha256};

/// The commit that every repository's main branch is.
pub const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

/// The hub, with the server that keeps its large files at another address.
pub struct Server {
    hub: String,
    state: Arc<Mutex<State>>,
}

/// A request as it arrived.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// Whether the request went to the server of large files.
    pub of_large_files: bool,
    pub method: String,
    pub path: String,
    pub range: Option<String>,
    pub authorization: Option<String>,
}

/// What goes wrong with an answer.
#[derive(Debug, Clone, Copy)]
pub enum Trouble {
    /// The connection ends after so many bytes.
    Truncate(usize),
    /// Another status than wanted.
    Status(u16),
    /// A status with the seconds after which to retry.
    Busy(u16, u64),
    /// Bytes that are not the file's.
    Wrong,
    /// So many milliseconds pass between pieces of 16 KB.
    Slow(u64),
}

#[derive(Default)]
struct State {
    large_files: String,
    repositories: BTreeMap<String, Repository>,
    /// The accounts by their tokens, with whether they have accepted every licence.
    accounts: BTreeMap<String, (String, bool)>,
    troubles: Vec<(String, Trouble)>,
    requests: Vec<Request>,
    lists_names_alone: bool,
}

#[derive(Default, Clone)]
struct Repository {
    files: BTreeMap<String, Stored>,
    is_gated: bool,
    is_private: bool,
}

#[derive(Clone)]
struct Stored {
    bytes: Vec<u8>,
    hash: String,
    /// What git calls the bytes.
    git_id: String,
    /// Kept by the server of large files.
    is_large: bool,
    /// What the listing says of its length.
    listed: u64,
}

impl Stored {
    fn tag(&self) -> &str {
        if self.is_large { &self.hash } else { &self.git_id }
    }
}

impl Server {
    /// Starts the two servers, which live as long as the process.
    pub fn start() -> Self {
        let state = Arc::new(Mutex::new(State::default()));
        let [hub, large_files] = [false, true].map(|of_large_files| listen(state.clone(), of_large_files));
        state.lock().unwrap().large_files = large_files;
        Self { hub, state }
    }

    /// What `HF_ENDPOINT` is to be.
    pub fn endpoint(&self) -> &str {
        &self.hub
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// Puts a file into the repository `id`; a large one where its name ends as files of weights do.
    pub fn put(&self, id: &str, path: &str, bytes: impl Into<Vec<u8>>) {
        let bytes = bytes.into();
        let hash = Sha256::digest(&bytes);
        let mut git = Sha1::new_with_prefix(format!("blob {}\0", bytes.len()));
        git.update(&bytes);
        let stored = Stored {
            hash: hash.iter().map(|byte| format!("{byte:02x}")).collect(),
            git_id: git.finalize().iter().map(|byte| format!("{byte:02x}")).collect(),
            is_large: [".safetensors", ".pth", ".bin"]
                .iter()
                .any(|ending| path.ends_with(ending)),
            listed: bytes.len() as u64,
            bytes,
        };
        let mut state = self.state();
        let repository = state.repositories.entry(id.to_owned()).or_default();
        repository.files.insert(path.to_owned(), stored);
    }

    /// Puts the files below `folder` into the repository `id`.
    pub fn put_folder(&self, id: &str, folder: &std::path::Path) {
        let mut folders = vec![folder.to_owned()];
        while let Some(below) = folders.pop() {
            for entry in std::fs::read_dir(below).unwrap() {
                let entry_path = entry.unwrap().path();
                if entry_path.is_dir() {
                    folders.push(entry_path);
                    continue;
                }
                let name = entry_path.strip_prefix(folder).unwrap().to_str().unwrap();
                self.put(id, &name.replace('\\', "/"), std::fs::read(&entry_path).unwrap());
            }
        }
    }

    /// Has the listing claim another length.
    pub fn claim(&self, id: &str, path: &str, bytes: u64) {
        let mut state = self.state();
        let repository = state.repositories.get_mut(id).unwrap();
        repository.files.get_mut(path).unwrap().listed = bytes;
    }

    pub fn gate(&self, id: &str) {
        self.state().repositories.get_mut(id).unwrap().is_gated = true;
    }

    pub fn hide(&self, id: &str) {
        self.state().repositories.get_mut(id).unwrap().is_private = true;
    }

    pub fn list_names_alone(&self) {
        self.state().lists_names_alone = true;
    }

    /// An account that `token` is of.
    pub fn admit(&self, token: &str, name: &str, has_accepted: bool) {
        let account = (name.to_owned(), has_accepted);
        self.state().accounts.insert(token.to_owned(), account);
    }

    /// Has the next answer with the bytes of a file whose path ends with `path`, or with what is said at this
    /// address, go wrong. Several troubles come in their order.
    pub fn trouble(&self, path: &str, trouble: Trouble) {
        self.state().troubles.push((path.to_owned(), trouble));
    }

    /// The requests so far.
    pub fn requests(&self) -> Vec<Request> {
        self.state().requests.clone()
    }

    /// How often the bytes of the file at `path` of the repository `id` were requested.
    pub fn served(&self, id: &str, path: &str) -> Vec<Request> {
        let tag = self.state().repositories[id].files[path].tag().to_owned();
        let mut requests = self.requests();
        requests.retain(|request| request.method == "GET" && request.path.contains(&format!("/{tag}")));
        requests
    }
}

/// Serves at a free port, and returns the address.
fn listen(state: Arc<Mutex<State>>, of_large_files: bool) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let state = state.clone();
            // A client may disconnect at any time.
            thread::spawn(move || answer(stream, &state, of_large_files));
        }
    });
    address
}

/// An answer before it is sent.
struct Answer {
    status: u16,
    headers: Vec<(&'static str, String)>,
    body: Vec<u8>,
}

impl Answer {
    fn new(status: u16) -> Self {
        Self {
            status,
            headers: Vec::new(),
            body: Vec::new(),
        }
    }

    fn with(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    fn json(value: &Value) -> Self {
        Self {
            body: value.to_string().into_bytes(),
            ..Self::new(200)
        }
    }

    fn refusal(status: u16, code: &'static str) -> Self {
        Self::new(status).with("X-Error-Code", code)
    }
}

fn answer(mut stream: TcpStream, state: &Mutex<State>, of_large_files: bool) -> Option<()> {
    let request = read(&stream, of_large_files)?;
    let (answer, trouble) = {
        let mut state = state.lock().unwrap();
        state.requests.push(request.clone());
        let (path, _) = request.path.split_once('?').unwrap_or((&request.path, ""));
        let (answer, file) = state.answer(&request, path);
        let is_of = |name: &String| path.ends_with(name.as_str()) || file.as_ref() == Some(name);
        let found = state.troubles.iter().position(|(name, _)| is_of(name));
        // Only an answer with bytes can be troubled.
        let found = found.filter(|_| request.method == "GET" && !(300..400).contains(&answer.status));
        (answer, found.map(|found| state.troubles.remove(found).1))
    };
    send(&mut stream, &request, answer, trouble)
}

fn read(stream: &TcpStream, of_large_files: bool) -> Option<Request> {
    let mut lines = BufReader::new(stream).lines();
    let first = lines.next()?.ok()?;
    let mut words = first.split(' ');
    let (method, path) = (words.next()?.to_owned(), words.next()?.to_owned());
    let mut headers = BTreeMap::new();
    for line in lines {
        let line = line.ok()?;
        if line.is_empty() {
            break;
        }
        let (name, value) = line.split_once(':')?;
        headers.insert(name.to_ascii_lowercase(), value.trim().to_owned());
    }
    Some(Request {
        of_large_files,
        method,
        path,
        range: headers.remove("range"),
        authorization: headers.remove("authorization"),
    })
}

impl State {
    /// The answer, and the path of the file whose bytes it holds.
    fn answer(&self, request: &Request, path: &str) -> (Answer, Option<String>) {
        if request.of_large_files || path.starts_with("/cached/") {
            let hash = path.rsplit('/').next().unwrap_or_default();
            let files = self
                .repositories
                .values()
                .flat_map(|repository| &repository.files);
            let found = files.into_iter().find(|(_, file)| file.tag() == hash);
            return match found {
                Some((path, file)) => (part(file, request), Some(path.clone())),
                None => (Answer::new(404), None),
            };
        }
        let token = request
            .authorization
            .as_deref()
            .and_then(|shown| shown.strip_prefix("Bearer "));
        let account = token.and_then(|token| self.accounts.get(token));
        if token.is_some() && account.is_none() {
            let refused = "Invalid credentials in Authorization header";
            return (Answer::new(401).with("X-Error-Message", refused), None);
        }
        if path == "/api/whoami-v2" {
            return match account {
                Some((name, _)) => (Answer::json(&json!({ "type": "user", "name": name })), None),
                None => (Answer::new(401), None),
            };
        }
        let parts: Vec<&str> = path.trim_start_matches('/').split('/').collect();
        let (id, revision, file) = match parts.as_slice() {
            ["api", "models", owner, name, "revision", revision] => {
                (format!("{owner}/{name}"), *revision, None)
            }
            [owner, name, "resolve", revision, file @ ..] => {
                (format!("{owner}/{name}"), *revision, Some(file.join("/")))
            }
            _ => return (Answer::new(404), None),
        };
        let known = self
            .repositories
            .get(&id)
            .filter(|found| !found.is_private || account.is_some());
        let Some(repository) = known else {
            let status = if account.is_some() { 404 } else { 401 };
            return (Answer::refusal(status, "RepoNotFound"), None);
        };
        if revision != "main" && revision != COMMIT {
            return (Answer::refusal(404, "RevisionNotFound"), None);
        }
        let Some(path) = file else {
            return (Answer::json(&self.listing(&id, repository)), None);
        };
        if repository.is_gated && !account.is_some_and(|(_, has_accepted)| *has_accepted) {
            let status = if account.is_some() { 403 } else { 401 };
            return (Answer::refusal(status, "GatedRepo"), None);
        }
        let Some(file) = repository.files.get(&path.replace("%20", " ")) else {
            return (Answer::refusal(404, "EntryNotFound"), None);
        };
        let to = if file.is_large {
            format!("{}/large/{}?signed=secret", self.large_files, file.tag())
        } else {
            format!("/cached/{}", file.tag())
        };
        let answer = Answer::new(if file.is_large { 302 } else { 307 })
            .with("X-Repo-Commit", COMMIT)
            .with("ETag", format!("\"{}\"", file.tag()))
            .with("X-Linked-Size", file.bytes.len().to_string())
            .with("Location", to);
        let answer = if file.is_large {
            answer.with("X-Linked-Etag", format!("\"{}\"", file.tag()))
        } else {
            answer
        };
        (answer, None)
    }

    fn listing(&self, id: &str, repository: &Repository) -> Value {
        let sibling = |(path, file): (&String, &Stored)| {
            let mut sibling = json!({ "rfilename": path });
            if !self.lists_names_alone {
                sibling["size"] = file.listed.into();
                sibling["blobId"] = file.git_id.clone().into();
                if file.is_large {
                    sibling["lfs"] = json!({ "sha256": file.hash, "size": file.listed, "pointerSize": 134 });
                }
            }
            sibling
        };
        let siblings: Vec<Value> = repository.files.iter().map(sibling).collect();
        json!({ "id": id, "sha": COMMIT, "gated": repository.is_gated, "siblings": siblings })
    }
}

/// The bytes of `file`, or those of a range.
fn part(file: &Stored, request: &Request) -> Answer {
    let tag = format!("\"{}\"", file.tag());
    let first = request
        .range
        .as_deref()
        .and_then(|range| range.strip_prefix("bytes="));
    let (first, last) = first.and_then(|range| range.split_once('-')).unzip();
    let first: Option<usize> = first.and_then(|first| first.parse().ok());
    let length = file.bytes.len();
    let last = last
        .and_then(|last| last.parse().ok())
        .unwrap_or(length)
        .min(length.saturating_sub(1));
    match first {
        None => Answer {
            body: file.bytes.clone(),
            ..Answer::new(200).with("ETag", tag)
        },
        Some(first) if first >= length => Answer::new(416),
        Some(first) => Answer {
            body: file.bytes[first..=last].to_vec(),
            ..Answer::new(206)
                .with("ETag", tag)
                .with("Content-Range", format!("bytes {first}-{last}/{length}"))
        },
    }
}

fn send(
    stream: &mut TcpStream,
    request: &Request,
    mut answer: Answer,
    trouble: Option<Trouble>,
) -> Option<()> {
    match trouble {
        Some(Trouble::Status(status)) => answer = Answer::new(status),
        Some(Trouble::Busy(status, seconds)) => {
            answer = Answer::new(status).with("Retry-After", seconds.to_string());
        }
        Some(Trouble::Wrong) => answer.body.iter_mut().for_each(|byte| *byte ^= 1),
        Some(Trouble::Truncate(_) | Trouble::Slow(_)) | None => {}
    }
    let mut head = format!("HTTP/1.1 {} Status\r\nConnection: close\r\n", answer.status);
    let has_body = request.method != "HEAD";
    let is_redirect = (300..400).contains(&answer.status);
    if has_body || !is_redirect {
        head.push_str(&format!("Content-Length: {}\r\n", answer.body.len()));
    }
    for (name, value) in &answer.headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    stream.write_all(format!("{head}\r\n").as_bytes()).ok()?;
    if !has_body {
        return Some(());
    }
    let sent = match trouble {
        Some(Trouble::Truncate(bytes)) => &answer.body[..bytes.min(answer.body.len())],
        _ => &answer.body,
    };
    for piece in sent.chunks(16 << 10) {
        if let Some(Trouble::Slow(milliseconds)) = trouble {
            thread::sleep(Duration::from_millis(milliseconds));
        }
        stream.write_all(piece).ok()?;
    }
    Some(())
}
