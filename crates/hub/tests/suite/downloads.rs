//! Downloads from a local hub.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use crate::server::{COMMIT, Server, Trouble};
use sd_hub::{Error, Event, Hub, Observer, Result, Settings, Token};
use tempfile::TempDir;

const ID: &str = "me/mine";
const LARGE: &str = "unet/large.safetensors";

/// An observer that records its events, and stops after a number of bytes.
#[derive(Default)]
struct Watcher {
    done: Vec<u64>,
    events: Vec<String>,
    stop_at: Option<u64>,
}

impl Observer for Watcher {
    fn observe(&mut self, event: &Event<'_>) {
        match event {
            Event::Progress { done, .. } => self.done.push(*done),
            other => self.events.push(format!("{other:?}")),
        }
    }

    fn is_stopped(&self) -> bool {
        let done = self.done.last().copied().unwrap_or_default();
        self.stop_at.is_some_and(|at| done >= at)
    }
}

/// The bytes of a file of weights that takes several pieces.
fn large() -> Vec<u8> {
    (0..700_000_u32)
        .flat_map(|number| (number * 7).to_le_bytes())
        .collect()
}

fn server() -> Server {
    let server = Server::start();
    server.put(ID, "config.json", "{}");
    server.put(ID, "with space.txt", "spaced");
    server.put(ID, LARGE, large());
    server
}

fn settings(server: &Server, folder: &Path) -> Settings {
    Settings {
        endpoint: server.endpoint().to_owned(),
        cache: folder.join("hub"),
        token_file: folder.join("token"),
        token_of_environment: None,
        offline: false,
    }
}

fn fetch(hub: &Hub, paths: &[&str], watcher: &mut Watcher) -> Result<PathBuf> {
    let listing = hub.list(&ID.parse().unwrap(), &|| false)?;
    let download = hub.prepare(&listing, paths, &|| false)?;
    Ok(hub.fetch(&[download], watcher)?.remove(0))
}

/// A hub with a fresh cache, and what a download of the large file gives.
fn fetch_large(server: &Server) -> (TempDir, Hub, Result<PathBuf>, Watcher) {
    let folder = tempfile::tempdir().unwrap();
    let hub = Hub::new(settings(server, folder.path()));
    let mut watcher = Watcher::default();
    let fetched = fetch(&hub, &[LARGE], &mut watcher);
    (folder, hub, fetched, watcher)
}

