//! Files that claim too much memory or lead elsewhere are refused, within a small multiple of their length.

#![allow(clippy::unwrap_used)] // Without its data a test has failed.

use std::fs;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

use sd_weights::{
    Checkpoint, CountingAllocator, Error, FileIdentity, ModelFolder, TensorHeader, allocated_bytes,
    allocated_peak, restart_allocated_peak,
};

#[global_allocator]
static ALLOCATOR: CountingAllocator = CountingAllocator;

/// Held by each test as long as it runs: what another one allocates would count too.
static ALONE: Mutex<()> = Mutex::new(());

fn alone() -> MutexGuard<'static, ()> {
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

const MB: u64 = 1 << 20;

/// Opens a file of `bytes`, called `name`, and says what that took at its peak.
fn open(name: &str, bytes: &[u8]) -> (Result<Checkpoint, Error>, u64) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(name);
    fs::write(&path, bytes).unwrap();
    restart_allocated_peak();
    let before = allocated_bytes();
    let opened = Checkpoint::open_file(path);
    (opened, allocated_peak() - before)
}

/// A safetensors file with this header, and a megabyte behind it.
fn with_header(header: &str) -> Vec<u8> {
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend_from_slice(header.as_bytes());
    bytes.resize(bytes.len() + MB as usize, 0);
    bytes
}

#[test]
fn a_long_header_takes_little() {
    let _alone = alone();
    // Entries of a few bytes, which would be tables of a hundred.
    let entry =
        |index: usize| format!("\"{index}\":{{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]}}");
    let many = |count: usize| format!("{{{}}}", (0..count).map(entry).collect::<Vec<_>>().join(","));
    let (opened, peak) = open("many.safetensors", &with_header(&many(1 << 16)));
    assert_eq!(opened.unwrap().tensors().count(), 1 << 16);
    assert!(peak < 100 * MB, "{peak}");
    let (opened, peak) = open("more.safetensors", &with_header(&many((1 << 16) + 1)));
    let error = opened.unwrap_err().to_string();
    assert!(error.contains("more than 65536 tensors"), "{error}");
    assert!(peak < 100 * MB, "{peak}");
    for (name, header) in [
        (
            "deep",
            format!("{{\"__metadata__\":{{\"a\":{}}}}}", "[".repeat(1 << 20)),
        ),
        (
            "wide",
            format!("{{\"__metadata__\":{{\"a\":[{}0]}}}}", "0,".repeat(7 << 20)),
        ),
        (
            "shape",
            format!(
                "{{\"a\":{{\"dtype\":\"U8\",\"shape\":[{}1],\"data_offsets\":[0,1]}}}}",
                "1,".repeat(7 << 20)
            ),
        ),
    ] {
        let (opened, peak) = open(name, &with_header(&header));
        assert!(opened.is_err() || name == "wide", "{name}");
        assert!(peak < 20 * MB, "{name}: {peak}");
    }
    let (opened, peak) = open("long.safetensors", &with_header(&" ".repeat(60_000_000)));
    assert!(matches!(opened, Err(Error::BadHeader { .. })));
    assert!(peak < MB, "{peak}");
}

#[test]
fn shapes_that_cannot_be_are_refused_also_where_they_hold_nothing() {
    let _alone = alone();
    let header = r#"{"a":{"dtype":"F32","shape":[4294967296,4294967296,0],"data_offsets":[0,0]}}"#;
    let (opened, _) = open("a.safetensors", &with_header(header));
    assert!(opened.unwrap_err().to_string().contains("impossible shape"));
    let header = r#"{"a":{"dtype":"F32","shape":[4,0],"data_offsets":[0,0]}}"#;
    assert!(open("a.safetensors", &with_header(header)).0.is_ok());
}

