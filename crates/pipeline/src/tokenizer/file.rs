//! `tokenizer.json`, of which only what the tokenizers of Stable Diffusion are made of is taken: CLIP's pair encoding and
//! T5's unigrams, with their normalizers, splitters and templates.
//!
//! The `tokenizers` crate knows many more components and trusts their settings: some make it panic, others take time or
//! memory without bound. So the file is read into the types below, its settings are checked, and the components are made
//! of these; the crate never sees the file. What the file says of truncation, padding and decoding is not read.

use std::fmt;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde::de::{Deserializer, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, de};
use std::collections::HashMap;
use tokenizers::models::bpe::BPE;
use tokenizers::models::unigram::Unigram;
use tokenizers::normalizers::replace::ReplacePattern;
use tokenizers::normalizers::{
    Lowercase, NFC, NFD, NFKC, NFKD, Nmt, Precompiled, Replace, Sequence as Normalizers, Strip,
};
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::pre_tokenizers::metaspace::{Metaspace, PrependScheme};
use tokenizers::pre_tokenizers::sequence::Sequence as PreTokenizers;
use tokenizers::pre_tokenizers::split::{Split, SplitPattern};
use tokenizers::pre_tokenizers::whitespace::{Whitespace, WhitespaceSplit};
use tokenizers::processors::bert::BertProcessing;
use tokenizers::processors::roberta::RobertaProcessing;
use tokenizers::processors::template::{Template, TemplateProcessing};
use tokenizers::{
    AddedToken, ModelWrapper, NormalizerWrapper, PreTokenizerWrapper, SplitDelimiterBehavior, Tokenizer,
};

use super::WORDS_REMEMBERED;
use super::charsmap;

/// The most tokens that a vocabulary is believed to have, and one more than the largest id.
const MOST_TOKENS: usize = 1 << 20;
/// The most tokens that stand beside the vocabulary, and the longest of them: T5 has about a hundred.
const MOST_ADDED: usize = 1 << 12;
const LONGEST_ADDED: usize = 1 << 8;
/// The most normalizers or splitters one after another.
const MOST_STEPS: usize = 16;
/// The longest pattern.
const LONGEST_PATTERN: usize = 1 << 9;

/// Why a file cannot be used.
type Refusal = String;

/// The tokenizer that the text of a `tokenizer.json` describes.
///
/// # Errors
/// It is not JSON, has a part that no tokenizer of Stable Diffusion has, or a setting that cannot be.
pub(super) fn tokenizer(json: &[u8]) -> Result<Tokenizer, Refusal> {
    let file: File = serde_json::from_slice(json).map_err(|error| error.to_string())?;
    file.build()
}

#[derive(Deserialize)]
struct File {
    #[serde(default)]
    added_tokens: Vec<Added>,
    normalizer: Option<Normalizer>,
    pre_tokenizer: Option<PreTokenizer>,
    post_processor: Option<PostProcessor>,
    model: Model,
}

#[derive(Deserialize)]
struct Added {
    content: String,
    single_word: bool,
    lstrip: bool,
    rstrip: bool,
    normalized: bool,
    special: bool,
}

#[derive(Deserialize)]
#[serde(tag = "type")]
enum Normalizer {
    Sequence {
        normalizers: Vec<Self>,
    },
    Precompiled {
        precompiled_charsmap: String,
    },
    Replace {
        pattern: Pattern,
        content: String,
    },
    Strip {
        strip_left: bool,
        strip_right: bool,
    },
    Lowercase,
    Nmt,
    #[allow(clippy::upper_case_acronyms)]
    NFC,
    #[allow(clippy::upper_case_acronyms)]
    NFD,
    #[allow(clippy::upper_case_acronyms)]
    NFKC,
    #[allow(clippy::upper_case_acronyms)]
    NFKD,
}

#[derive(Deserialize)]
enum Pattern {
    String(String),
    Regex(String),
}

#[derive(Deserialize)]
#[serde(tag = "type")]
enum PreTokenizer {
    Sequence {
        pretokenizers: Vec<Self>,
    },
    Split {
        pattern: Pattern,
        behavior: SplitDelimiterBehavior,
        invert: bool,
    },
    ByteLevel {
        add_prefix_space: bool,
        trim_offsets: bool,
        #[serde(default = "yes")]
        use_regex: bool,
    },
    Whitespace,
    WhitespaceSplit,
    Metaspace {
        replacement: char,
        add_prefix_space: Option<bool>,
        prepend_scheme: Option<Prepend>,
        split: Option<bool>,
    },
}