fn blobs(folder: &TempDir) -> Vec<String> {
    let entries = fs::read_dir(folder.path().join("hub/models--me--mine/blobs"))
        .into_iter()
        .flatten();
    let mut names: Vec<String> = entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[test]
fn files_have_the_paths_of_the_python_tools_and_only_the_hub_gets_the_token() {
    let server = server();
    server.admit("hf_good", "me", true);
    server.hide(ID);
    let folder = tempfile::tempdir().unwrap();
    let settings = settings(&server, folder.path());
    let refused = Hub::new(settings.clone()).list(&ID.parse().unwrap(), &|| false);
    assert!(matches!(
        refused,
        Err(Error::NoRepository { has_token: false, .. })
    ));
    Hub::new(settings.clone())
        .keep_token(&Token::new("hf_good").unwrap())
        .unwrap();
    let hub = Hub::new(settings);
    let mut watcher = Watcher::default();
    let root = fetch(&hub, &["config.json", "with space.txt", LARGE], &mut watcher).unwrap();
    let repository = folder.path().join("hub/models--me--mine");
    assert_eq!(root, repository.join("snapshots").join(COMMIT));
    assert_eq!(fs::read_to_string(repository.join("refs/main")).unwrap(), COMMIT);
    assert_eq!(
        hub.cache().locate(&ID.parse().unwrap(), "main"),
        Some(root.clone())
    );
    assert!(fs::read(root.join(LARGE)).unwrap() == large());
    assert_eq!(fs::read_to_string(root.join("with space.txt")).unwrap(), "spaced");
    #[cfg(unix)]
    {
        let link = fs::read_link(root.join(LARGE)).unwrap();
        let (up, hash) = link.to_str().unwrap().rsplit_once('/').unwrap();
        assert_eq!((up, hash.len()), ("../../../blobs", 64));
        let mode = std::os::unix::fs::PermissionsExt::mode(
            &fs::metadata(folder.path().join("token")).unwrap().permissions(),
        );
        assert_eq!(mode & 0o777, 0o600);
    }
    assert_eq!(blobs(&folder).len(), 3);
    assert_eq!(watcher.done.last(), Some(&(8 + 2_800_000)));
    assert!(watcher.done.is_sorted() && watcher.done.len() > 10);
    for request in server.requests().into_iter().skip(1) {
        assert_eq!(
            request.authorization.is_none(),
            request.of_large_files,
            "{request:?}"
        );
    }
    // A complete file is not requested again.
    fetch(&hub, &[LARGE], &mut watcher).unwrap();
    assert_eq!(server.served(ID, LARGE).len(), 1);
}

#[test]
fn a_download_resumes_after_a_lost_connection_and_in_a_later_run() {
    let server = server();
    server.trouble(LARGE, Trouble::Truncate(1_000_000));
    let (folder, hub, fetched, watcher) = fetch_large(&server);
    assert!(fs::read(fetched.unwrap().join(LARGE)).unwrap() == large());
    let ranges: Vec<_> = server
        .served(ID, LARGE)
        .into_iter()
        .map(|request| request.range)
        .collect();
    assert_eq!(ranges, [None, Some("bytes=1000000-".to_owned())]);
    assert!(matches!(watcher.events.as_slice(), [event] if event.starts_with("Retrying")));

    fs::remove_dir_all(folder.path().join("hub")).unwrap();
    let mut watcher = Watcher {
        stop_at: Some(1_500_000),
        ..Watcher::default()
    };
    assert!(matches!(fetch(&hub, &[LARGE], &mut watcher), Err(Error::Stopped)));
    let [partial] = blobs(&folder).try_into().unwrap();
    assert!(partial.ends_with(".incomplete"));
    let have = *watcher.done.last().unwrap();
    assert_eq!(hub.cache().locate(&ID.parse().unwrap(), "main"), None);
    let listing = hub.list(&ID.parse().unwrap(), &|| false).unwrap();
    let download = hub.prepare(&listing, &[LARGE], &|| false).unwrap();
    assert_eq!(
        (download.bytes(), download.bytes_left()),
        (2_800_000, 2_800_000 - have)
    );
    let root = fetch(&hub, &[LARGE], &mut Watcher::default()).unwrap();
    assert!(fs::read(root.join(LARGE)).unwrap() == large());
    let last = server.served(ID, LARGE).pop().unwrap();
    assert_eq!(last.range, Some(format!("bytes={have}-")));
    assert_eq!(blobs(&folder).len(), 1);
}

#[test]
fn faults_that_pass_are_waited_out_and_no_more_than_three() {
    let server = server();
    server.trouble("/revision/main", Trouble::Status(502));
    server.trouble(LARGE, Trouble::Status(503));
    server.trouble(LARGE, Trouble::Busy(429, 1));
    let begin = Instant::now();
    let (_folder, _, fetched, watcher) = fetch_large(&server);
    fetched.unwrap();
    assert!(begin.elapsed().as_secs_f64() > 1.9);
    assert_eq!(watcher.events.len(), 2);

    for _ in 0..4 {
        server.trouble(LARGE, Trouble::Truncate(0));
    }
    let (_folder, _, fetched, _) = fetch_large(&server);
    assert!(
        matches!(fetched, Err(Error::GaveUp { tries: 4, .. })),
        "{fetched:?}"
    );
    assert_eq!(server.served(ID, LARGE).len(), 3 + 4);
    server.trouble(LARGE, Trouble::Busy(503, 3600));
    assert!(matches!(fetch_large(&server).2, Err(Error::Busy { .. })));
}

#[test]
fn a_corrupted_download_is_dropped_and_retried() {
    let server = server();
    server.trouble(LARGE, Trouble::Wrong);
    let (_folder, _, fetched, _) = fetch_large(&server);
    assert!(fs::read(fetched.unwrap().join(LARGE)).unwrap() == large());

    server.trouble(LARGE, Trouble::Wrong);
    server.trouble(LARGE, Trouble::Wrong);
    let (folder, hub, fetched, _) = fetch_large(&server);
    assert!(matches!(
        fetched,
        Err(Error::Mismatch {
            what: "its SHA-256",
            ..
        })
    ));
    assert!(blobs(&folder).is_empty());
    assert_eq!(hub.cache().locate(&ID.parse().unwrap(), "main"), None);

    // What an earlier run left is wrong.
    let (folder, hub, fetched, _) = fetch_large(&server);
    fetched.unwrap();
    let [hash] = blobs(&folder).try_into().unwrap();
    fs::remove_dir_all(folder.path().join("hub/models--me--mine")).unwrap();
    let blobs = folder.path().join("hub/models--me--mine/blobs");
    fs::create_dir_all(&blobs).unwrap();
    fs::write(blobs.join(format!("{hash}.incomplete")), [1; 1000]).unwrap();
    let root = fetch(&hub, &[LARGE], &mut Watcher::default()).unwrap();
    assert!(fs::read(root.join(LARGE)).unwrap() == large());

    // Longer or shorter than listed.
    for claimed in [2_000_000, 2_900_000] {
        server.claim(ID, LARGE, claimed);
        let (folder, _, fetched, _) = fetch_large(&server);
        assert!(
            matches!(
                fetched,
                Err(Error::Mismatch {
                    what: "its length",
                    ..
                })
            ),
            "{fetched:?}"
        );
        assert!(!folder.path().join("hub/models--me--mine/refs").exists());
    }
}

#[test]
fn what_would_fail_again_is_not_tried_again() {
    let server = server();
    server.gate(ID);
    server.admit("hf_good", "me", false);
    let attempt = |token: &str, reference: &str, path: &str| {
        let folder = tempfile::tempdir().unwrap();
        let hub = Hub::new(Settings {
            token_of_environment: Token::new(token),
            ..settings(&server, folder.path())
        });
        let before = server.requests().len();
        let error = hub
            .list(&reference.parse().unwrap(), &|| false)
            .and_then(|listing| hub.read(&listing, path, &|| false))
            .unwrap_err();
        (error, server.requests().len() - before)
    };
    let (error, requests) = attempt("", ID, LARGE);
    assert!(
        matches!(error, Error::Gated { has_token: false, .. }) && requests == 2,
        "{error:?}"
    );
    let (error, requests) = attempt("hf_good", ID, LARGE);
    assert!(
        matches!(error, Error::Gated { has_token: true, .. }) && requests == 2,
        "{error:?}"
    );
    let (error, requests) = attempt("hf_bad", ID, LARGE);
    assert!(
        matches!(error, Error::TokenRefused { .. }) && requests == 1,
        "{error:?}"
    );
    let (error, requests) = attempt("", "me/other", LARGE);
    assert!(
        matches!(error, Error::NoRepository { .. }) && requests == 1,
        "{error:?}"
    );
    let (error, requests) = attempt("hf_good", "me/mine@v2", LARGE);
    assert!(
        matches!(error, Error::NoRevision { .. }) && requests == 1,
        "{error:?}"
    );
    server.put("me/open", "a", "a");
    let (error, requests) = attempt("", "me/open", "b");
    assert!(
        matches!(error, Error::NoFile { .. }) && requests == 2,
        "{error:?}"
    );
}

#[test]
fn no_request_is_sent_offline_and_a_missing_network_is_an_error_at_once() {
    let server = server();
    let (folder, hub, fetched, _) = fetch_large(&server);
    fetched.unwrap();
    let listing = hub.list(&ID.parse().unwrap(), &|| false).unwrap();
    let before = server.requests().len();
    let offline = Hub::new(Settings {
        offline: true,
        ..settings(&server, folder.path())
    });
    assert!(matches!(
        offline.list(&ID.parse().unwrap(), &|| false),
        Err(Error::Offline { .. })
    ));
    let download = offline.prepare(&listing, &["config.json"], &|| false).unwrap();
    assert!(matches!(
        offline.fetch(&[download], &mut Watcher::default()),
        Err(Error::Offline { .. })
    ));
    let there = offline.prepare(&listing, &[LARGE], &|| false).unwrap();
    offline.fetch(&[there], &mut Watcher::default()).unwrap();
    assert_eq!(server.requests().len(), before);

    let nobody = Hub::new(Settings {
        // Port 9 discards, where anything listens there at all.
        endpoint: "http://127.0.0.1:9".to_owned(),
        ..settings(&server, folder.path())
    });
    let begin = Instant::now();
    assert!(matches!(
        nobody.list(&ID.parse().unwrap(), &|| false),
        Err(Error::NoNetwork { .. })
    ));
    assert!(begin.elapsed().as_secs() < 3);
}

#[test]
fn a_full_disk_is_found_before_a_byte_is_downloaded() {
    let server = server();
    server.claim(ID, LARGE, 1 << 60);
    let (_folder, _, fetched, _) = fetch_large(&server);
    assert!(matches!(fetched, Err(Error::DiskFull { wanted, .. }) if wanted == 1 << 60));
    assert!(server.served(ID, LARGE).is_empty());
}

#[test]
fn of_several_who_fetch_a_file_one_does_and_the_others_wait() {
    let server = server();
    server.trouble(LARGE, Trouble::Slow(5));
    let folder = tempfile::tempdir().unwrap();
    let waited: usize = std::thread::scope(|scope| {
        let fetchers: Vec<_> = (0..3)
            .map(|_| {
                scope.spawn(|| {
                    let hub = Hub::new(settings(&server, folder.path()));
                    let mut watcher = Watcher::default();
                    let root = fetch(&hub, &[LARGE], &mut watcher).unwrap();
                    assert!(fs::read(root.join(LARGE)).unwrap() == large());
                    watcher
                        .events
                        .iter()
                        .filter(|event| event.starts_with("Waiting"))
                        .count()
                })
            })
            .collect();
        fetchers.into_iter().map(|fetcher| fetcher.join().unwrap()).sum()
    });
    assert_eq!((server.served(ID, LARGE).len(), waited), (1, 2));
}

#[test]
fn a_mirror_without_sizes_is_queried_file_by_file() {
    let server = server();
    server.list_names_alone();
    server.trouble(LARGE, Trouble::Wrong);
    let (folder, hub, fetched, _) = fetch_large(&server);
    let root = fetched.unwrap();
    assert!(fs::read(root.join(LARGE)).unwrap() == large());
    fetch(&hub, &["config.json"], &mut Watcher::default()).unwrap();
    let lengths: Vec<usize> = blobs(&folder).iter().map(String::len).collect();
    assert!(lengths.contains(&64) && lengths.contains(&40), "{lengths:?}");
}

#[test]
fn a_token_is_known_by_the_hub() {
    let server = server();
    server.admit("hf_good", "somebody", false);
    let folder = tempfile::tempdir().unwrap();
    let hub = Hub::new(settings(&server, folder.path()));
    let account = |token: &str| hub.account_of(&Token::new(token).unwrap(), &|| false);
    assert_eq!(account("hf_good").unwrap(), "somebody");
    assert!(matches!(account("hf_bad"), Err(Error::TokenRefused { .. })));
}
