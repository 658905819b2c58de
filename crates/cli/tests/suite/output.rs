//! Where images go: folders, named files, formats, stdout.

use std::fs;

use crate::command::{Fresh, Image};
use serde_json::Value;

const SMALL: [&str; 5] = ["a red circle", "--size", "64x64", "--steps", "1"];

fn generate(fresh: &Fresh, words: &[&str]) -> Vec<String> {
    let run = fresh.run(&[&SMALL[..], words].concat()).succeeds();
    run.stdout.lines().map(str::to_owned).collect()
}

#[test]
fn a_named_file_is_written_beside_its_metadata_and_never_over_another() {
    let fresh = Fresh::new();
    assert_eq!(generate(&fresh, &["-o", "cat.png"]), ["./cat.png"]);
    let first = fs::read(fresh.path().join("cat.png")).unwrap();
    let sidecar: Value = serde_json::from_slice(&fs::read(fresh.path().join("cat.json")).unwrap()).unwrap();
    assert_eq!(sidecar["filename"], "cat.png");
    assert_eq!(
        generate(&fresh, &["--output", "cat.png", "--seed", "7"]),
        ["./cat_2.png"]
    );
    assert_eq!(fs::read(fresh.path().join("cat.png")).unwrap(), first);
    assert_eq!(
        generate(&fresh, &["-o", "cat.png", "--seed", "7", "--overwrite"]),
        ["./cat.png"]
    );
    assert!(fs::read(fresh.path().join("cat.png")).unwrap() != first);
    assert_eq!(
        fresh.files("."),
        ["cat.json", "cat.png", "cat_2.json", "cat_2.png"]
    );
}

#[test]
fn several_images_are_numbered_or_named_by_their_seeds() {
    let fresh = Fresh::new();
    let names = |words: &[&str]| generate(&fresh, words);
    assert_eq!(
        names(&["-o", "a/out_%02d.png", "--n", "2"]),
        ["a/out_01.png", "a/out_02.png"]
    );
    assert_eq!(names(&["-o", "a/out_%02d.png"]), ["a/out_03.png"]);
    assert_eq!(
        names(&["-o", "b/cat.png", "--n", "2"]),
        ["b/cat_001.png", "b/cat_002.png"]
    );
    assert_eq!(
        names(&["-o", "c/{model}_{seed}.png", "--seed", "5,3"]),
        ["c/demo_5.png", "c/demo_3.png"]
    );
    let dated = names(&["-o", "d/{date}_{time}.png"]);
    let stem = dated[0].strip_prefix("d/").unwrap().strip_suffix(".png").unwrap();
    assert_eq!(stem.len(), "2026-05-04_03-02-01".len(), "{stem}");
}

#[test]
fn jpeg_and_webp_hold_the_image_and_its_parameters() {
    let fresh = Fresh::new();
    generate(&fresh, &["-o", "a.png"]);
    generate(&fresh, &["-o", "b.jpeg"]);
    generate(&fresh, &["-o", "c.jpg", "--jpeg-quality", "30"]);
    generate(&fresh, &["-o", "d.webp"]);
    let png = Image::read(&fresh.path().join("a.png"));
    let parameters: Vec<u8> = png.texts[0].1.encode_utf16().flat_map(u16::to_be_bytes).collect();
    let comment = [b"UNICODE\0".as_slice(), &parameters].concat();
    for (name, magic) in [
        ("b.jpeg", &b"\xff\xd8\xff"[..]),
        ("c.jpg", b"\xff\xd8\xff"),
        ("d.webp", b"RIFF"),
    ] {
        let bytes = fs::read(fresh.path().join(name)).unwrap();
        assert!(bytes.starts_with(magic), "{name}");
        assert!(
            bytes.windows(comment.len()).any(|window| window == comment),
            "{name}"
        );
    }
    let length = |name: &str| fs::metadata(fresh.path().join(name)).unwrap().len();
    assert!(length("c.jpg") < length("b.jpeg"));
    // WebP is lossless, and JPEG nearly so.
    let (exact, webp, jpeg) = (
        pixels(&fresh, "a.png"),
        pixels(&fresh, "d.webp"),
        pixels(&fresh, "b.jpeg"),
    );
    assert!(exact == webp);
    let pairs = exact.as_flattened().iter().zip(jpeg.as_flattened());
    let apart: u64 = pairs.map(|(one, other)| u64::from(one.abs_diff(*other))).sum();
    assert!(apart / (exact.as_flattened().len() as u64) < 4);
}

/// The pixels of the image `name`, which a run with little noise keeps.
fn pixels(fresh: &Fresh, name: &str) -> Vec<[u8; 3]> {
    let words = [
        "a red circle",
        "--init-image",
        name,
        "--strength",
        "0.05",
        "--output",
        "again",
    ];
    let run = fresh.run(&words).succeeds();
    Image::read(&fresh.path().join(&run.images()[0])).pixels
}

#[test]
fn stdout_takes_the_image() {
    let fresh = Fresh::new();
    generate(&fresh, &["-o", "cat.png"]);
    let mut command = fresh.command();
    let output = command.args(SMALL).args(["-o", "-"]).output().unwrap();
    assert!(output.status.success());
    assert!(output.stdout == fs::read(fresh.path().join("cat.png")).unwrap());
    assert_eq!(fresh.files("."), ["cat.json", "cat.png"]);
    for words in [&["-o", "-", "--n", "2"][..], &["-o", "-", "--json"]] {
        fresh.run(&[&SMALL[..], words].concat()).fails(2, "stdout takes");
    }
}

#[test]
fn names_that_cannot_be_are_refused_before_any_work() {
    let fresh = Fresh::new();
    for (words, cause) in [
        (&["-o", "cat.gif"][..], "saved as .png, .jpg or .webp"),
        (&["-o", "{sed}.png"], "`{sed}` is no part of file names"),
        (&["-o", "{date}/cat.png"], "not its folder"),
        (&["-o", "cat.png", "--jpeg-quality", "80"], "--jpeg-quality needs"),
        (&["-o", "cat.jpg", "--jpeg-quality", "0"], "from 1 to 100"),
    ] {
        fresh.run(&[&SMALL[..], words].concat()).fails(2, cause);
    }
    assert_eq!(fresh.files("."), [""; 0]);
}