/// A zip archive whose entries are stored.
fn archive(entries: &[(&str, &[u8])]) -> Vec<u8> {
    let (mut file, mut list) = (Vec::new(), Vec::new());
    for (name, bytes) in entries {
        let offset = file.len() as u32;
        let length = bytes.len() as u32;
        let mut common = vec![20, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        // The checksum, which nobody compares.
        common.extend(0_u32.to_le_bytes());
        common.extend(length.to_le_bytes());
        common.extend(length.to_le_bytes());
        common.extend((name.len() as u16).to_le_bytes());
        common.extend([0, 0]);
        file.extend(b"PK\x03\x04");
        file.extend(&common);
        file.extend(name.as_bytes());
        file.extend_from_slice(bytes);
        list.extend(b"PK\x01\x02\x14\x00");
        list.extend(&common);
        list.extend([0; 10]);
        list.extend(offset.to_le_bytes());
        list.extend(name.as_bytes());
    }
    let (offset, length) = (file.len() as u32, list.len() as u32);
    file.extend(list);
    file.extend(b"PK\x05\x06\0\0\0\0");
    file.extend([(entries.len() as u16).to_le_bytes(); 2].concat());
    file.extend(length.to_le_bytes());
    file.extend(offset.to_le_bytes());
    file.extend([0, 0]);
    file
}

fn pickled(pickle: &[u8]) -> (Result<Checkpoint, Error>, u64) {
    open(
        "x.pth",
        &archive(&[("x/data.pkl", pickle), ("x/data/0", &[0; 4])]),
    )
}

/// A tensor of one number, kept in the memo under 1.
const TENSOR: &[u8] =
    b"ctorch._utils\n_rebuild_tensor_v2\n((X\x07\x00\x00\x00storagectorch\nFloatStorage\nX\x01\x00\x00\x000X\x03\x00\x00\x00cpuK\x01tQK\x00K\x01\x85K\x01\x85\x89ccollections\nOrderedDict\n)RtRq\x01";

/// A text as a pickle has it.
fn text(text: &str) -> Vec<u8> {
    [b"X", &(text.len() as u32).to_le_bytes()[..], text.as_bytes()].concat()
}

#[test]
fn names_that_share_a_long_beginning_are_counted_whole() {
    let _alone = alone();
    let table = |tensors: usize, prefix: usize| {
        let mut pickle = b"\x80\x02".to_vec();
        pickle.extend(TENSOR);
        pickle.extend(b"0}");
        pickle.extend(text(&"p".repeat(prefix)));
        pickle.extend(b"}(");
        for index in 0..tensors {
            pickle.extend(text(&index.to_string()));
            pickle.extend(b"h\x01");
        }
        pickle.extend(b"us.");
        pickle
    };
    let (opened, _) = pickled(&table(3, 10));
    assert_eq!(
        opened.unwrap().tensors().next().unwrap().0,
        format!("{}.0", "p".repeat(10))
    );
    for (tensors, prefix) in [(60_000, 1000), (300_000, 1)] {
        let (opened, peak) = pickled(&table(tensors, prefix));
        assert!(matches!(opened, Err(Error::BadTorchFile { .. })), "{tensors}");
        assert!(peak < 100 * MB, "{tensors}: {peak}");
    }
}

#[test]
fn operations_of_a_byte_do_not_take_memory_without_end() {
    let _alone = alone();
    let repeated = |head: &[u8], part: &[u8]| [head, &part.repeat((14 << 20) / part.len()), b"."].concat();
    for (what, pickle) in [
        ("marks", repeated(b"\x80\x02", b"(")),
        ("memo", repeated(b"\x80\x04N", b"\x94")),
        ("stack", repeated(b"\x80\x02Nq\x00", b"h\x00")),
        ("values", repeated(b"\x80\x02", b"]")),
        (
            "tensors",
            repeated(
                &[b"\x80\x02", TENSOR].concat(),
                b"h\x01\x85ctorch._utils\n_rebuild_parameter\nh\x01\x85R",
            ),
        ),
    ] {
        let (opened, peak) = pickled(&pickle);
        assert!(opened.is_err(), "{what}");
        assert!(peak < 120 * MB, "{what}: {peak}");
    }
}

#[test]
fn an_archive_of_very_many_entries_is_refused() {
    let _alone = alone();
    let names: Vec<String> = (0..65_000)
        .map(|index| format!("x/data/{index}-{}", "n".repeat(120)))
        .collect();
    let entries: Vec<(&str, &[u8])> = names.iter().map(|name| (name.as_str(), &[][..])).collect();
    let (opened, peak) = open("x.pth", &archive(&entries));
    assert!(opened.is_err());
    assert!(peak < 100 * MB, "{peak}");
}

/// A model's folder with weights of one tensor in a shard, which the index calls `shard`.
fn sharded(root: &Path, shard: &str) -> ModelFolder {
    let component = root.join("model/unet");
    fs::create_dir_all(&component).unwrap();
    let index = serde_json::json!({ "weight_map": { "a": shard } }).to_string();
    fs::write(component.join("model.safetensors.index.json"), index).unwrap();
    ModelFolder::on_disk(root.join("model"))
}

#[test]
fn an_index_does_not_lead_out_of_the_folder() {
    let _alone = alone();
    let place = tempfile::tempdir().unwrap();
    let secret = place.path().join("secret.safetensors");
    let header = r#"{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}"#;
    fs::write(&secret, with_header(header)).unwrap();
    for shard in ["../../secret.safetensors", secret.to_str().unwrap(), "..", ""] {
        let opened = sharded(place.path(), shard).checkpoint("unet");
        assert!(
            matches!(opened, Err(Error::OutsideFolder { .. })),
            "{shard}: {opened:?}"
        );
        let known = sharded(place.path(), shard).weights_identity("unet");
        assert!(matches!(known, Err(Error::OutsideFolder { .. })), "{shard}");
    }
    let folder = sharded(place.path(), "own.safetensors");
    fs::copy(&secret, place.path().join("model/unet/own.safetensors")).unwrap();
    assert!(folder.checkpoint("unet").is_ok());
}

#[cfg(unix)]
#[test]
fn a_link_leads_out_of_the_folder_to_bytes_of_the_hub_alone() {
    let _alone = alone();
    use std::os::unix::fs::symlink;

    let place = tempfile::tempdir().unwrap();
    let at = |path: &str| place.path().join(path);
    let header = r#"{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}"#;
    fs::create_dir_all(at("models--me--mine/blobs")).unwrap();
    for file in ["secret", "models--me--mine/blobs/b1"] {
        fs::write(at(file), with_header(header)).unwrap();
    }
    let folder = sharded(place.path(), "link.safetensors");
    let link = at("model/unet/link.safetensors");
    symlink(at("secret"), &link).unwrap();
    let opened = folder.checkpoint("unet");
    assert!(matches!(opened, Err(Error::OutsideFolder { .. })), "{opened:?}");
    fs::remove_file(&link).unwrap();
    symlink(at("models--me--mine/blobs/b1"), &link).unwrap();
    assert!(folder.checkpoint("unet").is_ok());
    // The folder of a network alone, which may be a link as the user has it.
    fs::create_dir(at("named")).unwrap();
    symlink(at("model/unet"), at("named/control")).unwrap();
    let (folder, component) = ModelFolder::around(&at("named/control"));
    assert!(folder.checkpoint(&component).is_ok());
}

#[cfg(unix)]
#[test]
fn pipes_devices_and_texts_that_are_too_long_are_refused_at_once() {
    let _alone = alone();
    let place = tempfile::tempdir().unwrap();
    let pipe = place.path().join("pipe");
    assert!(
        std::process::Command::new("mkfifo")
            .arg(&pipe)
            .status()
            .unwrap()
            .success()
    );
    for path in [&pipe, Path::new("/dev/zero")] {
        assert!(matches!(Checkpoint::open_file(path), Err(Error::Read { .. })));
        assert!(matches!(FileIdentity::of_file(path), Err(Error::Read { .. })));
    }
    let folder = ModelFolder::on_disk(place.path());
    let long = fs::File::create(place.path().join("config.json")).unwrap();
    long.set_len(1 << 40).unwrap();
    assert!(matches!(folder.bytes("config.json"), Err(Error::Read { .. })));
    let read = folder.json::<serde_json::Value>("config.json");
    assert!(matches!(read, Err(Error::Read { .. })));
}

/// Marsaglia, "Xorshift RNGs", 2003.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % sides.max(1) as u64) as usize
    }
}

