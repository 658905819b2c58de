//! A model's folder: named files on disk, or the same built into the binary.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::checkpoint::headers;
use crate::saved_name::{Begin, looked_for, looks_like_weights, weights_begin};
use crate::source::Source;
use crate::stored::Stored;
use crate::{Checkpoint, Error, Result};

/// The longest configuration that is believed: settings, and what an index says of shards. Those of the largest models
/// have a tenth.
const LONGEST_JSON: u64 = 4 << 20;
/// The longest text that is read whole: the vocabulary of a tokenizer. T5's has 2 MB.
const LONGEST_TEXT: u64 = 16 << 20;
/// More files than this are not looked through for weights.
const MAXIMUM_FILES: usize = 1 << 12;

/// One file of a folder that is built into the binary.
#[derive(Debug, Clone, Copy)]
pub struct EmbeddedFile {
    /// Its path inside the folder, with `/` between the parts.
    pub path: &'static str,
    /// Its bytes.
    pub bytes: &'static [u8],
    /// Their SHA-256 in hexadecimal digits, which is known when the binary is built.
    pub digest: &'static str,
}

/// A folder in the layout of diffusers: `model_index.json` and one folder a component.
#[derive(Debug, Clone)]
pub struct ModelFolder {
    root: PathBuf,
    /// The folder below the root that all files lie in, where only one of its folders is the model's.
    component: Option<String>,
    embedded: Option<&'static [EmbeddedFile]>,
}

/// Where a component's weights are, as a path inside the folder.
pub(crate) enum WeightsPlace {
    /// In this file.
    File(String),
    /// In the shards that this index lists.
    Index(String),
}

/// What an index says: which file of the component's folder holds each tensor.
#[derive(Deserialize)]
pub(crate) struct ShardIndex {
    pub(crate) weight_map: BTreeMap<String, String>,
}

/// What a network's configuration says of the form that its weights are saved in, as diffusers and transformers write it.
#[derive(Deserialize)]
struct QuantizationOf {
    quantization_config: Option<QuantizationSettings>,
}

#[derive(Deserialize)]
struct QuantizationSettings {
    quant_method: Option<String>,
    #[serde(default)]
    load_in_4bit: bool,
    #[serde(default)]
    load_in_8bit: bool,
}

impl QuantizationSettings {
    /// The method's name, with its bits where they are told.
    fn method(&self) -> String {
        let name = self.quant_method.as_deref().unwrap_or("a method without a name");
        match (self.load_in_4bit, self.load_in_8bit) {
            (true, _) => format!("{name} in 4 bits"),
            (_, true) => format!("{name} in 8 bits"),
            _ => name.to_owned(),
        }
    }
}

impl ModelFolder {
    /// The folder at `root`. Nothing is read yet.
    pub fn on_disk(root: impl Into<PathBuf>) -> Self {
        Self {
            root: root.into(),
            component: None,
            embedded: None,
        }
    }

    /// The folder around the network in `folder`, and what the network's folder is called there. Nothing else is read of
    /// the outer folder.
    pub fn around(folder: &Path) -> (Self, String) {
        // `.` and `..` are names of no folder.
        let named = folder.file_name().map(|_| folder.to_owned());
        let folder = named.unwrap_or_else(|| folder.canonicalize().unwrap_or(folder.to_owned()));
        let name = folder.file_name().unwrap_or(folder.as_os_str());
        let name = name.to_string_lossy().into_owned();
        let folder = Self {
            root: folder.parent().unwrap_or(Path::new("")).to_owned(),
            component: Some(name.clone()),
            embedded: None,
        };
        (folder, name)
    }

    /// A folder built into the binary, called `name` in messages.
    pub fn embedded(name: &str, files: &'static [EmbeddedFile]) -> Self {
        Self {
            root: PathBuf::from(name),
            component: None,
            embedded: Some(files),
        }
    }

    /// The folder's place, or the name of an embedded one.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Whether the folder is built into the binary.
    pub fn is_embedded(&self) -> bool {
        self.embedded.is_some()
    }

    /// Whether the folder has a file at `path`.
    pub fn contains(&self, path: &str) -> bool {
        match self.embedded {
            Some(files) => files.iter().any(|file| file.path == path),
            None => self.root.join(path).is_file(),
        }
    }

    /// How many bytes the file at `path` has, or none where it is not there.
    pub fn length(&self, path: &str) -> u64 {
        match self.embedded {
            Some(files) => files
                .iter()
                .find(|file| file.path == path)
                .map_or(0, |file| file.bytes.len() as u64),
            None => std::fs::metadata(self.root.join(path)).map_or(0, |metadata| metadata.len()),
        }
    }

    /// The whole of a small file, as bytes: at most 16 MB.
    ///
    /// # Errors
    /// The file is missing, too long, or cannot be read.
    pub fn bytes(&self, path: &str) -> Result<Vec<u8>> {
        self.bytes_at_most(path, LONGEST_TEXT)
    }

    fn bytes_at_most(&self, path: &str, limit: u64) -> Result<Vec<u8>> {
        let source = self.source(path)?;
        if source.length() > limit {
            return Err(Error::Read {
                file: source.path().to_owned(),
                source: sd_files::Unreadable::TooLong { limit }.into(),
            });
        }
        let mut bytes = vec![0; source.length() as usize];
        source.read_at(0, &mut bytes)?;
        Ok(bytes)
    }

