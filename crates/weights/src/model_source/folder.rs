//! A model in the layout of diffusers: one folder a component, on disk or built into the binary.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::saved_name::{Begin, looked_for, looks_like_weights, weights_begin};
use super::{MODEL_INDEX, ModelFile, ModelSource, SourcePart, TokenizerFiles, Vocabulary};
use crate::checkpoint::headers;
use crate::combine::combine;
use crate::source::Source;
use crate::stored::Stored;
use crate::{Checkpoint, Error, FileIdentity, Result};

/// The maximum length of a configuration or shard index. Those of the largest models have a tenth.
const LONGEST_JSON: u64 = 4 << 20;
/// The maximum length of other text files, such as the vocabulary of a tokenizer. That of T5 has 2 MB.
const LONGEST_TEXT: u64 = 16 << 20;
/// The files of a tokenizer that ids depend on.
const TOKENIZER_FILES: [&str; 5] = [
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "vocab.json",
    "merges.txt",
];
/// The files of a tokenizer that hold its vocabulary.
const VOCABULARY_FILES: [&str; 3] = ["vocab.json", "merges.txt", "tokenizer.json"];
/// The maximum number of files of a folder that are searched for weights.
const MAXIMUM_FILES: usize = 1 << 12;

/// A file that is built into the binary.
#[derive(Debug, Clone, Copy)]
pub struct EmbeddedFile {
    /// The path inside the folder, with `/` as separator.
    pub path: &'static str,
    /// The content.
    pub bytes: &'static [u8],
    /// The SHA-256 of the content in hexadecimal digits, computed when the binary is built.
    pub digest: &'static str,
}

/// A model in the layout of diffusers: `model_index.json` and one folder a component.
#[derive(Debug, Clone)]
pub struct ModelFolder {
    root: PathBuf,
    /// The only folder below the root that belongs to the model, where the model is a single component.
    component: Option<String>,
    embedded: Option<&'static [EmbeddedFile]>,
}

/// The weights of a component, as a path inside the folder.
enum WeightsPlace {
    /// One file.
    File(String),
    /// The index of shards.
    Index(String),
}

/// A shard index, which says which file of the component holds each tensor.
#[derive(Deserialize)]
struct ShardIndex {
    weight_map: BTreeMap<String, String>,
}

/// The quantisation settings in the configuration of a network, as diffusers and transformers write them.
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
    /// The type of the weights, as quanto calls it.
    weights_dtype: Option<String>,
}

impl QuantizationSettings {
    /// Whether the weights can be read. Their tensors say how.
    fn is_supported(&self) -> bool {
        match self.quant_method.as_deref() {
            Some("bitsandbytes" | "bfl") => true,
            Some("quanto") => !self
                .weights_dtype
                .as_deref()
                .is_some_and(|bits| bits.starts_with("int4") || bits.starts_with("int2")),
            _ => false,
        }
    }

    /// The name of the method, with its bits where the settings have them.
    fn method(&self) -> String {
        let name = self.quant_method.as_deref().unwrap_or("a method without a name");
        match (self.load_in_4bit, self.load_in_8bit, &self.weights_dtype) {
            (true, ..) => format!("{name} in 4 bits"),
            (_, true, _) => format!("{name} in 8 bits"),
            (.., Some(dtype)) => format!("{name} ({dtype})"),
            _ => name.to_owned(),
        }
    }
}

impl ModelFolder {
    /// The folder at `root`. No file is read yet.
    pub fn on_disk(root: impl Into<PathBuf>) -> Self {
        Self {
            root: root.into(),
            component: None,
            embedded: None,
        }
    }

    /// The parent of `folder`, which holds a single network, and the name of the network there. Nothing else
    /// of the parent is read.
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

    /// The path of the folder, or the name of an embedded folder.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Where the file or folder at `path`, which is written with `/`, is on this system.
    fn place(&self, path: &str) -> PathBuf {
        sd_files::below(&self.root, path)
    }

    /// Whether the folder is built into the binary.
    pub fn is_embedded(&self) -> bool {
        self.embedded.is_some()
    }

    /// Whether there is a file at `path`.
    pub fn contains(&self, path: &str) -> bool {
        match self.embedded {
            Some(files) => files.iter().any(|file| file.path == path),
            None => self.place(path).is_file(),
        }
    }

    /// The length of the file at `path` in bytes, 0 where there is no file.
    pub fn length(&self, path: &str) -> u64 {
        match self.embedded {
            Some(files) => files
                .iter()
                .find(|file| file.path == path)
                .map_or(0, |file| file.bytes.len() as u64),
            None => fs::metadata(self.place(path)).map_or(0, |metadata| metadata.len()),
        }
    }

