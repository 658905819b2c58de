//! The tokenizers that are built into the binary, for models whose files bring none: those of CLIP and T5.
//!
//! Every Stable Diffusion model uses the same two vocabularies, so that a file of weights alone is complete with
//! them. They are compressed: `LICENCES.md` next to this file says where they are from, and
//! `tools/reference/make_builtin_tokenizers.py` makes them.

use std::io::Read;
use std::path::PathBuf;

use flate2::read::ZlibDecoder;

use super::ModelFile;
use crate::{Error, FileIdentity, Result};

/// CLIP's merges, one pair of tokens a line.
const CLIP_MERGES: Compressed = Compressed {
    bytes: include_bytes!("clip_merges.txt.zlib"),
    length: 524_605,
};
/// T5's `tokenizer.json`, without what no id depends on.
const T5_TOKENIZER: Compressed = Compressed {
    bytes: include_bytes!("t5_tokenizer.json.zlib"),
    length: 1_389_251,
};
/// Bytes of CLIP's `vocab.json` as it is derived from the merges.
const CLIP_VOCABULARY_BYTES: usize = 862_328;
/// CLIP's mark of the end of a word.
const END_OF_WORD: &str = "</w>";
/// CLIP's start and end token, the last two of its vocabulary.
const CLIP_SPECIAL: [&str; 2] = ["<|startoftext|>", "<|endoftext|>"];

/// A text that is compressed with zlib.
#[derive(Debug)]
struct Compressed {
    bytes: &'static [u8],
    /// The length of the text in bytes.
    length: u64,
}

/// A tokenizer that is built into the binary.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum BuiltInTokenizer {
    /// CLIP's byte-pair encoding with 49,408 tokens (Radford et al., "Learning Transferable Visual Models From
    /// Natural Language Supervision", 2021), as in transformers' `CLIPTokenizer`.
    Clip(ClipPadding),
    /// T5's unigrams with 32,100 tokens (Raffel et al., "Exploring the Limits of Transfer Learning with a Unified
    /// Text-to-Text Transformer", 2020), as in transformers' `T5TokenizerFast`.
    T5,
}

/// The token that CLIP's tokenizer pads with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ClipPadding {
    /// The end token, for CLIP-L in Stable Diffusion 1, XL and 3.
    EndOfText,
    /// `!`, whose id is 0, for OpenCLIP's networks in Stable Diffusion 2, XL (`tokenizer_2`) and 3
    /// (`tokenizer_2`). As in transformers, `!` then is a special token, which matches inside words too.
    Exclamation,
}

impl ClipPadding {
    /// The token.
    pub const fn token(self) -> &'static str {
        match self {
            Self::EndOfText => CLIP_SPECIAL[1],
            Self::Exclamation => "!",
        }
    }
}

/// The ids of a tokenizer that are known before its vocabulary is decompressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SpecialIds {
    /// The token before a text.
    pub start: Option<u32>,
    /// The token after a text.
    pub end: u32,
    /// The token that a text is padded with.
    pub padding: u32,
    /// One more than the largest id.
    pub count: usize,
}

impl BuiltInTokenizer {
    /// The most tokens of a text, special ones included: `model_max_length` of Stable Diffusion's tokenizers.
    pub const fn longest(self) -> usize {
        match self {
            Self::Clip(_) => 77,
            Self::T5 => 512,
        }
    }

    /// The ids of special tokens, and the size of the vocabulary.
    pub const fn special_ids(self) -> SpecialIds {
        match self {
            Self::Clip(padding) => SpecialIds {
                start: Some(49_406),
                end: 49_407,
                padding: match padding {
                    ClipPadding::EndOfText => 49_407,
                    ClipPadding::Exclamation => 0,
                },
                count: 49_408,
            },
            Self::T5 => SpecialIds {
                start: None,
                end: 1,
                padding: 0,
                count: 32_100,
            },
        }
    }

