//! Hostile hubs, slow networks and other processes: a run ends in time, and never stores what is not listed.

use std::fs::{self, File};
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use crate::server::{COMMIT, Server, Trouble};
use sd_hub::{Cache, Error, Event, Hub, Observer, Settings};

const ID: &str = "me/mine";

/// Stops after a time.
struct Stopping(Instant);

impl Observer for Stopping {
    fn observe(&mut self, _: &Event<'_>) {}

    fn is_stopped(&self) -> bool {
        Instant::now() >= self.0
    }
}

fn hub(server: &Server, folder: &Path) -> Hub {
    Hub::new(Settings {
        endpoint: server.endpoint().to_owned(),
        cache: folder.join("hub"),
        token_file: folder.join("token"),
        token_of_environment: None,
        offline: false,
    })
}

#[test]
fn a_download_of_which_nothing_comes_is_stopped_within_a_second() {
    let server = Server::start();
    server.put(ID, "large.bin", vec![1; 100_000]);
    let folder = tempfile::tempdir().unwrap();
    let hub = hub(&server, folder.path());
    let listing = hub.list(&ID.parse().unwrap(), &|| false).unwrap();
    let download = hub.prepare(&listing, &["large.bin"], &|| false).unwrap();
    server.trouble("large.bin", Trouble::Slow(5_000));
    let stop = Instant::now() + Duration::from_millis(200);
    let fetched = hub.fetch(&[download], &mut Stopping(stop));
    assert!(matches!(fetched, Err(Error::Stopped)), "{fetched:?}");
    assert!(stop.elapsed() < Duration::from_secs(1), "{:?}", stop.elapsed());
}

#[test]
fn a_listing_that_does_not_come_is_stopped_within_a_second() {
    let server = Server::start();
    server.put(ID, "config.json", "{}");
    let folder = tempfile::tempdir().unwrap();
    server.trouble("revision/main", Trouble::Slow(5_000));
    let stop = Instant::now() + Duration::from_millis(200);
    let hub = hub(&server, folder.path());
    let listed = hub.list(&ID.parse().unwrap(), &|| Instant::now() >= stop);
    assert!(matches!(listed, Err(Error::Stopped)));
    assert!(stop.elapsed() < Duration::from_secs(1), "{:?}", stop.elapsed());
}

#[test]
fn small_files_are_what_git_has_of_them() {
    let server = Server::start();
    server.put(ID, "config.json", "{\"layers\": 1}");
    let folder = tempfile::tempdir().unwrap();
    let hub = hub(&server, folder.path());
    let listing = hub.list(&ID.parse().unwrap(), &|| false).unwrap();
    // As long as it is listed, and not what is listed.
    for _ in 0..2 {
        server.trouble("config.json", Trouble::Wrong);
    }
    let download = hub.prepare(&listing, &["config.json"], &|| false).unwrap();
    let never = Instant::now() + Duration::from_secs(3600);
    let fetched = hub.fetch(&[download], &mut Stopping(never));
    let Err(Error::Mismatch { what, .. }) = fetched else {
        panic!("{fetched:?}");
    };
    assert_eq!(what, "its SHA-1 in git");
    assert!(!folder.path().join("hub/models--me--mine/snapshots").exists());
    server.trouble("config.json", Trouble::Wrong);
    let text = hub.read(&listing, "config.json", &|| false).unwrap();
    assert_eq!(text, b"{\"layers\": 1}", "a corrupted download was not retried");
}

/// A cache with one file of one commit.
fn cache() -> (tempfile::TempDir, Cache) {
    let folder = tempfile::tempdir().unwrap();
    let repository = folder.path().join("models--me--mine");
    for (path, text) in [("blobs/b1", "bytes"), ("refs/main", COMMIT)] {
        let path = repository.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    let snapshot = repository.join("snapshots").join(COMMIT);
    fs::create_dir_all(&snapshot).unwrap();
    #[cfg(unix)]
    std::os::unix::fs::symlink("../../blobs/b1", snapshot.join("file")).unwrap();
    let cache = Cache::new(folder.path());
    (folder, cache)
}

#[test]
fn what_is_being_fetched_is_not_removed() {
    let (folder, cache) = cache();
    let locks = folder.path().join(".locks/models--me--mine");
    fs::create_dir_all(&locks).unwrap();
    fs::write(folder.path().join("models--me--mine/blobs/b2.incomplete"), "by").unwrap();
    let lock = File::create(locks.join("b2.lock")).unwrap();
    lock.lock().unwrap();
    let removed = cache.remove(&ID.parse().unwrap());
    assert!(matches!(removed, Err(Error::BeingFetched { .. })), "{removed:?}");
    assert!(folder.path().join("models--me--mine/blobs/b1").exists());
    drop(lock);
    cache.remove(&ID.parse().unwrap()).unwrap();
    assert!(!folder.path().join("models--me--mine").exists());
}

#[test]
fn leftovers_of_refs_are_no_branches() {
    let (folder, cache) = cache();
    let refs = folder.path().join("models--me--mine/refs");
    fs::write(refs.join(format!(".{COMMIT}.77")), COMMIT).unwrap();
    fs::write(refs.join("long"), "x".repeat(1 << 20)).unwrap();
    fs::write(refs.join("strange"), "../../x").unwrap();
    let [found] = cache.repositories().try_into().unwrap();
    assert_eq!(found.revisions[0].names, ["main"]);
    cache.remove(&ID.parse().unwrap()).unwrap();
    assert!(!refs.exists());
}

#[cfg(unix)]
#[test]
fn links_out_of_a_repository_are_not_walked() {
    use std::os::unix::fs::symlink;

    let (folder, cache) = cache();
    let snapshot = folder.path().join("models--me--mine/snapshots").join(COMMIT);
    symlink("/", snapshot.join("everything")).unwrap();
    symlink(".", snapshot.join("again")).unwrap();
    symlink("/etc/passwd", snapshot.join("passwd")).unwrap();
    symlink("nothing", snapshot.join("nowhere")).unwrap();
    // A walk that follows links takes for ever; a test must not.
    let (sender, receiver) = std::sync::mpsc::channel();
    thread::spawn(move || sender.send(cache.repositories()[0].revisions[0].paths()));
    let paths = receiver.recv_timeout(Duration::from_secs(5)).unwrap();
    assert_eq!(paths, ["file"]);
}
