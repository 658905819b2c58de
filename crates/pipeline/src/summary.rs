//! Summaries of model files and folders for lists: what each holds, the data type of its weights, and the memory
//! budgets of a model. Only headers and configurations are read.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use sd_memory::Bytes;
use sd_weights::{
    Checkpoint, ElementType, FileContent, LoraFile, ModelFiles, ModelFolder, NetworkKind, Residency,
    WeightOptions, checkpoint_content, open_controlnet,
};

use crate::bundle::{Bundle, FileKind};
use crate::loaded::Loaded;
use crate::request::{DeviceChoice, ModelChoice, Recommended, Request, TypeChoice};
use crate::run::opened_and_planned;
use crate::{Error, Result, device, family, stage};

/// A budget that no plan exceeds. The plan then says which budgets would do.
const UNLIMITED: Bytes = Bytes(1 << 50);

/// What a file or folder holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Summary {
    /// What it can be used as.
    pub kind: FileKind,
    /// The family of models that it is or is for, or which network it is, as far as its headers show:
    /// "Stable Diffusion XL", "CLIP-L".
    pub family: Option<String>,
    /// The data type of most bytes.
    pub data_type: Option<ElementType>,
    /// The budgets of a model. None for anything else, and for a model that needs more than a prompt.
    pub budgets: Option<Budgets>,
}

/// The memory budgets of a model for one image at its default settings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Budgets {
    /// The smallest budget that works: the blocks of the denoising network are streamed.
    pub smallest: Bytes,
    /// The budget from which on all blocks of the denoising network are resident.
    pub resident: Bytes,
}

/// Makes summaries. The device, for which the budgets are, is opened once.
#[derive(Debug)]
pub struct Summaries {
    loaded: Loaded,
    device: DeviceChoice,
    weight_type: TypeChoice,
}

impl Summaries {
    /// Summaries with the budgets on `device`, with weights held as `weight_type`.
    pub fn new(device: DeviceChoice, weight_type: TypeChoice) -> Self {
        Self {
            loaded: Loaded::default(),
            device,
            weight_type,
        }
    }

    /// The summary of the model of `files`.
    ///
    /// # Errors
    /// The model cannot be used: a file is missing or damaged, or not supported.
    pub fn model(&mut self, files: &ModelFiles) -> Result<Summary> {
        let request = Request {
            memory: Some(UNLIMITED),
            device: self.device,
            weight_type: self.weight_type,
            ..Request::new(
                "",
                ModelChoice {
                    name: String::new(),
                    files: files.clone(),
                    recommended: Recommended::default(),
                },
            )
        };
        let (bundle, budgets) = match opened_and_planned(&request, &mut self.loaded) {
            Ok((bundle, plan)) => {
                let budgets = Budgets {
                    smallest: plan.smallest_budget,
                    resident: plan.resident_budget,
                };
                (bundle, Some(budgets))
            }
            // It generates from an image and a mask, whose size the plan would need.
            Err(Error::NeedsMask { .. }) => (Arc::new(Bundle::open(files)?), None),
            Err(error) => return Err(error),
        };
        Ok(Summary {
            kind: FileKind::Model,
            family: Some(bundle.family.title().to_owned()),
            data_type: main_type(&bundle)?,
            budgets,
        })
    }

    /// The summary of the file or folder at `path`. A network that is missing in the file of a model may be in
    /// the folders `search`. What a file holds is recognised by its tensors, never by its name.
    ///
    /// # Errors
    /// It cannot be used: it is missing, damaged or not supported.
    pub fn file(&mut self, path: &Path, search: &[PathBuf]) -> Result<Summary> {
        if path.is_dir() {
            return match is_network(path) {
                true => network(path),
                false => self.model(&ModelFiles::at(path)),
            };
        }
        let mut files = ModelFiles::at(path);
        files.search = search.to_vec();
        // A model is opened once: reading thousands of headers takes longer than the plan.
        let what = match self.model(&files) {
            Err(Error::Weights(sd_weights::Error::NoModel { file, what })) if file == path => what,
            summary => return summary,
        };
        match what {
            FileContent::Network(network) => plain(path, kind_of(network), network_name(network)),
            FileContent::Lora => lora(path),
            FileContent::ControlNet => control(path),
            FileContent::Upscaler => self.upscaler(path),
            FileContent::Embedding => plain(path, FileKind::Embedding, None),
            what @ FileContent::Other(_) => Err(no_model(path, what)),
            // Names of LoRA layers and of upscalers vary more than those of other networks.
            what @ FileContent::Unknown => lora(path)
                .or_else(|_| self.upscaler(path))
                .map_err(|_| no_model(path, what)),
        }
    }