    /// The bytes of vocabulary that a plan counts, which takes each for eight of the built tokenizer. That of CLIP was
    /// measured to take 16.3 MB, that of T5 23.7 MB. Nothing is decompressed here.
    pub const fn vocabulary_bytes(self) -> u64 {
        match self {
            Self::Clip(_) => 2_150_000,
            Self::T5 => 3_100_000,
        }
    }

    /// CLIP's `vocab.json` and `merges.txt`. Each call decompresses them again.
    ///
    /// # Errors
    /// The text in the binary is damaged.
    pub fn clip_byte_pairs() -> Result<(ModelFile, ModelFile)> {
        let merges = Self::Clip(ClipPadding::EndOfText).file("merges.txt", &CLIP_MERGES)?;
        let lines = str::from_utf8(&merges.bytes).map_err(|error| Error::BadText {
            file: merges.path.clone(),
            reason: error.to_string(),
        })?;
        let vocabulary = ModelFile {
            path: merges.path.with_file_name("vocab.json"),
            bytes: clip_vocabulary(lines).into_bytes(),
        };
        Ok((vocabulary, merges))
    }

    /// T5's `tokenizer.json`. Each call decompresses it again.
    ///
    /// # Errors
    /// The text in the binary is damaged.
    pub fn t5_json() -> Result<ModelFile> {
        Self::T5.file("tokenizer.json", &T5_TOKENIZER)
    }

    fn file(self, name: &str, compressed: &Compressed) -> Result<ModelFile> {
        let path = self.shown_path().join(name);
        match compressed.decompressed() {
            Ok(bytes) => Ok(ModelFile { path, bytes }),
            Err(reason) => Err(Error::BadText { file: path, reason }),
        }
    }

    /// The identity of the tokenizer: its name with the padding, and the digest of its compressed vocabulary.
    pub fn identity(self) -> FileIdentity {
        let compressed = match self {
            Self::Clip(_) => CLIP_MERGES,
            Self::T5 => T5_TOKENIZER,
        };
        FileIdentity::of_bytes(self.name(), compressed.bytes)
    }

    /// What messages show in place of a folder.
    pub(super) fn shown_path(self) -> PathBuf {
        PathBuf::from(self.name())
    }

    const fn name(self) -> &'static str {
        match self {
            Self::Clip(ClipPadding::EndOfText) => "built-in CLIP tokenizer",
            Self::Clip(ClipPadding::Exclamation) => "built-in CLIP tokenizer padded with `!`",
            Self::T5 => "built-in T5 tokenizer",
        }
    }
}

impl Compressed {
    /// The decompressed text, or why there is none.
    fn decompressed(&self) -> std::result::Result<Vec<u8>, String> {
        let mut text = Vec::with_capacity(self.length as usize);
        let read = ZlibDecoder::new(self.bytes)
            .take(self.length + 1)
            .read_to_end(&mut text)
            .map_err(|error| error.to_string())?;
        if read as u64 != self.length {
            return Err(format!("it has {read} bytes, not {}", self.length));
        }
        Ok(text)
    }
}

/// CLIP's `vocab.json`. The ids are, in this order, those of the letters that stand for the 256 bytes, of the same
/// at the end of a word, of what each line of `merges` gives, and of the special tokens.
fn clip_vocabulary(merges: &str) -> String {
    let mut json = String::with_capacity(CLIP_VOCABULARY_BYTES);
    let mut count = 0;
    let mut add = |token: &[&str]| {
        json.push_str(if count == 0 { "{\"" } else { ",\"" });
        for letter in token.iter().flat_map(|part| part.chars()) {
            // The only letters of the vocabulary that JSON escapes.
            if matches!(letter, '"' | '\\') {
                json.push('\\');
            }
            json.push(letter);
        }
        json.push_str("\":");
        json.push_str(&count.to_string());
        count += 1;
    };
    for end in ["", END_OF_WORD] {
        for letter in byte_letters() {
            add(&[letter.encode_utf8(&mut [0; 4]), end]);
        }
    }
    for (left, right) in merges.lines().filter_map(|line| line.split_once(' ')) {
        add(&[left, right]);
    }
    for token in CLIP_SPECIAL {
        add(&[token]);
    }
    json.push('}');
    json
}

