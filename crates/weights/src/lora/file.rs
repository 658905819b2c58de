//! A LoRA file and its layers, opened by its header.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use super::alphas::{Alphas, adapter_settings};
use super::key::{Key, Role, flat, parse};
use super::peft_settings::Factor;
use super::{ModelPart, hash};
use crate::source::Source;
use crate::stored::converting_takes;
use crate::{Checkpoint, ElementType, Error, ModelFamily, Result, gguf, safetensors, torch};

/// A LoRA file, of which only the header and the settings beside it were read.
#[derive(Debug)]
pub struct LoraFile {
    checkpoint: Checkpoint,
    layers: Vec<Layer>,
    source: Arc<Source>,
    /// The metadata in the header of a safetensors file.
    metadata: BTreeMap<String, String>,
    /// The path of the settings that are missing beside the file.
    missing_settings: Option<PathBuf>,
    /// The hash, once it was computed.
    hash: OnceLock<String>,
}

/// The update of one layer: `up @ down` times a factor, with one row for each output of the layer.
#[derive(Debug)]
pub(super) struct Layer {
    /// The network, where the names of the tensors have it.
    pub(super) part: Option<ModelPart>,
    /// The name of the layer, with underscores for dots.
    pub(super) module: String,
    pub(super) rows: usize,
    pub(super) rank: usize,
    /// The inputs of the layer times the area of its kernel.
    pub(super) columns: usize,
    down: String,
    up: String,
    middle: Option<Middle>,
    alpha: AlphaPlace,
    /// The bytes of an element of the matrices.
    element_type: ElementType,
}

/// The core of a decomposed convolution: `[rank, inner, kernel height, kernel width]` in the file.
#[derive(Debug)]
struct Middle {
    name: String,
    inner: usize,
    area: usize,
}

/// The location of the alpha of a layer.
#[derive(Debug)]
enum AlphaPlace {
    /// A tensor.
    Tensor(String),
    /// The settings. Without settings the alpha is the rank.
    Known(Factor),
}

/// The names of the tensors of a layer.
#[derive(Debug, Default)]
struct Found {
    down: Option<String>,
    up: Option<String>,
    middle: Option<String>,
    alpha: Option<String>,
}

impl LoraFile {
    /// Opens the file at `path`, in safetensors or PyTorch format, with the settings that PEFT writes beside
    /// its files. No matrix is read.
    ///
    /// # Errors
    /// The file is missing or not a weights file; it has no LoRA layers ([`Error::NotLora`]); it uses another
    /// method ([`Error::UnsupportedLora`], [`Error::UnsupportedLoraSetting`]); the matrices of a layer do not
    /// match ([`Error::BadLora`]) or have an unsupported type; or the settings cannot be parsed.
    pub fn open(path: impl Into<PathBuf>) -> Result<Self> {
        let source = Arc::new(Source::open(path.into())?);
        let checkpoint = Checkpoint::open(source.clone())?;
        let metadata = if torch::wrote(&source)? || gguf::wrote(&source)? {
            BTreeMap::new()
        } else {
            safetensors::metadata(&source)?
        };
        let settings = adapter_settings(source.path());
        let (alphas, missing_settings) = match settings {
            Some(settings) if settings.is_file() => {
                let alphas = Alphas::open(&settings)?;
                alphas.check(source.path(), &settings.to_string_lossy())?;
                (alphas, None)
            }
            settings => {
                let alphas = Alphas::read(&metadata);
                alphas.check(source.path(), "its header")?;
                let are_known = !matches!(alphas, Alphas::Unknown);
                (alphas, settings.filter(|_| !are_known))
            }
        };
        let layers = Self::layers_of(&checkpoint, &alphas)?;
        Ok(Self {
            checkpoint,
            layers,
            source,
            metadata,
            missing_settings,
            hash: OnceLock::new(),
        })
    }

