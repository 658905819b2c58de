//! `generate models verify`: whole and damaged files of the hub's cache, and files of the user.

use std::fs;
use std::path::Path;

use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::command::{Fresh, Run};
use crate::hub::server::{self, Server};

const FAMILIES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../pipeline/tests/fixtures/families");
const ID: &str = "me/tiny";

/// A cache with a model that was downloaded.
fn downloaded() -> (Server, Fresh) {
    let server = Server::start();
    server.put_folder(ID, &Path::new(FAMILIES).join("sd15"));
    let fresh = Fresh::new();
    pull(&fresh, &server).succeeds();
    (server, fresh)
}

fn pull(fresh: &Fresh, server: &Server) -> Run {
    let mut command = fresh.command_at(server.endpoint());
    Run::of(command.args(["models", "pull", ID]).output().unwrap())
}

fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

#[test]
fn files_of_the_cache_are_compared_with_their_hashes() {
    let (server, fresh) = downloaded();
    let verify = |words: &[&str]| fresh.run(&[&["models", "verify"], words].concat());
    for words in [&[][..], &[ID], &["me/tiny@main"]] {
        let run = verify(words).succeeds();
        let lines: Vec<&str> = run.stdout.lines().collect();
        assert!(lines.len() > 6, "{}", run.stdout);
        assert!(
            lines.iter().all(|line| line.ends_with(": intact")),
            "{}",
            run.stdout
        );
        assert!(run.stderr.contains("none is damaged"), "{}", run.stderr);
    }
    let one = verify(&["me/tiny:model_index.json"]).succeeds();
    assert_eq!(one.stdout, "me/tiny:model_index.json: intact\n");

    // A weights file, whose blob is called by its SHA-256, and a small one with the hash of git.
    let snapshot = fresh
        .hugging_face()
        .join(format!("hub/models--me--tiny/snapshots/{}", server::COMMIT));
    for (name, hash) in [
        ("unet/diffusion_pytorch_model.safetensors", "its SHA-256 is "),
        ("vae/config.json", "its SHA-1 in git is "),
    ] {
        let blob = fs::canonicalize(snapshot.join(name)).unwrap();
        let whole = fs::read(&blob).unwrap();
        let mut damaged = whole.clone();
        damaged[whole.len() / 2] ^= 1;
        fs::write(&blob, damaged).unwrap();
        let run = verify(&[]).fails(1, "1 of ");
        let line = run
            .stdout
            .lines()
            .find(|line| line.contains(": damaged: "))
            .unwrap();
        assert!(
            line.starts_with(&format!("{ID}:{name}: damaged: {hash}")),
            "{line}"
        );
        assert!(run.stderr.contains(&format!("`{ID}:{name}`")), "{}", run.stderr);
        let quiet = verify(&["--quiet"]).fails(1, "1 of ");
        assert_eq!(quiet.stdout.lines().count(), 1, "{}", quiet.stdout);
        let events = verify(&["--json"]);
        assert_eq!(events.code, Some(1));
        let events = events.events();
        let wrong: Vec<&Value> = events
            .iter()
            .filter(|event| event["state"] == "damaged")
            .collect();
        assert_eq!(wrong.len(), 1, "{events:?}");
        assert_eq!(wrong[0]["name"], format!("{ID}:{name}"));
        assert_eq!(events.last().unwrap()["event"], "error");
        // As the hint says.
        fs::remove_file(&blob).unwrap();
        verify(&[ID]).fails(1, name);
        pull(&fresh, &server).succeeds();
        verify(&[]).succeeds();
    }
    verify(&["me/other"]).fails(4, "`me/other` is not in the cache");
    verify(&["nothing"]).fails(2, "`nothing` is not the id");
}

#[test]
fn other_files_are_compared_with_a_hash_beside_them() {
    let fresh = Fresh::new();
    let loras = fresh.path().join("models/loras");
    fs::create_dir_all(&loras).unwrap();
    fs::write(
        fresh.configuration(),
        format!("models_path = {:?}\n", fresh.path().join("models")),
    )
    .unwrap();
    fs::write(loras.join("film.safetensors"), "some bytes").unwrap();
    let digits = sha256(b"some bytes");
    let verify = |words: &[&str]| fresh.run(&[&["models", "verify"], words].concat());
    // There is nothing to compare with.
    let run = verify(&["models/loras/film.safetensors"]).succeeds();
    assert_eq!(run.stdout, format!("{digits}  models/loras/film.safetensors\n"));
    let run = verify(&["film"]).succeeds();
    assert!(run.stdout.starts_with(&format!("{digits}  ")), "{}", run.stdout);
    assert_eq!(verify(&[]).succeeds().stdout, "");

    let info = |sha256: &str| {
        let text =
            format!(r#"{{"files": [{{"name": "film.safetensors", "hashes": {{"SHA256": "{sha256}"}}}}]}}"#);
        fs::write(loras.join("film.civitai.info"), text).unwrap();
    };
    info(&digits.to_uppercase());
    for words in [&["film"][..], &[]] {
        let run = verify(words).succeeds();
        assert!(
            run.stdout.ends_with("film.safetensors: intact\n"),
            "{}",
            run.stdout
        );
    }
    info(&sha256(b"other bytes"));
    for words in [&["film"][..], &[]] {
        let run = verify(words).fails(1, "film.safetensors`");
        assert!(
            run.stdout.contains(": damaged: its SHA-256 is "),
            "{}",
            run.stdout
        );
    }
    // `sha256sum` precedes.
    fs::write(
        loras.join("film.safetensors.sha256"),
        format!("{digits}  film.safetensors\n"),
    )
    .unwrap();
    let event = verify(&["film", "--json"]).succeeds().events().remove(0);
    assert_eq!(event["state"], "intact");
    assert!(
        event["compared_with"]
            .as_str()
            .unwrap()
            .ends_with("film.safetensors.sha256"),
        "{event}"
    );
}
