//! Damaged copies of every file of every corpus, the same each time: a substitute for a fuzzer on a stable
//! compiler. `SD_FUZZ_MUTATIONS` is the number per file (20).

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

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

/// What stands in for a number or a text.
const STRANGE: [&[u8]; 10] = [
    b"0",
    b"-1",
    b"9223372036854775808",
    b"18446744073709551615",
    b"1e308",
    b"null",
    b"[]",
    b"{}",
    b"\"\"",
    "\u{202e}\u{0}ß".as_bytes(),
];

fn damaged(bytes: &[u8], dice: &mut Dice) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    for _ in 0..=dice.roll(3) {
        let at = dice.roll(bytes.len());
        let end = (at + 1 + dice.roll(16)).min(bytes.len());
        match dice.roll(6) {
            0 => bytes.truncate(at),
            1 if !bytes.is_empty() => bytes[at] ^= 1 << dice.roll(8),
            2 => drop(bytes.splice(at..end, STRANGE[dice.roll(STRANGE.len())].iter().copied())),
            3 => {
                let part = bytes[at..end].repeat(1 + dice.roll(64));
                drop(bytes.splice(at..at, part));
            }
            4 => drop(bytes.drain(at..end)),
            _ => {
                // A number in the text, if there is one from here on.
                let digit = |byte: &u8| byte.is_ascii_digit();
                if let Some(first) = bytes[at..].iter().position(digit).map(|found| at + found) {
                    let count = bytes[first..].iter().take_while(|byte| digit(byte)).count();
                    let strange = STRANGE[dice.roll(STRANGE.len())];
                    drop(bytes.splice(first..first + count, strange.iter().copied()));
                }
            }
        }
    }
    bytes
}

#[test]
fn damaged_files_are_answered() {
    let count = std::env::var("SD_FUZZ_MUTATIONS").ok();
    let count: usize = count.and_then(|count| count.parse().ok()).unwrap_or(20);
    let corpora = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus");
    let mut dice = Dice(0x5eed);
    for (name, target) in sd_fuzz::TARGETS {
        let mut files: Vec<_> = fs::read_dir(corpora.join(name))
            .expect("each target has a corpus")
            .map(|file| file.expect("an entry").path())
            .collect();
        files.sort();
        for file in files {
            let whole = fs::read(&file).expect("a file");
            for _ in 0..count {
                let bytes = damaged(&whole, &mut dice);
                if catch_unwind(AssertUnwindSafe(|| target(&bytes))).is_err() {
                    let kept = std::env::temp_dir().join(format!("crash-{name}"));
                    fs::write(&kept, bytes).expect("a file");
                    panic!("{name}: a damaged {} is in {}", file.display(), kept.display());
                }
            }
        }
    }
}