/// Damages a file: flips bits, replaces a number of 1, 4 or 8 bytes by an extreme one, or cuts the end off.
fn damage(bytes: &mut Vec<u8>, dice: &mut Dice) {
    for _ in 0..=dice.roll(3) {
        // Headers are at the beginning, and most bytes are not.
        let range = [bytes.len(), 1500.min(bytes.len())][dice.roll(2)];
        let at = dice.roll(range);
        match dice.roll(8) {
            0 => bytes.truncate(at),
            1..=4 if !bytes.is_empty() => bytes[at] ^= 1 << dice.roll(8),
            _ => {
                let length = [1, 4, 8][dice.roll(3)].min(bytes.len() - at);
                let number = [0, 1, u64::MAX, 1 << 31, 1 << 62, 1 << 20, 255, 1000][dice.roll(8)];
                bytes[at..at + length].copy_from_slice(&number.to_le_bytes()[..length]);
            }
        }
    }
}

#[test]
fn damaged_quantised_files_are_answered_within_their_length() {
    let _alone = alone();
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
    let files = [
        "gguf/types.gguf",
        "quantized/bfl.safetensors",
        "quantized/bitsandbytes.safetensors",
        "quantized/comfy.safetensors",
        "quantized/comfy.metadata.safetensors",
        "quantized/quanto.safetensors",
        "quantized/scaled_fp8.safetensors",
    ];
    let files = files.map(|file| fs::read(fixtures.join(file)).unwrap());
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x");
    let (mut dice, mut read) = (Dice(0x5eed), 0);
    for round in 0..3000 {
        let mut bytes = files[round % files.len()].clone();
        damage(&mut bytes, &mut dice);
        fs::write(&path, &bytes).unwrap();
        restart_allocated_peak();
        let before = allocated_bytes();
        if let Ok(checkpoint) = Checkpoint::open_file(&path) {
            let within =
                |(_, header): (&str, &TensorHeader)| header.offset + header.bytes <= bytes.len() as u64;
            assert!(checkpoint.tensors().all(within), "round {round}");
            checkpoint.first_non_finite().unwrap();
            read += 1;
            if let Some(metadata) = checkpoint.gguf_metadata() {
                let _ = metadata.texts("tokenizer.ggml.tokens");
                let _ = metadata.floats("tokenizer.ggml.scores");
                let _ = metadata.integers("tokenizer.ggml.token_type");
            }
        }
        let peak = allocated_peak() - before;
        assert!(peak < MB, "round {round}: {peak}");
    }
    assert!((300..2700).contains(&read), "{read}");
}