    fn upscaler(&mut self, path: &Path) -> Result<Summary> {
        let device = self.loaded.device(self.device)?;
        let weight_type = device::weight_type(self.weight_type);
        let weight_options = WeightOptions::new(device, weight_type, Residency::Resident);
        let scale = stage::upscaler(path, &weight_options)?.scale();
        plain(path, FileKind::Upscaler, Some(format!("{scale}x")))
    }
}

/// Whether the folder at `path` holds a single network: one with weights beside its configuration.
fn is_network(path: &Path) -> bool {
    path.join("config.json").is_file() && !path.join("model_index.json").is_file()
}

/// What the network of a file without a denoising network is used as.
fn kind_of(network: NetworkKind) -> FileKind {
    match network {
        NetworkKind::Vae => FileKind::Vae,
        NetworkKind::ClipL | NetworkKind::ClipH | NetworkKind::ClipG | NetworkKind::T5 => {
            FileKind::TextEncoder
        }
        NetworkKind::UNet(_) | NetworkKind::Mmdit => FileKind::Model,
    }
}

/// The name of a text encoder, or none for an autoencoder, which has none of its own.
fn network_name(network: NetworkKind) -> Option<String> {
    let title = network.title();
    let name = title.strip_prefix("the text encoder ");
    name.map(str::to_owned)
}

fn lora(path: &Path) -> Result<Summary> {
    let file = LoraFile::open(path)?;
    plain(
        path,
        FileKind::Lora,
        file.family().map(|family| family.to_string()),
    )
}

/// The summary of a folder with one network.
fn network(path: &Path) -> Result<Summary> {
    // Of the networks that are loaded from a folder of their own, ControlNets alone have names that tell them.
    let error = match control(path) {
        Ok(summary) => return Ok(summary),
        Err(error) => error,
    };
    let (folder, component) = ModelFolder::around(path);
    let checkpoint = folder.checkpoint(&component)?;
    match checkpoint_content(&checkpoint)? {
        FileContent::Network(found) if kind_of(found) != FileKind::Model => Ok(Summary {
            kind: kind_of(found),
            family: network_name(found),
            data_type: checkpoint.main_type(),
            budgets: None,
        }),
        _ => Err(error),
    }
}

fn control(path: &Path) -> Result<Summary> {
    let (source, component) = open_controlnet(path)?;
    let control = family::recognise_control(&*source, &component)?;
    Ok(Summary {
        kind: FileKind::ControlNet,
        family: Some(control.title().to_owned()),
        data_type: source.checkpoint(&component)?.main_type(),
        budgets: None,
    })
}

/// The summary of the file at `path`, which is no model.
fn plain(path: &Path, kind: FileKind, family: Option<String>) -> Result<Summary> {
    Ok(Summary {
        kind,
        family,
        data_type: Checkpoint::open_file(path)?.main_type(),
        budgets: None,
    })
}

/// The data type of most bytes of a model's networks.
fn main_type(bundle: &Bundle) -> Result<Option<ElementType>> {
    let encoders = bundle.family.text_encoders().components();
    let components = encoders
        .into_iter()
        .map(|encoder| encoder.encoder)
        .chain([bundle.family.component(), "vae"]);
    let mut bytes: BTreeMap<ElementType, u64> = BTreeMap::new();
    for component in components {
        for (_, header) in bundle.components().checkpoint(component)?.tensors() {
            *bytes.entry(header.element_type).or_default() += header.bytes;
        }
    }
    let most = bytes.into_iter().max_by_key(|&(_, bytes)| bytes);
    Ok(most.map(|(element_type, _)| element_type))
}

fn no_model(path: &Path, what: FileContent) -> Error {
    Error::Weights(sd_weights::Error::NoModel {
        file: path.to_owned(),
        what,
    })
}