#[derive(Deserialize, Clone, Copy, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
enum Prepend {
    First,
    Never,
    Always,
}

#[derive(Deserialize)]
#[serde(tag = "type")]
#[expect(clippy::enum_variant_names, reason = "the names are those of the file")]
enum PostProcessor {
    RobertaProcessing {
        sep: (String, u32),
        cls: (String, u32),
        #[serde(default = "yes")]
        trim_offsets: bool,
        #[serde(default = "yes")]
        add_prefix_space: bool,
    },
    BertProcessing {
        sep: (String, u32),
        cls: (String, u32),
    },
    TemplateProcessing {
        single: Vec<Piece>,
        special_tokens: HashMap<String, SpecialToken>,
    },
}

#[derive(Deserialize)]
enum Piece {
    Sequence { id: String },
    SpecialToken { id: String },
}

#[derive(Deserialize)]
struct SpecialToken {
    ids: Vec<u32>,
    tokens: Vec<String>,
}

#[derive(Deserialize)]
struct Model {
    /// Older files leave it out; then the vocabulary tells.
    #[serde(rename = "type")]
    kind: Option<String>,
    vocab: Vocabulary,
    merges: Option<Vec<Merge>>,
    unk_id: Option<usize>,
    unk_token: Option<String>,
    dropout: Option<f32>,
    continuing_subword_prefix: Option<String>,
    end_of_word_suffix: Option<String>,
    #[serde(default)]
    fuse_unk: bool,
    #[serde(default)]
    byte_fallback: bool,
    #[serde(default)]
    ignore_merges: bool,
}

/// Tokens with their ids, or in the order of their ids with how likely they are.
enum Vocabulary {
    Ids(HashMap<String, u32>),
    Scores(Vec<(String, f64)>),
}

/// Two tokens that become one.
#[derive(Deserialize)]
#[serde(untagged)]
enum Merge {
    Pair(String, String),
    Spaced(String),
}

fn yes() -> bool {
    true
}

impl<'de> Deserialize<'de> for Vocabulary {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Tokens;
        impl<'de> Visitor<'de> for Tokens {
            type Value = Vocabulary;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("a vocabulary")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Vocabulary, A::Error> {
                let mut tokens = HashMap::new();
                while let Some((token, id)) = entries.next_entry::<String, u32>()? {
                    check_token::<A::Error>(&token, tokens.len())?;
                    if id as usize >= MOST_TOKENS {
                        return Err(de::Error::custom(format!("the id {id} is too large")));
                    }
                    tokens.insert(token, id);
                }
                Ok(Vocabulary::Ids(tokens))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut entries: A) -> Result<Vocabulary, A::Error> {
                let mut tokens = Vec::new();
                while let Some((token, score)) = entries.next_element::<(String, f64)>()? {
                    check_token::<A::Error>(&token, tokens.len())?;
                    if !score.is_finite() {
                        return Err(de::Error::custom(format!("the score {score} is no number")));
                    }
                    tokens.push((token, score));
                }
                Ok(Vocabulary::Scores(tokens))
            }
        }
        deserializer.deserialize_any(Tokens)
    }
}

fn check_token<E: de::Error>(token: &str, before: usize) -> Result<(), E> {
    if token.is_empty() {
        return Err(E::custom("a token is empty"));
    }
    if before == MOST_TOKENS {
        return Err(E::custom(format!("it has more than {MOST_TOKENS} tokens")));
    }
    Ok(())
}

impl File {
    fn build(self) -> Result<Tokenizer, Refusal> {
        let mut tokenizer = Tokenizer::new(self.model.build()?);
        let said = |error: tokenizers::Error| error.to_string();
        let normalizer = self
            .normalizer
            .map(|normalizer| normalizer.build(&mut MOST_STEPS.into()));
        tokenizer.with_normalizer(normalizer.transpose()?).map_err(said)?;
        let pre_tokenizer = self
            .pre_tokenizer
            .map(|splitter| splitter.build(&mut MOST_STEPS.into()));
        tokenizer.with_pre_tokenizer(pre_tokenizer.transpose()?);
        if self.added_tokens.len() > MOST_ADDED {
            return Err(format!("it has {} added_tokens", self.added_tokens.len()));
        }
        let added = self.added_tokens.into_iter().map(Added::build);
        tokenizer
            .add_tokens(added.collect::<Result<Vec<_>, _>>()?)
            .map_err(said)?;
        if let Some(processor) = self.post_processor {
            processor.add_to(&mut tokenizer)?;
        }
        Ok(tokenizer)
    }
}

