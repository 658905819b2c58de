//! The tiny models of `tools/reference/make_single_files.py`, as folders of diffusers and as single files.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock, Mutex};

use flate2::read::GzDecoder;
use safetensors::Dtype;
use safetensors::tensor::{TensorView, serialize_to_file};
use sd_pipeline::{ModelFiles, NetworkFiles};
use sd_weights::BuiltInTokenizer;
use serde::Deserialize;
use serde_json::Value;

use crate::reference::fixtures;
use crate::{torch_zip, weights};

/// The families.
pub(crate) const FAMILIES: [&str; 8] = [
    "sd15",
    "sd21",
    "sdxl",
    "refiner",
    "inpainting",
    "sd3-medium",
    "sd35-medium",
    "sd35-large",
];

/// Tensors by name.
pub(crate) type Tensors = BTreeMap<String, Tensor>;

/// A tensor with its bytes.
#[derive(Debug, Clone)]
pub(crate) struct Tensor {
    pub(crate) element_type: Dtype,
    pub(crate) shape: Vec<usize>,
    pub(crate) bytes: Vec<u8>,
}

/// A model of a family.
pub(crate) struct Model {
    /// The configurations, by their paths in the folder.
    configs: BTreeMap<String, Value>,
    /// The tensors of the original file.
    rows: Vec<Row>,
    /// The tensors of the folder, by component.
    components: BTreeMap<String, Tensors>,
}

#[derive(Deserialize)]
struct Fixture {
    configs: BTreeMap<String, Value>,
    tensors: Vec<Row>,
}

/// A tensor of the original file: its name, form and shape, and the component and name of each tensor of
/// diffusers that it consists of.
#[derive(Deserialize)]
struct Row(String, Form, Vec<usize>, Vec<(String, String)>);

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Form {
    Same,
    Thirds,
    HalvesSwapped,
    Transposed,
    Convolution,
    Unused,
}

impl Tensor {
    /// The tensor called `name` in 16 bits.
    pub(crate) fn seeded(name: &str, shape: &[usize]) -> Self {
        Self {
            element_type: Dtype::F16,
            shape: shape.to_vec(),
            bytes: weights::values(name, shape),
        }
    }

    /// Zeros.
    pub(crate) fn zeros(element_type: Dtype, shape: &[usize]) -> Self {
        let bits = shape.iter().product::<usize>() * element_type.bitsize();
        Self {
            element_type,
            shape: shape.to_vec(),
            bytes: vec![0; bits / 8],
        }
    }

    /// The bytes of the matrix, transposed.
    fn transposed(&self) -> Vec<u8> {
        let [rows, columns] = self.shape[..] else {
            panic!("{:?}", self.shape);
        };
        let element = |row, column| &self.bytes[2 * (row * columns + column)..][..2];
        let places = (0..columns).flat_map(|column| (0..rows).map(move |row| (row, column)));
        places
            .flat_map(|(row, column)| element(row, column).to_vec())
            .collect()
    }
}

impl Form {
    /// The shape of each part of an original tensor of `shape`.
    fn part(self, shape: &[usize]) -> Vec<usize> {
        let mut part = shape.to_vec();
        match self {
            Self::Same | Self::HalvesSwapped | Self::Unused => {}
            Self::Thirds => part[0] /= 3,
            Self::Transposed => part.reverse(),
            Self::Convolution => part.truncate(2),
        }
        part
    }
}

impl Model {
    /// The model of `family`, which is made once.
    pub(crate) fn of(family: &str) -> Arc<Self> {
        static MADE: LazyLock<Mutex<HashMap<String, Arc<Model>>>> = LazyLock::new(Mutex::default);
        let mut made = MADE.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        made.entry(family.to_owned())
            .or_insert_with(|| Arc::new(Self::make(family)))
            .clone()
    }

    fn make(family: &str) -> Self {
        let path = fixtures().join(format!("single_files/{family}.json.gz"));
        let mut text = String::new();
        GzDecoder::new(fs::File::open(path).unwrap())
            .read_to_string(&mut text)
            .unwrap();
        let Fixture { configs, tensors } = serde_json::from_str(&text).unwrap();
        let mut components: BTreeMap<String, Tensors> = BTreeMap::new();
        for Row(_, form, shape, parts) in &tensors {
            for (component, name) in parts {
                let tensor = Tensor::seeded(&format!("{component}.{name}"), &form.part(shape));
                let others = components.entry(component.clone()).or_default();
                assert!(others.insert(name.clone(), tensor).is_none());
            }
        }
        Self {
            configs,
            rows: tensors,
            components,
        }
    }