    fn layers_of(checkpoint: &Checkpoint, alphas: &Alphas) -> Result<Vec<Layer>> {
        let file = checkpoint.place();
        let mut found: BTreeMap<(Option<ModelPart>, &str), Found> = BTreeMap::new();
        for (name, _) in checkpoint.tensors() {
            match parse(name) {
                Key::Layer { part, module, role } => {
                    let layer = found.entry((part, module)).or_default();
                    let place = match role {
                        Role::Down => &mut layer.down,
                        Role::Up => &mut layer.up,
                        Role::Middle => &mut layer.middle,
                        Role::Alpha => &mut layer.alpha,
                    };
                    *place = Some(name.to_owned());
                }
                Key::Unsupported(method) => {
                    return Err(Error::UnsupportedLora {
                        file: file.to_owned(),
                        tensor: name.to_owned(),
                        method,
                    });
                }
                Key::Other => {}
            }
        }
        // An alpha without matrices is not a LoRA layer.
        found.retain(|_, layer| layer.down.is_some() || layer.up.is_some());
        if found.is_empty() {
            return Err(Error::NotLora {
                file: file.to_owned(),
                tensors: checkpoint.tensors().count(),
            });
        }
        found
            .into_iter()
            .map(|((part, module), found)| Layer::new(checkpoint, alphas, part, module, found))
            .collect()
    }

    /// The path of the file.
    pub fn path(&self) -> &Path {
        self.checkpoint.place()
    }

    /// The number of layers.
    pub fn layer_count(&self) -> usize {
        self.layers.len()
    }

    /// The model family of the LoRA, where its layers show it.
    pub fn family(&self) -> Option<ModelFamily> {
        let layers = self
            .layers
            .iter()
            .filter(|layer| matches!(layer.part, None | Some(ModelPart::Denoiser)));
        ModelFamily::recognise(layers.map(|layer| (layer.module.as_str(), layer.columns)))
    }

    /// The path of the PEFT settings of the file, where they are missing and nothing else has its alphas. The
    /// alphas are then taken to be the ranks.
    pub fn missing_settings(&self) -> Option<&Path> {
        self.missing_settings.as_deref()
    }

    /// The hash by which stable-diffusion-webui identifies the file: twelve hexadecimal digits of the SHA-256
    /// of the data after the header of a safetensors file, or of all bytes of another file. The whole file is
    /// read once, a megabyte at a time.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn hash(&self) -> Result<String> {
        if let Some(known) = self.hash.get() {
            return Ok(known.clone());
        }
        let data = if torch::wrote(&self.source)? || gguf::wrote(&self.source)? {
            0
        } else {
            safetensors::data_start(&self.source)?
        };
        let found = hash::of(&self.source, &self.metadata, data)?;
        Ok(self.hash.get_or_init(|| found).clone())
    }

    /// Reads all matrices, a megabyte at a time, and checks that all values are finite.
    ///
    /// # Errors
    /// A value is not finite ([`Error::BadLora`]), or the file cannot be read.
    pub fn check_values(&self) -> Result<()> {
        for layer in &self.layers {
            for name in layer.matrices() {
                if !self.checkpoint.is_finite(name)? {
                    return Err(Error::BadLora {
                        file: self.path().to_owned(),
                        layer: layer.module.clone(),
                        reason: format!("`{name}` holds values that are not finite"),
                    });
                }
            }
            let factor = layer.factor(self)?;
            if !factor.is_finite() {
                return Err(Error::BadLora {
                    file: self.path().to_owned(),
                    layer: layer.module.clone(),
                    reason: format!("its alpha, divided by its rank, is {factor}"),
                });
            }
        }
        Ok(())
    }

    pub(super) fn layers(&self) -> &[Layer] {
        &self.layers
    }

    pub(super) fn checkpoint(&self) -> &Checkpoint {
        &self.checkpoint
    }
}