impl Added {
    fn build(self) -> Result<AddedToken, Refusal> {
        if !(1..=LONGEST_ADDED).contains(&self.content.len()) {
            return Err(format!("an added token has {} bytes", self.content.len()));
        }
        Ok(AddedToken::from(self.content, self.special)
            .single_word(self.single_word)
            .lstrip(self.lstrip)
            .rstrip(self.rstrip)
            .normalized(self.normalized))
    }
}

/// How many steps there may still be.
struct Steps(usize);

impl From<usize> for Steps {
    fn from(steps: usize) -> Self {
        Self(steps)
    }
}

impl Steps {
    fn take(&mut self) -> Result<(), Refusal> {
        self.0 = self
            .0
            .checked_sub(1)
            .ok_or_else(|| format!("it has more than {MOST_STEPS} steps one after another"))?;
        Ok(())
    }
}

impl Normalizer {
    fn build(self, steps: &mut Steps) -> Result<NormalizerWrapper, Refusal> {
        steps.take()?;
        Ok(match self {
            Self::Sequence { normalizers } => {
                let normalizers = normalizers.into_iter().map(|normalizer| normalizer.build(steps));
                NormalizerWrapper::Sequence(Normalizers::new(normalizers.collect::<Result<_, _>>()?))
            }
            Self::Precompiled { precompiled_charsmap } => {
                let bytes = BASE64_STANDARD
                    .decode(precompiled_charsmap)
                    .map_err(|error| format!("its precompiled_charsmap is not base64 ({error})"))?;
                charsmap::check(&bytes)?;
                let precompiled = Precompiled::from(&bytes);
                NormalizerWrapper::Precompiled(precompiled.map_err(|error| error.to_string())?)
            }
            Self::Replace { pattern, content } => {
                // So that no number of them makes a text longer, in characters.
                if content.chars().count() > 1 {
                    return Err(format!(
                        "it replaces a pattern by `{content}`, which is more than a character"
                    ));
                }
                let replace = Replace::new(ReplacePattern::from(pattern.checked()?), content);
                NormalizerWrapper::Replace(replace.map_err(|error| error.to_string())?)
            }
            Self::Strip {
                strip_left,
                strip_right,
            } => NormalizerWrapper::StripNormalizer(Strip::new(strip_left, strip_right)),
            Self::Lowercase => NormalizerWrapper::Lowercase(Lowercase),
            Self::Nmt => NormalizerWrapper::Nmt(Nmt),
            Self::NFC => NormalizerWrapper::NFC(NFC),
            Self::NFD => NormalizerWrapper::NFD(NFD),
            Self::NFKC => NormalizerWrapper::NFKC(NFKC),
            Self::NFKD => NormalizerWrapper::NFKD(NFKD),
        })
    }
}

impl Pattern {
    /// The same, where it is found in a time that grows with the text alone, and never finds nothing.
    fn checked(self) -> Result<Self, Refusal> {
        let (Self::String(text) | Self::Regex(text)) = &self;
        if !(1..=LONGEST_PATTERN).contains(&text.len()) {
            return Err(format!("a pattern has {} bytes", text.len()));
        }
        match &self {
            Self::Regex(text) if !is_simple(text) => Err(format!(
                "the pattern `{text}` is not one of the kinds that are known"
            )),
            _ => Ok(self),
        }
    }
}

impl From<Pattern> for ReplacePattern {
    fn from(pattern: Pattern) -> Self {
        match pattern {
            Pattern::String(text) => Self::String(text),
            Pattern::Regex(text) => Self::Regex(text),
        }
    }
}

impl From<Pattern> for SplitPattern {
    fn from(pattern: Pattern) -> Self {
        match pattern {
            Pattern::String(text) => Self::String(text),
            Pattern::Regex(text) => Self::Regex(text),
        }
    }
}