/// The letters that stand for the 256 bytes, in the order of their ids: first the bytes that are printable in
/// Latin-1, as themselves, then the others as the letters from U+0100 on. From GPT-2's byte-level encoding.
fn byte_letters() -> impl Iterator<Item = char> {
    let printable = ('!'..='~').chain('\u{a1}'..='\u{ac}').chain('\u{ae}'..='\u{ff}');
    let others = ('\u{100}'..).take(256 - printable.clone().count());
    printable.chain(others)
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    const ALL: [BuiltInTokenizer; 3] = [
        BuiltInTokenizer::Clip(ClipPadding::EndOfText),
        BuiltInTokenizer::Clip(ClipPadding::Exclamation),
        BuiltInTokenizer::T5,
    ];

    #[test]
    fn plans_count_more_than_the_texts() {
        let (vocab, merges) = BuiltInTokenizer::clip_byte_pairs().unwrap();
        assert_eq!(vocab.bytes.len(), CLIP_VOCABULARY_BYTES);
        let clip = (vocab.bytes.len() + merges.bytes.len()) as u64;
        let t5 = BuiltInTokenizer::t5_json().unwrap().bytes.len() as u64;
        for (counted, bytes) in ALL
            .map(BuiltInTokenizer::vocabulary_bytes)
            .into_iter()
            .zip([clip, clip, t5])
        {
            assert!(counted > bytes);
        }
    }

    #[test]
    fn clip_has_a_different_token_at_every_id() {
        for padding in [ClipPadding::EndOfText, ClipPadding::Exclamation] {
            let tokenizer = BuiltInTokenizer::Clip(padding);
            let (vocab, merges) = BuiltInTokenizer::clip_byte_pairs().unwrap();
            let ids: HashMap<String, u32> = vocab.json().unwrap();
            let special = tokenizer.special_ids();
            assert_eq!(ids.len(), special.count);
            assert_eq!(ids[padding.token()], special.padding);
            assert_eq!(Some(ids["<|startoftext|>"]), special.start);
            assert_eq!(ids["<|endoftext|>"], special.end);
            // From OpenAI's own tokenizer: a photo of a cat.
            for (word, id) in [("a", 320), ("photo", 1125), ("of", 539), ("cat", 2368)] {
                assert_eq!(ids[&format!("{word}</w>")], id, "{word}");
            }
            for line in std::str::from_utf8(&merges.bytes).unwrap().lines() {
                let (left, right) = line.split_once(' ').unwrap();
                assert!(ids.contains_key(left) && ids.contains_key(right), "{line}");
                assert!(ids.contains_key(&format!("{left}{right}")), "{line}");
            }
        }
    }

    #[test]
    fn identities_differ() {
        let [clip, exclamation, t5] = ALL.map(BuiltInTokenizer::identity);
        assert_ne!(clip, exclamation);
        assert_ne!(clip, t5);
        assert_eq!(clip.modified, None);
        assert_eq!(clip.digest, exclamation.digest);
        assert_eq!(clip.length, CLIP_MERGES.bytes.len() as u64);
    }

    #[test]
    fn damaged_text_is_refused() {
        let refused = |bytes, length| Compressed { bytes, length }.decompressed().unwrap_err();
        let whole = CLIP_MERGES;
        assert!(!refused(&whole.bytes[..whole.bytes.len() / 2], whole.length).is_empty());
        assert!(refused(whole.bytes, whole.length - 1).contains("bytes, not"));
        assert!(refused(whole.bytes, whole.length + 1).contains("bytes, not"));
    }
}