#[test]
fn a_gguf_header_takes_little_whatever_it_promises() {
    let _alone = alone();
    let header = |tensors: u64, entries: u64| {
        let numbers = [tensors.to_le_bytes(), entries.to_le_bytes()].concat();
        [b"GGUF\x03\0\0\0".as_slice(), &numbers].concat()
    };
    let text = |text: &str| [&(text.len() as u64).to_le_bytes(), text.as_bytes()].concat();
    // Texts without end in arrays, which are skipped, and names that are too many.
    let array = [&8_u32.to_le_bytes()[..], &(1_u64 << 22).to_le_bytes()].concat();
    let texts = [
        header(0, 1),
        text("k"),
        9_u32.to_le_bytes().to_vec(),
        array,
        vec![0; 32 << 20],
    ]
    .concat();
    let (opened, peak) = open("x.gguf", &texts);
    assert!(opened.is_ok(), "{opened:?}");
    assert!(peak < MB, "{peak}");
    for bytes in [
        header(u64::MAX, 0),
        header(0, u64::MAX),
        header(1 << 16, 1 << 17),
        [header(1, 0), u64::MAX.to_le_bytes().to_vec()].concat(),
        [
            header(0, 1),
            text("k"),
            vec![8, 0, 0, 0],
            u64::MAX.to_le_bytes().to_vec(),
        ]
        .concat(),
    ] {
        let (opened, peak) = open("x.gguf", &bytes);
        assert!(opened.is_err());
        assert!(peak < MB, "{peak}");
    }
    let name = |index: usize| [text(&format!("{index:01000}")), vec![0; 16]].concat();
    let names: Vec<u8> = (0..1 << 16).flat_map(name).collect();
    let (opened, peak) = open("x.gguf", &[header(1 << 16, 0), names].concat());
    assert!(matches!(opened, Err(Error::BadGguf { .. })), "{opened:?}");
    assert!(peak < 40 * MB, "{peak}");
}