/// Whether a regular expression has alternatives of classes and letters, and repeats nothing but those: no groups, nothing
/// that looks around or back, and nothing that may be absent. All that tokenizers of CLIP and T5 split with is of this kind.
fn is_simple(pattern: &str) -> bool {
    let mut letters = pattern.chars().peekable();
    while let Some(letter) = letters.next() {
        let known = match letter {
            '(' | ')' | '?' | '*' | '^' | '$' => false,
            '\\' => match letters.next() {
                // A class by its name: `\p{L}`.
                Some('p' | 'P') => {
                    letters.next() == Some('{') && letters.by_ref().any(|letter| letter == '}')
                }
                Some(letter) => "sSdDwWrntfv".contains(letter) || letter.is_ascii_punctuation(),
                None => false,
            },
            // So many, or at least so many: ` {2,}`.
            '{' => {
                let count: String = letters.by_ref().take_while(|letter| *letter != '}').collect();
                let (least, most) = count.split_once(',').unwrap_or((&count, ""));
                let is_small = |text: &str| text.parse().is_ok_and(|count: u8| (1..=16).contains(&count));
                is_small(least) && (most.is_empty() || is_small(most))
            }
            _ => true,
        };
        if !known {
            // Within a class these letters are letters.
            return false;
        }
        if letter == '[' {
            // What stands in a class, up to its end, is letters and names of classes.
            if letters.peek() == Some(&'^') {
                letters.next();
            }
            let mut is_closed = false;
            while let Some(letter) = letters.next() {
                match letter {
                    ']' => {
                        is_closed = true;
                        break;
                    }
                    '[' | '&' | '~' => return false,
                    '\\' => drop(letters.next()),
                    _ => {}
                }
            }
            if !is_closed {
                return false;
            }
        }
    }
    // An alternative without anything would find nothing everywhere.
    !pattern.split('|').any(str::is_empty)
}

impl PreTokenizer {
    fn build(self, steps: &mut Steps) -> Result<PreTokenizerWrapper, Refusal> {
        steps.take()?;
        Ok(match self {
            Self::Sequence { pretokenizers } => {
                let splitters = pretokenizers.into_iter().map(|splitter| splitter.build(steps));
                PreTokenizerWrapper::Sequence(PreTokenizers::new(splitters.collect::<Result<_, _>>()?))
            }
            Self::Split {
                pattern,
                behavior,
                invert,
            } => {
                let split = Split::new(SplitPattern::from(pattern.checked()?), behavior, invert);
                PreTokenizerWrapper::Split(split.map_err(|error| error.to_string())?)
            }
            Self::ByteLevel {
                add_prefix_space,
                trim_offsets,
                use_regex,
            } => PreTokenizerWrapper::ByteLevel(ByteLevel::new(add_prefix_space, trim_offsets, use_regex)),
            Self::Whitespace => PreTokenizerWrapper::Whitespace(Whitespace),
            Self::WhitespaceSplit => PreTokenizerWrapper::WhitespaceSplit(WhitespaceSplit),
            Self::Metaspace {
                replacement,
                add_prefix_space,
                prepend_scheme,
                split,
            } => {
                let scheme = match (add_prefix_space, prepend_scheme.unwrap_or(Prepend::Always)) {
                    (Some(false), _) | (_, Prepend::Never) => PrependScheme::Never,
                    (_, Prepend::First) => PrependScheme::First,
                    (_, Prepend::Always) => PrependScheme::Always,
                };
                PreTokenizerWrapper::Metaspace(Metaspace::new(replacement, scheme, split.unwrap_or(true)))
            }
        })
    }
}

impl PostProcessor {
    /// Has `tokenizer` put special tokens around a text, which its vocabulary must have.
    fn add_to(self, tokenizer: &mut Tokenizer) -> Result<(), Refusal> {
        let known = |(token, id): (String, u32)| match tokenizer.token_to_id(&token) {
            Some(found) if found == id => Ok((token, id)),
            _ => Err(format!(
                "its post_processor has a token `{token}` of id {id}, its vocabulary has not"
            )),
        };
        match self {
            Self::RobertaProcessing {
                sep,
                cls,
                trim_offsets,
                add_prefix_space,
            } => {
                let around = RobertaProcessing::new(known(sep)?, known(cls)?);
                let around = around
                    .trim_offsets(trim_offsets)
                    .add_prefix_space(add_prefix_space);
                tokenizer.with_post_processor(Some(around));
            }
            Self::BertProcessing { sep, cls } => {
                let around = BertProcessing::new(known(sep)?, known(cls)?);
                tokenizer.with_post_processor(Some(around));
            }
            Self::TemplateProcessing {
                single,
                mut special_tokens,
            } => {
                let mut template = Vec::with_capacity(single.len().min(3));
                let mut tokens = Vec::new();
                for piece in &single {
                    match piece {
                        Piece::Sequence { id } if id == "A" => template.push("$A".to_owned()),
                        Piece::Sequence { id } => return Err(format!("its template has a text `{id}`")),
                        Piece::SpecialToken { id } => {
                            let token = special_tokens.remove(id).and_then(SpecialToken::only);
                            let token = token.ok_or_else(|| {
                                format!("its template has a token `{id}`, which is not one token of its special_tokens")
                            })?;
                            let (token, id) = known(token)?;
                            template.push(token.clone());
                            tokens.push((token, id));
                        }
                    }
                }
                let texts = template.iter().filter(|piece| *piece == "$A").count();
                // Every tokenizer here puts at most one token before a text and one after it.
                let is_known =
                    texts == 1 && template.len() <= 3 && (template.len() < 3 || template[1] == "$A");
                let is_token = |piece: &String| piece == "$A" || !piece.starts_with('$');
                if !is_known || !template.iter().all(is_token) {
                    return Err(
                        "its template is not a text with a token before it and one after it".to_owned(),
                    );
                }
                let around = Template::try_from(template).and_then(|template| {
                    let mut builder = TemplateProcessing::builder();
                    let builder = builder.single(template).special_tokens(tokens);
                    builder.build().map_err(|error| error.to_string())
                })?;
                tokenizer.with_post_processor(Some(around));
            }
        }
        Ok(())
    }
}