    /// A JSON file of at most 4 MB as a `T`.
    ///
    /// # Errors
    /// The file is missing, too long, cannot be read, or is not the JSON of a `T`.
    pub fn json<T: DeserializeOwned>(&self, path: &str) -> Result<T> {
        serde_json::from_slice(&self.bytes_at_most(path, LONGEST_JSON)?).map_err(|error| Error::BadText {
            file: self.root.join(path),
            reason: error.to_string(),
        })
    }

    /// The weights of `component` (the folder `transformer`, say), by their headers alone: one file under
    /// one of its usual names, or the shards that an index lists.
    ///
    /// # Errors
    /// There are no weights, they are quantised by a method that is not read, or a header is wrong.
    pub fn checkpoint(&self, component: &str) -> Result<Checkpoint> {
        self.check_quantization(component)?;
        match self.find_weights(component)? {
            WeightsPlace::File(path) => Checkpoint::open(self.source(&path)?),
            WeightsPlace::Index(path) => self.sharded(component, &path),
        }
    }

    /// Opens the shards that `index` lists: `weight_map` says for every tensor which file holds it.
    fn sharded(&self, component: &str, index: &str) -> Result<Checkpoint> {
        let index: ShardIndex = self.json(index)?;
        let mut shards = BTreeMap::new();
        let mut tensors = BTreeMap::new();
        for (tensor, shard) in index.weight_map {
            if !shards.contains_key(&shard) {
                let source = self.source(&format!("{component}/{shard}"))?;
                let headers = headers(&source)?;
                shards.insert(shard.clone(), (source, headers));
            }
            let (source, headers) = &shards[&shard];
            let Some(header) = headers.get(&tensor) else {
                return Err(Error::MissingFromShard {
                    file: source.path().to_owned(),
                    tensor,
                });
            };
            tensors.insert(
                tensor,
                Stored {
                    header: header.clone(),
                    source: source.clone(),
                    saved_as: None,
                },
            );
        }
        Ok(Checkpoint::of_tensors(self.root.join(component), tensors))
    }

    pub(crate) fn find_weights(&self, component: &str) -> Result<WeightsPlace> {
        let names = self.names(component);
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let inside = |name: &str| format!("{component}/{name}");
        match weights_begin(&names) {
            Some(Begin::File(name)) => Ok(WeightsPlace::File(inside(name))),
            Some(Begin::Index(name)) => Ok(WeightsPlace::Index(inside(name))),
            None => Err(Error::MissingWeights {
                folder: self.root.join(component),
                tried: looked_for(),
                others: names
                    .into_iter()
                    .filter(|name| looks_like_weights(name))
                    .map(str::to_owned)
                    .collect(),
            }),
        }
    }

    /// The names of the files that lie in the folder of `component` itself, in order. None where it cannot be looked into.
    fn names(&self, component: &str) -> Vec<String> {
        let mut names: Vec<String> = match self.embedded {
            Some(files) => {
                let name = |file: &EmbeddedFile| file.path.strip_prefix(component)?.strip_prefix('/');
                let names = files.iter().filter_map(name).filter(|name| !name.contains('/'));
                names.map(str::to_owned).collect()
            }
            None => {
                let place = self.root.join(component);
                let entries = std::fs::read_dir(&place).into_iter().flatten().flatten();
                let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
                names
                    .take(MAXIMUM_FILES)
                    .filter(|name| place.join(name).is_file())
                    .collect()
            }
        };
        names.sort_unstable();
        names
    }

    /// Refuses weights whose configuration says that they are quantised: no such method is read. What is wrong with the
    /// configuration itself is told when it is read.
    fn check_quantization(&self, component: &str) -> Result<()> {
        let path = format!("{component}/config.json");
        if !self.contains(&path) {
            return Ok(());
        }
        match self.json::<QuantizationOf>(&path) {
            Ok(QuantizationOf {
                quantization_config: Some(settings),
            }) => Err(Error::Quantized {
                file: self.root.join(path),
                method: settings.method(),
            }),
            _ => Ok(()),
        }
    }

    pub(crate) fn source(&self, path: &str) -> Result<Arc<Source>> {
        let place = self.root.join(path);
        let source = match self.embedded {
            Some(files) => match files.iter().find(|file| file.path == path) {
                Some(file) => Source::Embedded {
                    path: place,
                    bytes: file.bytes,
                    digest: file.digest,
                },
                None => return Err(Error::MissingFile { file: place }),
            },
            None => {
                self.check_place(path, &place)?;
                Source::open(place)?
            }
        };
        Ok(Arc::new(source))
    }

    /// Refuses what lies somewhere else than in the model's folder: an index can name any path, and a link lead anywhere.
    fn check_place(&self, path: &str, place: &Path) -> Result<()> {
        let outside = |target: PathBuf| Error::OutsideFolder {
            file: place.to_owned(),
            target,
        };
        if !sd_files::stays_inside(path) {
            return Err(outside(PathBuf::from(path)));
        }
        let own = match &self.component {
            Some(component) => self.root.join(component),
            None => self.root.clone(),
        };
        match sd_files::outside_of(&own, place) {
            Ok(Some(target)) => Err(outside(target)),
            // What is not there is told where it is opened.
            Ok(None) | Err(_) => Ok(()),
        }
    }
}