    /// The tensors of `component` under the names of diffusers.
    pub(crate) fn component(&self, component: &str) -> &Tensors {
        &self.components[component]
    }

    /// The configurations, by their paths in the folder.
    pub(crate) fn configs(&self) -> &BTreeMap<String, Value> {
        &self.configs
    }

    /// The tensors of the original file.
    pub(crate) fn original(&self) -> Tensors {
        let tensor = |Row(name, form, shape, parts): &Row| {
            let parts: Vec<&Tensor> = parts
                .iter()
                .map(|(component, name)| &self.components[component][name])
                .collect();
            let bytes = match form {
                Form::Unused => weights::values(name, shape),
                Form::Same | Form::Convolution => parts[0].bytes.clone(),
                Form::Thirds => parts.iter().flat_map(|part| part.bytes.clone()).collect(),
                Form::HalvesSwapped => {
                    let (first, second) = parts[0].bytes.split_at(parts[0].bytes.len() / 2);
                    [second, first].concat()
                }
                Form::Transposed => parts[0].transposed(),
            };
            let tensor = Tensor {
                element_type: Dtype::F16,
                shape: shape.clone(),
                bytes,
            };
            (name.clone(), tensor)
        };
        self.rows.iter().map(tensor).collect()
    }

    /// The tensors of the original file below `prefix`, without it.
    pub(crate) fn below(&self, prefix: &str) -> Tensors {
        let tensors = self.original().into_iter();
        tensors
            .filter_map(|(name, tensor)| Some((name.strip_prefix(prefix)?.to_owned(), tensor)))
            .collect()
    }

    /// Writes the model into `folder` as diffusers does.
    pub(crate) fn write_folder(&self, folder: &Path) {
        for (path, config) in &self.configs {
            write(&folder.join(path), config.to_string().as_bytes());
        }
        for (component, tensors) in &self.components {
            let name = match component.starts_with("text_encoder") {
                true => "model.safetensors",
                false => "diffusion_pytorch_model.safetensors",
            };
            save(tensors, &folder.join(component).join(name));
        }
        for tokenizer in ["tokenizer", "tokenizer_2", "tokenizer_3"] {
            let folder = folder.join(tokenizer);
            if !folder.exists() {
                continue;
            }
            if tokenizer == "tokenizer_3" {
                let whole = BuiltInTokenizer::t5_json().unwrap();
                write(&folder.join("tokenizer.json"), &whole.bytes);
            } else {
                let (vocab, merges) = BuiltInTokenizer::clip_byte_pairs().unwrap();
                write(&folder.join("vocab.json"), &vocab.bytes);
                write(&folder.join("merges.txt"), &merges.bytes);
            }
        }
    }
}

/// Writes a file, and the folders that it is in.
pub(crate) fn write(path: &Path, bytes: &[u8]) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, bytes).unwrap();
}

/// Writes `tensors` in the format that the ending of `path` says.
pub(crate) fn save(tensors: &Tensors, path: &Path) -> PathBuf {
    if path.extension().is_some_and(|ending| ending == "ckpt") {
        write(path, &torch_zip::file(tensors));
        return path.to_owned();
    }
    save_with(tensors, &[], path)
}

/// Writes `tensors` and the metadata `texts` as safetensors.
pub(crate) fn save_with(tensors: &Tensors, texts: &[(&str, &str)], path: &Path) -> PathBuf {
    let mut views = Vec::new();
    for (name, tensor) in tensors {
        let view = TensorView::new(tensor.element_type, tensor.shape.clone(), &tensor.bytes).unwrap();
        views.push((name, view));
    }
    let texts = texts
        .iter()
        .map(|&(key, value)| (key.to_owned(), value.to_owned()));
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    serialize_to_file(views, Some(texts.collect()), path).unwrap();
    path.to_owned()
}

/// The model at `path`, with these files for single networks.
pub(crate) fn with_networks(path: impl AsRef<Path>, networks: NetworkFiles) -> ModelFiles {
    let mut files = ModelFiles::at(path.as_ref());
    files.networks = networks;
    files
}
