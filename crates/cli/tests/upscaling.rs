//! Pictures that are made larger in the end.

#![allow(clippy::unwrap_used)] // Without its data a test has failed.

mod command;

use std::fs;
use std::path::{Path, PathBuf};

use command::{Fresh, Picture, Run};
use serde_json::Value;

fn draw(fresh: &Fresh, arguments: &[&str]) -> (Picture, Value, Run) {
    let run = fresh
        .run(&[&["a red circle", "--steps", "4"][..], arguments].concat())
        .succeeds();
    let path = fresh.path().join(&run.pictures()[0]);
    let metadata = serde_json::from_slice(&fs::read(path.with_extension("json")).unwrap()).unwrap();
    (Picture::read(&path), metadata, run)
}

/// A tiny random network of Real-ESRGAN that makes pictures four times as large.
fn network() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../models/tests/fixtures/upscaler/x4/model.pth")
}

#[test]
fn pictures_are_made_larger_with_a_network_and_without() {
    let fresh = Fresh::new();
    fs::copy(network(), fresh.path().join("net.pth")).unwrap();
    let (plain, _, _) = draw(&fresh, &["--output", "plain"]);
    let (resampled, metadata, _) = draw(&fresh, &["--upscale", "2", "--output", "resampled"]);
    assert_eq!((resampled.width, resampled.height), (512, 512));
    assert_eq!(
        (&metadata["upscale"], &metadata["upscale_method"]),
        (&2.into(), &"lanczos".into())
    );
    // A flat place keeps its colour.
    let [before, after] = [plain.pixel(8, 8), resampled.pixel(16, 16)];
    assert!(
        before
            .iter()
            .zip(after)
            .all(|(&before, after)| before.abs_diff(after) < 8),
        "{before:?} {after:?}"
    );

    for (factor, side) in [("4", 1024), ("2", 512)] {
        let (enlarged, metadata, _) = draw(
            &fresh,
            &[
                "--upscale",
                factor,
                "--upscaler",
                "net.pth",
                "--n",
                "2",
                "--output",
                factor,
            ],
        );
        assert_eq!((enlarged.width, enlarged.height), (side, side));
        assert_eq!(metadata["upscale_method"], "net");
        assert_eq!(fresh.files(factor).len(), 4);
    }
}

#[test]
fn an_upscaler_that_cannot_be_used_is_left_out() {
    let fresh = Fresh::new();
    let whole = fs::read(network()).unwrap();
    fs::write(fresh.path().join("cut.pth"), &whole[..whole.len() / 2]).unwrap();
    let (picture, metadata, run) = draw(&fresh, &["--upscale", "2", "--upscaler", "cut.pth"]);
    assert_eq!((picture.width, &metadata["upscale"]), (256, &Value::Null));
    assert!(
        run.stderr.contains("upscaling by 2 is left out: "),
        "{}",
        run.stderr
    );
    let strict = [
        "a red circle",
        "--upscale",
        "2",
        "--upscaler",
        "cut.pth",
        "--strict",
    ];
    fresh.run(&strict).fails(1, "`cut.pth`");
    fresh
        .run(&["x", "--upscale", "3"])
        .fails(2, "2 or 4 times as large");
}