    /// The content of the file at `path`, of at most 16 MB.
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

    /// The JSON file at `path`, of at most 4 MB, as a `T`.
    ///
    /// # Errors
    /// The file is missing, too long, cannot be read, or is not the JSON of a `T`.
    pub fn json<T: DeserializeOwned>(&self, path: &str) -> Result<T> {
        self.file(path, LONGEST_JSON)?.json()
    }

    /// The file at `path`, of at most `limit` bytes.
    fn file(&self, path: &str, limit: u64) -> Result<ModelFile> {
        Ok(ModelFile {
            bytes: self.bytes_at_most(path, limit)?,
            path: self.place(path),
        })
    }

    /// The file at `path`, of at most `limit` bytes, if there is one.
    fn file_if_there(&self, path: &str, limit: u64) -> Result<Option<ModelFile>> {
        self.contains(path).then(|| self.file(path, limit)).transpose()
    }

    /// The weights of `component` (such as `transformer`), by their headers alone: one file under a supported
    /// name, or the shards of an index.
    ///
    /// # Errors
    /// There are no weights, they are quantised by a method that is not supported, or a header is wrong.
    pub fn checkpoint(&self, component: &str) -> Result<Checkpoint> {
        self.check_quantization(component)?;
        match self.find_weights(component)? {
            WeightsPlace::File(path) => Checkpoint::open(self.source(&path)?),
            WeightsPlace::Index(path) => self.sharded(component, &path),
        }
    }