impl Layer {
    fn new(
        checkpoint: &Checkpoint,
        alphas: &Alphas,
        part: Option<ModelPart>,
        module: &str,
        found: Found,
    ) -> Result<Self> {
        let bad = |reason: String| Error::BadLora {
            file: checkpoint.place().to_owned(),
            layer: module.to_owned(),
            reason,
        };
        let (Some(down), Some(up)) = (found.down, found.up) else {
            return Err(bad("it has one of the matrices `up` and `down` only".to_owned()));
        };
        let matrices = [Some(&down), Some(&up), found.middle.as_ref()];
        for name in matrices.into_iter().flatten() {
            checkpoint.check_floats(name)?;
        }
        let shape = |name: &str| {
            checkpoint
                .header(name)
                .map_or(&[][..], |header| header.shape.as_slice())
        };
        let (rows, rank) = match *shape(&up) {
            [rows, rank] | [rows, rank, 1, 1] if rows * rank > 0 => (rows, rank),
            ref other => return Err(bad(format!("`up` has the shape {other:?}"))),
        };
        let (inner, inputs) = match shape(&down) {
            [inner, rest @ ..] if matches!(rest.len(), 1 | 3) && *inner > 0 => {
                (*inner, rest.iter().product::<usize>())
            }
            other => return Err(bad(format!("`down` has the shape {other:?}"))),
        };
        let middle = match found.middle {
            None if inner == rank => None,
            None => return Err(bad(format!("`up` is of rank {rank} and `down` of rank {inner}"))),
            Some(name) => match *shape(&name) {
                [of_up, of_down, height, width] if (of_up, of_down) == (rank, inner) => Some(Middle {
                    name,
                    inner,
                    area: height * width,
                }),
                ref other => {
                    return Err(bad(format!(
                        "`mid` has the shape {other:?} between ranks {rank} and {inner}"
                    )));
                }
            },
        };
        let columns = inputs * middle.as_ref().map_or(1, |middle| middle.area);
        if columns == 0 {
            return Err(bad("`down` is empty".to_owned()));
        }
        let alpha = match found.alpha {
            Some(name) if shape(&name).iter().product::<usize>() == 1 => AlphaPlace::Tensor(name),
            Some(name) => return Err(bad(format!("`alpha` has the shape {:?}", shape(&name)))),
            None => AlphaPlace::Known(alphas.factor(part, module).unwrap_or(Factor {
                alpha: rank as f32,
                root: false,
            })),
        };
        Ok(Self {
            part,
            module: flat(module),
            rows,
            rank,
            columns,
            middle,
            alpha,
            element_type: checkpoint
                .header(&up)
                .map_or(ElementType::F32, |header| header.element_type),
            down,
            up,
        })
    }

    /// The names of the matrices.
    fn matrices(&self) -> impl Iterator<Item = &str> {
        let middle = self.middle.as_ref().map(|middle| middle.name.as_str());
        [self.down.as_str(), self.up.as_str()].into_iter().chain(middle)
    }

    /// The factor of the product of the matrices.
    pub(super) fn factor(&self, file: &LoraFile) -> Result<f32> {
        let factor = match &self.alpha {
            AlphaPlace::Known(factor) => *factor,
            AlphaPlace::Tensor(name) => Factor {
                alpha: file.checkpoint.read_number(name)?,
                root: false,
            },
        };
        Ok(factor.of(self.rank))
    }

    /// Reads `up`, `[rows, rank]`.
    pub(super) fn read_up(&self, file: &LoraFile, values: &mut [f32]) -> Result<()> {
        file.checkpoint.read_floats(&self.up, values)
    }

    /// Reads `down`, `[rank, columns]`, multiplied by the core of a decomposed convolution.
    pub(super) fn read_down(&self, file: &LoraFile, values: &mut [f32]) -> Result<()> {
        let Some(Middle { name, inner, area }) = &self.middle else {
            return file.checkpoint.read_floats(&self.down, values);
        };
        let inputs = self.columns / area;
        let mut down = vec![0.0; inner * inputs];
        file.checkpoint.read_floats(&self.down, &mut down)?;
        let mut core = vec![0.0; self.rank * inner * area];
        file.checkpoint.read_floats(name, &mut core)?;
        values.fill(0.0);
        for (row, core) in values
            .chunks_exact_mut(self.columns)
            .zip(core.chunks_exact(inner * area))
        {
            for (down, core) in down.chunks_exact(inputs).zip(core.chunks_exact(*area)) {
                for (to, &down) in row.chunks_exact_mut(*area).zip(down) {
                    for (to, &core) in to.iter_mut().zip(core) {
                        *to += core * down;
                    }
                }
            }
        }
        Ok(())
    }

    /// The scratch bytes of reading the matrices.
    pub(super) fn reading_takes(&self) -> usize {
        let (up, down) = (self.rows * self.rank, self.rank * self.columns);
        let reading_up = 4 * up + converting_takes(up, self.element_type);
        let reading_down = match &self.middle {
            None => converting_takes(down, self.element_type),
            Some(Middle { inner, area, .. }) => {
                let (outer, core) = (inner * self.columns / area, self.rank * inner * area);
                4 * (outer + core) + converting_takes(outer.max(core), self.element_type)
            }
        };
        reading_up.max(reading_down)
    }
}
