//! Files of textual inversion: vectors that stand in a prompt for a word.
//!
//! Gal et al., "An Image is Worth One Word: Personalizing Text-to-Image Generation using Textual Inversion", 2022.
//! A file has the vectors of one word for one text encoder, or for both CLIPs of Stable Diffusion XL. The layouts
//! are those that stable-diffusion-webui and diffusers read.

use std::path::Path;
use std::sync::Arc;

use crate::source::Source;
use crate::{Checkpoint, Error, FileIdentity, ModelPart, Result};

/// The most vectors of a word: CLIP's context without its start and end tokens.
const MOST_VECTORS: usize = 75;
/// The tensor of kohya's trainers and of stable-diffusion-webui's safetensors files.
const PARAMETERS: &str = "emb_params";
/// What precedes the name of the tensor in stable-diffusion-webui's `.pt` files.
const STRING_TO_PARAM: &str = "string_to_param.";
/// The tensors of files for Stable Diffusion XL, with the text encoders that they are for.
const OF_BOTH_CLIPS: [(&str, ModelPart); 2] = [
    ("clip_l", ModelPart::TextEncoder),
    ("clip_g", ModelPart::TextEncoder2),
];

/// A file of textual inversion, of which only the header was read.
#[derive(Debug)]
pub struct EmbeddingFile {
    source: Arc<Source>,
    checkpoint: Checkpoint,
    /// The word that the file itself names.
    word: Option<String>,
    tensors: Vec<Vectors>,
}

/// The vectors for one text encoder.
#[derive(Debug)]
struct Vectors {
    /// The text encoder; `None` in a file for a model with one.
    part: Option<ModelPart>,
    name: String,
    /// How many there are.
    count: usize,
    /// The features of each.
    width: usize,
}

impl EmbeddingFile {
    /// Opens the file at `path`, in safetensors or PyTorch format. No vector is read.
    ///
    /// # Errors
    /// The file is missing or not a weights file; its tensors have none of the known names
    /// ([`Error::NotEmbedding`]); or a tensor is not a list of vectors ([`Error::BadEmbedding`]).
    pub fn open(path: &Path) -> Result<Self> {
        let source = Arc::new(Source::open(path.to_owned())?);
        let checkpoint = Checkpoint::open(source.clone())?;
        let names: Vec<&str> = checkpoint.tensors().map(|(name, _)| name).collect();
        let of_both: Vec<_> = OF_BOTH_CLIPS
            .into_iter()
            .filter(|(name, _)| names.contains(name))
            .map(|(name, part)| (name, Some(part)))
            .collect();
        let of_webui: Vec<&str> = names
            .iter()
            .copied()
            .filter(|name| name.starts_with(STRING_TO_PARAM))
            .collect();
        let mut word = None;
        let chosen = match (of_webui.as_slice(), names.as_slice()) {
            _ if !of_both.is_empty() => of_both,
            _ if names.contains(&PARAMETERS) => vec![(PARAMETERS, None)],
            ([name], _) => vec![(*name, None)],
            // diffusers names the tensor by the word.
            ([], [name]) => {
                word = Some((*name).to_owned());
                vec![(*name, None)]
            }
            _ => {
                return Err(Error::NotEmbedding {
                    file: path.to_owned(),
                    tensors: names.len(),
                });
            }
        };
        let tensors = chosen
            .into_iter()
            .map(|(name, part)| Vectors::new(&checkpoint, name, part))
            .collect::<Result<_>>()?;
        Ok(Self {
            source,
            word,
            tensors,
            checkpoint,
        })
    }

    /// The path of the file.
    pub fn path(&self) -> &Path {
        self.source.path()
    }

    /// The word that the file itself names, such as `<cat-toy>`. Of other files the name is the word.
    pub fn word(&self) -> Option<&str> {
        self.word.as_deref()
    }

    /// Checks that the file has vectors of the right width for each of `encoders`, the CLIPs of a model with
    /// the features of their tokens.
    ///
    /// # Errors
    /// It has not ([`Error::EmbeddingDoesNotFit`]).
    pub fn check(&self, encoders: &[(ModelPart, usize)]) -> Result<()> {
        let refuse = |found: String, wanted: String| {
            Err(Error::EmbeddingDoesNotFit {
                file: self.path().to_owned(),
                found,
                wanted,
            })
        };
        for &(part, width) in encoders {
            let wanted = format!("{width} features for {part:?}");
            match self.of(part) {
                Some(vectors) if vectors.part.is_none() && encoders.len() > 1 => {
                    return refuse(
                        "vectors for one text encoder".to_owned(),
                        format!("vectors for {}", encoders.len()),
                    );
                }
                Some(vectors) if vectors.width != width => {
                    return refuse(format!("vectors of {} features", vectors.width), wanted);
                }
                Some(_) => {}
                None => return refuse("none".to_owned(), wanted),
            }
        }
        Ok(())
    }

    /// How many vectors there are for the text encoder `part`.
    pub fn count(&self, part: ModelPart) -> usize {
        self.of(part).map_or(0, |vectors| vectors.count)
    }

    /// The vectors for the text encoder `part`, one after another.
    ///
    /// # Errors
    /// The file cannot be read, or a value is not finite ([`Error::BadEmbedding`]).
    pub fn read(&self, part: ModelPart) -> Result<Vec<f32>> {
        let Some(vectors) = self.of(part) else {
            return Ok(Vec::new());
        };
        self.checkpoint.check_unchanged()?;
        let mut values = vec![0.0; vectors.count * vectors.width];
        self.checkpoint.read_floats(&vectors.name, &mut values)?;
        match values.iter().all(|value| value.is_finite()) {
            true => Ok(values),
            false => Err(Error::BadEmbedding {
                file: self.path().to_owned(),
                tensor: vectors.name.clone(),
                reason: "has a value that is not finite".to_owned(),
            }),
        }
    }

    /// The first twelve digits of the file's SHA-256, by which other programs identify it.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn hash(&self) -> Result<String> {
        const DIGITS: usize = 12;
        let mut digest = FileIdentity::sha256(&self.source)?;
        digest.truncate(DIGITS);
        Ok(digest)
    }

    fn of(&self, part: ModelPart) -> Option<&Vectors> {
        self.tensors
            .iter()
            .find(|vectors| vectors.part.is_none_or(|of| of == part))
    }
}

impl Vectors {
    fn new(checkpoint: &Checkpoint, name: &str, part: Option<ModelPart>) -> Result<Self> {
        let bad = |reason: String| Error::BadEmbedding {
            file: checkpoint.place().to_owned(),
            tensor: name.to_owned(),
            reason,
        };
        let shape = checkpoint
            .header(name)
            .map_or(&[][..], |header| header.shape.as_slice());
        let (count, width) = match *shape {
            [width] => (1, width),
            [count, width] => (count, width),
            _ => {
                return Err(bad(format!(
                    "has the shape {shape:?}, not that of a list of vectors"
                )));
            }
        };
        if !(1..=MOST_VECTORS).contains(&count) || width == 0 {
            return Err(bad(format!(
                "has {count} vectors of {width} features; from 1 to {MOST_VECTORS} vectors are possible"
            )));
        }
        checkpoint.check(name, shape)?;
        Ok(Self {
            part,
            name: name.to_owned(),
            count,
            width,
        })
    }
}