    /// Opens the shards of `index`, whose `weight_map` says which file holds each tensor.
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
            tensors.insert(tensor, Stored::new(header.clone(), source.clone()));
        }
        Ok(Checkpoint::of_tensors(self.place(component), combine(tensors)?))
    }

    fn find_weights(&self, component: &str) -> Result<WeightsPlace> {
        let names = self.names(component);
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let inside = |name: &str| format!("{component}/{name}");
        match weights_begin(&names) {
            Some(Begin::File(name)) => Ok(WeightsPlace::File(inside(name))),
            Some(Begin::Index(name)) => Ok(WeightsPlace::Index(inside(name))),
            None => Err(Error::MissingWeights {
                folder: self.place(component),
                tried: looked_for(),
                others: names
                    .into_iter()
                    .filter(|name| looks_like_weights(name))
                    .map(str::to_owned)
                    .collect(),
            }),
        }
    }

    /// The sorted names of the files in the folder of `component`, not below it. Empty where the folder
    /// cannot be read.
    fn names(&self, component: &str) -> Vec<String> {
        let mut names: Vec<String> = match self.embedded {
            Some(files) => {
                let name = |file: &EmbeddedFile| file.path.strip_prefix(component)?.strip_prefix('/');
                let names = files.iter().filter_map(name).filter(|name| !name.contains('/'));
                names.map(str::to_owned).collect()
            }
            None => {
                let place = self.place(component);
                let entries = fs::read_dir(&place).into_iter().flatten().flatten();
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

    /// Refuses weights that are quantised according to the configuration. Errors of the configuration itself
    /// are reported when it is parsed.
    fn check_quantization(&self, component: &str) -> Result<()> {
        let path = format!("{component}/config.json");
        if !self.contains(&path) {
            return Ok(());
        }
        match self.json::<QuantizationOf>(&path) {
            Ok(QuantizationOf {
                quantization_config: Some(settings),
            }) if !settings.is_supported() => Err(Error::Quantized {
                file: self.place(&path),
                method: settings.method(),
            }),
            _ => Ok(()),
        }
    }

    fn source(&self, path: &str) -> Result<Arc<Source>> {
        let place = self.place(path);
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

    /// Refuses paths that lead out of the folder: an index can name any path, and a link can lead anywhere.
    fn check_place(&self, path: &str, place: &Path) -> Result<()> {
        let outside = |target: PathBuf| Error::OutsideFolder {
            file: place.to_owned(),
            target,
        };
        if !sd_files::stays_inside(path) {
            return Err(outside(PathBuf::from(path)));
        }
        let own = match &self.component {
            Some(component) => self.place(component),
            None => self.root.clone(),
        };
        match sd_files::outside_of(&own, place) {
            Ok(Some(target)) => Err(outside(target)),
            // A missing file is reported when it is opened.
            Ok(None) | Err(_) => Ok(()),
        }
    }

    /// The identity of the file at `path`.
    ///
    /// # Errors
    /// The file is missing or cannot be read.
    pub fn file_identity(&self, path: &str) -> Result<FileIdentity> {
        FileIdentity::of_source(path, &*self.source(path)?)
    }

    /// The identities of the weights of `component`: of the file, or of the index and all shards.
    ///
    /// # Errors
    /// There are no weights, or a file of them is missing or cannot be read.
    pub fn weights_identity(&self, component: &str) -> Result<Vec<FileIdentity>> {
        match self.find_weights(component)? {
            WeightsPlace::File(path) => Ok(vec![self.file_identity(&path)?]),
            WeightsPlace::Index(path) => {
                let index: ShardIndex = self.json(&path)?;
                let shards: BTreeSet<String> = index.weight_map.into_values().collect();
                let shards = shards.into_iter().map(|shard| format!("{component}/{shard}"));
                std::iter::once(path)
                    .chain(shards)
                    .map(|path| self.file_identity(&path))
                    .collect()
            }
        }
    }

    /// The SHA-256 of the file that holds the weights of `component`, in hexadecimal digits, where it is
    /// known without hashing: for files of the binary, and for blobs of the Hugging Face cache, which are
    /// named by their hash. `None` for weights in several files.
    pub fn known_sha256(&self, component: &str) -> Option<String> {
        let WeightsPlace::File(path) = self.find_weights(component).ok()? else {
            return None;
        };
        let source = self.source(&path).ok()?;
        if let Source::Embedded { digest, .. } = &*source {
            return Some((*digest).to_owned());
        }
        let blob = fs::canonicalize(source.path()).ok()?;
        let is_blob = blob.parent()?.file_name()? == "blobs";
        let name = blob.file_name()?.to_str()?;
        let is_digest = name.len() == 64 && name.bytes().all(|byte| byte.is_ascii_hexdigit());
        (is_blob && is_digest).then(|| name.to_owned())
    }

    /// `identity` with its absolute path, unless the folder is built into the binary.
    fn absolute_identity(&self, mut identity: FileIdentity) -> FileIdentity {
        if !self.is_embedded() {
            let path = self.place(&identity.path);
            let absolute = std::path::absolute(&path).unwrap_or(path);
            identity.path = absolute.to_string_lossy().into_owned();
        }
        identity
    }
}

/// The path of the configuration of `component` inside the folder.
fn config_path(component: &str) -> String {
    match component {
        MODEL_INDEX => "model_index.json".to_owned(),
        "scheduler" => "scheduler/scheduler_config.json".to_owned(),
        _ => format!("{component}/config.json"),
    }
}

impl ModelSource for ModelFolder {
    fn path(&self) -> &Path {
        self.root()
    }

    fn is_embedded(&self) -> bool {
        Self::is_embedded(self)
    }

    fn exists(&self) -> bool {
        self.is_embedded() || self.root.is_dir()
    }

    fn has_config(&self, component: &str) -> bool {
        self.contains(&config_path(component))
    }

    fn config(&self, component: &str) -> Result<ModelFile> {
        self.file(&config_path(component), LONGEST_JSON)
    }

    fn checkpoint(&self, component: &str) -> Result<Checkpoint> {
        Self::checkpoint(self, component)
    }

    fn tokenizer(&self, component: &str) -> Result<TokenizerFiles> {
        let path = |name: &str| format!("{component}/{name}");
        Ok(TokenizerFiles {
            folder: self.place(component),
            config: self.file_if_there(&path("tokenizer_config.json"), LONGEST_JSON)?,
            special_tokens: self.file_if_there(&path("special_tokens_map.json"), LONGEST_JSON)?,
            vocabulary: match self.file_if_there(&path("tokenizer.json"), LONGEST_TEXT)? {
                Some(tokenizer) => Vocabulary::Tokenizer(tokenizer),
                None => Vocabulary::BytePairs {
                    vocab: self.file(&path("vocab.json"), LONGEST_JSON)?,
                    merges: self.file(&path("merges.txt"), LONGEST_TEXT)?,
                },
            },
        })
    }

    fn vocabulary_bytes(&self, component: &str) -> u64 {
        VOCABULARY_FILES
            .iter()
            .map(|file| self.length(&format!("{component}/{file}")))
            .sum()
    }

    fn identity(&self, part: SourcePart<'_>) -> Result<Vec<FileIdentity>> {
        let paths = match part {
            SourcePart::Config(component) => vec![config_path(component)],
            SourcePart::Tokenizer(component) => TOKENIZER_FILES
                .iter()
                .map(|file| format!("{component}/{file}"))
                .collect(),
            SourcePart::Weights(component) => {
                let identities = self.weights_identity(component)?.into_iter();
                return Ok(identities.map(|file| self.absolute_identity(file)).collect());
            }
        };
        let there = paths.into_iter().filter(|path| self.contains(path));
        there
            .map(|path| Ok(self.absolute_identity(self.file_identity(&path)?)))
            .collect()
    }

    fn known_sha256(&self, component: &str) -> Option<String> {
        Self::known_sha256(self, component)
    }
}