impl SpecialToken {
    /// The token with its id, where it is one.
    fn only(self) -> Option<(String, u32)> {
        match (<[String; 1]>::try_from(self.tokens), self.ids.as_slice()) {
            (Ok([token]), [id]) => Some((token, *id)),
            _ => None,
        }
    }
}

impl Model {
    fn build(self) -> Result<ModelWrapper, Refusal> {
        if self.byte_fallback
            || self.ignore_merges
            || self.fuse_unk
            || self.dropout.is_some_and(|part| part != 0.0)
        {
            return Err(
                "its model has byte_fallback, ignore_merges, fuse_unk or dropout, which are not known"
                    .to_owned(),
            );
        }
        let usual = match &self.vocab {
            Vocabulary::Ids(_) => "BPE",
            Vocabulary::Scores(_) => "Unigram",
        };
        let kind = self.kind.as_deref().unwrap_or(usual);
        if kind != usual {
            return Err(format!(
                "its model is `{kind}` with the vocabulary of another; BPE and Unigram are known"
            ));
        }
        match self.vocab {
            Vocabulary::Ids(vocabulary) => {
                if self
                    .continuing_subword_prefix
                    .is_some_and(|prefix| !prefix.is_empty())
                {
                    return Err("its model has a continuing_subword_prefix, which CLIP has not".to_owned());
                }
                let merges = self.merges.unwrap_or_default().into_iter().map(Merge::pair);
                let vocabulary: tokenizers::models::bpe::Vocab = vocabulary.into_iter().collect();
                let mut builder = BPE::builder()
                    .vocab_and_merges(vocabulary, merges.collect::<Result<_, _>>()?)
                    .cache_capacity(WORDS_REMEMBERED);
                if let Some(suffix) = self.end_of_word_suffix {
                    builder = builder.end_of_word_suffix(suffix);
                }
                if let Some(unknown) = self.unk_token {
                    builder = builder.unk_token(unknown);
                }
                let model = builder.build().map_err(|error| error.to_string())?;
                Ok(ModelWrapper::BPE(model))
            }
            Vocabulary::Scores(vocabulary) => {
                if self.unk_id.is_none() {
                    return Err("its model has no unk_id, for what is not in its vocabulary".to_owned());
                }
                let model =
                    Unigram::from(vocabulary, self.unk_id, false).map_err(|error| error.to_string())?;
                Ok(ModelWrapper::Unigram(model))
            }
        }
    }
}

impl Merge {
    fn pair(self) -> Result<(String, String), Refusal> {
        match self {
            Self::Pair(left, right) => Ok((left, right)),
            Self::Spaced(text) => match text.split_once(' ') {
                Some((left, right)) => Ok((left.to_owned(), right.to_owned())),
                None => Err(format!("`{text}` is no pair of tokens")),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_of_tokenizers_are_simple_and_others_are_not() {
        for pattern in [
            r"\s+",
            " {2,}",
            r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+",
        ] {
            assert!(is_simple(pattern), "{pattern}");
        }
        for pattern in [
            "(a+)+", "a*", "a?", "a|", "|a", "(?=a)", r"\1", "^", "a{1000}", "a{0,}", r"\b", "[a",
            "[[a]&&b]", r"\p{", "\\",
        ] {
            assert!(!is_simple(pattern), "{pattern}");
        }
    }
}
