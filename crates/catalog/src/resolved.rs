//! [`Resolved`]: settings with every name resolved once, to a local path or to the hub. Missing files are
//! downloaded, and the result is the pipeline's [`Request`].

use std::path::{Path, PathBuf};

use sd_files::native;
use sd_hub::Reference;
use sd_pipeline::bundle::{Bundle, FileKind, Kind};
use sd_pipeline::family::{Description, described};
use sd_pipeline::save::FileNames;
use sd_pipeline::scheduler::{SamplerKind, ScheduleKind};
use sd_pipeline::seed::Seeds;
use sd_pipeline::{
    Bytes, ControlChoice, GuidanceScale, InitImage, LoraChoice, ModelChoice, Names, NetworkFiles,
    Recommended, RefinerChoice, Request, TypeChoice, UpscaleChoice,
};

use crate::catalog::{Catalog, Location};
use crate::controlnet::{self, ControlImage, ControlInput, default_controlnet};
use crate::error::{Error, Result};
use crate::fetch::FetchObserver;
use crate::layers::Layered;
use crate::presets::DEMO;
use crate::user_dirs::user_dirs;
use crate::wanted::Wanted;
use crate::{demo, embedding, lora, names, output, samplers, seed_choice, upscaler};

/// The prompt and the input images of a run, which neither presets nor the configuration can set.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Inputs {
    /// The prompt.
    pub prompt: String,
    /// The initial image of image-to-image or inpainting.
    pub init: Option<InitImage>,
    /// The control images of ControlNets.
    pub control_images: Vec<ControlImage>,
}

/// A model, a ControlNet, a LoRA or an upscaler with its location.
#[derive(Debug, Clone, PartialEq)]
struct Asset {
    kind: Kind,
    name: String,
    location: Location,
}

/// A run with every name resolved.
#[derive(Debug)]
pub struct Resolved {
    inputs: Inputs,
    layered: Layered,
    sampler: Option<SamplerKind>,
    schedule: ScheduleKind,
    model: Asset,
    refiner: Option<Asset>,
    upscaler: Option<Asset>,
    loras: Vec<Lora>,
    controls: Vec<Control>,
    /// The folder of the images, and the names of their files.
    output: (PathBuf, FileNames),
    /// The number of images, and their seeds.
    seeds: (usize, Seeds),
}

#[derive(Debug)]
struct Lora {
    asset: Asset,
    text_scale: f64,
    scale: f64,
}

#[derive(Debug)]
struct Control {
    image: ControlImage,
    scale: f64,
    /// None until the model is known, whose default it is.
    network: Option<Asset>,
}

impl Inputs {
    /// Opens every input image.
    ///
    /// # Errors
    /// One does not exist or is no regular file.
    pub fn check(&self) -> Result<()> {
        let init = self.init.iter();
        let init = init.flat_map(|init| [Some(&init.image), init.mask.as_ref()].into_iter().flatten());
        for path in init.chain(self.control_images.iter().map(|control| &control.image)) {
            sd_files::open(path).map_err(|error| sd_pipeline::Error::BadImage {
                path: native(path),
                reason: error.to_string(),
            })?;
        }
        Ok(())
    }
}

impl Asset {
    fn new(catalog: &Catalog, kind: Kind, name: &str) -> Result<Self> {
        Ok(Self {
            kind,
            name: name.to_owned(),
            location: catalog.locate(kind, name)?,
        })
    }

    /// Its reference on the hub, if it is not local.
    fn missing(&self) -> Option<&Reference> {
        match &self.location {
            Location::OnHub(reference) => Some(reference),
            Location::BuiltIn | Location::Here(_) => None,
        }
    }

    /// Its local path.
    ///
    /// # Errors
    /// It was not downloaded, or is built in.
    fn path(&self, catalog: &Catalog) -> Result<PathBuf> {
        match &self.location {
            Location::Here(path) => Ok(path.clone()),
            Location::OnHub(reference) => catalog.path_in_cache(self.kind, &self.name, reference),
            Location::BuiltIn => Err(Error::NothingAt {
                kind: self.kind,
                name: self.name.clone(),
                similar: None,
            }),
        }
    }

    /// The model choice.
    ///
    /// # Errors
    /// It was not downloaded.
    fn model(&self, catalog: &Catalog) -> Result<ModelChoice> {
        match self.location {
            Location::BuiltIn => Ok(demo::model()),
            Location::Here(_) | Location::OnHub(_) => Ok(ModelChoice {
                name: self.name.clone(),
                files: catalog.model_at(self.path(catalog)?),
                recommended: Recommended::default(),
            }),
        }
    }
}

impl Resolved {
    /// Resolves every name of `layered` and of the LoRA tags of the prompt, without requests to the hub.
    ///
    /// # Errors
    /// A name cannot be resolved, or settings contradict each other.
    pub fn new(catalog: &Catalog, inputs: Inputs, layered: Layered) -> Result<Self> {
        let settings = &layered.settings;
        let (sampler, schedule) = samplers::named(settings)?;
        let output = output::of(settings)?;
        let seeds = seed_choice::seeds(settings.seed.clone(), settings.n)?;
        if let Some(seed) = output.1.seed_of_same_name(&seeds.1, seeds.0) {
            return Err(Error::SameName { seed });
        }
        let control_inputs = controlnet::inputs(&inputs.control_images, settings)?;
        let loras = lora::named(settings, &inputs.prompt)?;
        let find = |kind: Kind, name: &String| Asset::new(catalog, kind, name);
        // The model first: the others depend on it.
        let model = Asset::new(catalog, Kind::Model, settings.model.as_deref().unwrap_or(DEMO))?;
        let controls = control_inputs.into_iter().map(|input| {
            let ControlInput {
                image,
                network,
                scale,
            } = input;
            let network = network.map(|name| find(Kind::ControlNet, &name)).transpose()?;
            Ok(Control {
                image,
                scale,
                network,
            })
        });
        let controls = controls.collect::<Result<_>>()?;
        let upscaler = match (settings.upscale, &settings.upscaler) {
            (None, _) => None,
            (Some(_), Some(name)) if name == upscaler::LANCZOS => None,
            (Some(_), Some(name)) => Some(find(Kind::Upscaler, name)?),
            (Some(factor), None) => default_upscaler(catalog, factor),
        };
        let loras = loras.into_iter().map(|(name, text_scale, scale)| {
            let asset = find(Kind::Lora, &name)?;
            Ok(Lora {
                asset,
                text_scale,
                scale,
            })
        });
        let loras = loras.collect::<Result<_>>()?;
        let refiner = settings
            .refiner
            .as_ref()
            .map(|name| find(Kind::Model, name))
            .transpose()?;
        let mut resolved = Self {
            inputs,
            sampler,
            schedule,
            model,
            refiner,
            upscaler,
            loras,
            controls,
            layered,
            output,
            seeds,
        };
        if resolved.model.missing().is_none() {
            resolved.choose_default_controlnets(catalog)?;
        }
        Ok(resolved)
    }

    /// Downloads what is not local. If the program is offline, [`Self::request`] reports what is missing.
    ///
    /// # Errors
    /// The hub fails, or a repository lacks required files. The family of a model without a default
    /// ControlNet is read from the hub before the model is downloaded.
    pub fn fetch(&mut self, catalog: &Catalog, observer: &mut dyn FetchObserver) -> Result<()> {
        if catalog.is_offline() {
            return Ok(());
        }
        if let Some(control) = self.controls.iter().find(|control| control.network.is_none())
            && let Some(reference) = self.model.missing()
        {
            let is_stopped = || observer.is_stopped();
            let described = catalog
                .read_remote(reference, &Description::PATHS, &is_stopped)?
                .and_then(|(path, text)| described(path, &text));
            if let Some(model) = described {
                default_controlnet(&model, control.image.kind)?;
            }
        }
        self.fetch_missing(catalog, observer)?;
        self.choose_default_controlnets(catalog)?;
        self.fetch_missing(catalog, observer)
    }

    fn fetch_missing(&mut self, catalog: &Catalog, observer: &mut dyn FetchObserver) -> Result<()> {
        let mut missing: Vec<Wanted> = Vec::new();
        for asset in self.assets() {
            let wanted = asset.missing().map(|reference| Wanted {
                reference: reference.clone(),
                kind: Some(asset.kind),
            });
            missing.extend(wanted.filter(|wanted| !missing.contains(wanted)));
        }
        if missing.is_empty() {
            return Ok(());
        }
        catalog.fetch(&missing, observer)?;
        for asset in self.assets() {
            if asset.missing().is_some() {
                asset.location = Location::Here(asset.path(catalog)?);
            }
        }
        Ok(())
    }

    /// Whether everything that is named so far is local.
    pub fn is_local(&mut self) -> bool {
        self.assets().all(|asset| asset.missing().is_none())
    }

    /// Reads the headers of what is not local into `folder`, so that the run can be planned. Returns the bytes of the
    /// files that a run would download, if anything is missing. If the program is offline, [`Self::request`] reports
    /// what is missing.
    ///
    /// # Errors
    /// As [`Self::fetch`], or the headers of a file are not at its beginning.
    pub fn outline(
        &mut self,
        catalog: &Catalog,
        folder: &Path,
        is_stopped: &dyn Fn() -> bool,
    ) -> Result<Option<Bytes>> {
        if catalog.is_offline() {
            return Ok(None);
        }
        let mut sizes = Vec::new();
        self.outline_missing(catalog, folder, is_stopped, &mut sizes)?;
        self.choose_default_controlnets(catalog)?;
        self.outline_missing(catalog, folder, is_stopped, &mut sizes)?;
        Ok((!sizes.is_empty()).then(|| Bytes(sizes.iter().sum())))
    }

    fn outline_missing(
        &mut self,
        catalog: &Catalog,
        folder: &Path,
        is_stopped: &dyn Fn() -> bool,
        sizes: &mut Vec<u64>,
    ) -> Result<()> {
        for asset in self.assets() {
            if let Some(reference) = asset.missing() {
                let wanted = Wanted {
                    reference: reference.clone(),
                    kind: Some(asset.kind),
                };
                // The paths of errors end as on the hub.
                let below = folder.join(sizes.len().to_string()).join(reference.id.as_str());
                let (path, bytes) = catalog.outline(&wanted, &below, is_stopped)?;
                asset.location = Location::Here(path);
                sizes.push(bytes);
            }
        }
        Ok(())
    }

    /// All named things.
    fn assets(&mut self) -> impl Iterator<Item = &mut Asset> {
        let controls = self
            .controls
            .iter_mut()
            .filter_map(|control| control.network.as_mut());
        [&mut self.model]
            .into_iter()
            .chain(&mut self.refiner)
            .chain(controls)
            .chain(&mut self.upscaler)
            .chain(self.loras.iter_mut().map(|lora| &mut lora.asset))
    }

    /// Sets the default ControlNets of the model, which must be local.
    fn choose_default_controlnets(&mut self, catalog: &Catalog) -> Result<()> {
        let mut known: Option<Description> = None;
        if self.controls.iter().all(|control| control.network.is_some()) {
            return Ok(());
        }
        let model_files = self.named_model(catalog)?.files;
        for control in &mut self.controls {
            if control.network.is_some() {
                continue;
            }
            let model = match &mut known {
                Some(model) => model,
                none => {
                    let bundle = Bundle::open(&model_files)?;
                    none.insert(Description::of(&*bundle.family))
                }
            };
            let id = default_controlnet(model, control.image.kind)?;
            control.network = Some(Asset::new(catalog, Kind::ControlNet, id)?);
        }
        Ok(())
    }

    /// Removes control images whose ControlNets are not local.
    pub(crate) fn without_missing_controlnets(mut self) -> Self {
        let is_here = |control: &Control| {
            control
                .network
                .as_ref()
                .is_some_and(|network| network.missing().is_none())
        };
        self.controls.retain(is_here);
        self
    }

    /// The model, with the networks and the prediction that the settings name.
    ///
    /// # Errors
    /// It was not downloaded, or a name is that of several files.
    fn named_model(&self, catalog: &Catalog) -> Result<ModelChoice> {
        let mut model = self.model.model(catalog)?;
        let settings = &self.layered.settings;
        let found = |kind: FileKind, name: &Option<PathBuf>| {
            let path = name.as_deref().map(|name| catalog.network(kind, name));
            path.transpose()
        };
        model.files.networks = NetworkFiles {
            vae: found(FileKind::Vae, &settings.vae)?,
            clip_l: found(FileKind::TextEncoder, &settings.clip_l)?,
            clip_g: found(FileKind::TextEncoder, &settings.clip_g)?,
            t5xxl: found(FileKind::TextEncoder, &settings.t5xxl)?,
        };
        model.files.prediction = settings.prediction;
        Ok(model)
    }

    /// The data type of the weights.
    fn weight_type(&self) -> TypeChoice {
        match self.layered.settings.dtype.unwrap_or_default() {
            TypeChoice::Automatic if self.model.location == Location::BuiltIn => demo::WEIGHT_TYPE,
            choice => choice,
        }
    }

    /// The request for the pipeline.
    ///
    /// # Errors
    /// Something is still missing.
    pub fn request(mut self, catalog: &Catalog) -> Result<Request> {
        let model = self.named_model(catalog)?;
        let weight_type = self.weight_type();
        self.choose_default_controlnets(catalog)?;
        let Layered { preset, settings } = self.layered;
        let controls = self.controls.into_iter().filter_map(|control| {
            let Control {
                image,
                scale,
                network,
            } = control;
            network.map(|network| {
                Ok(ControlChoice {
                    folder: network.path(catalog)?,
                    name: network.name,
                    kind: image.kind,
                    image: native(image.image),
                    scale,
                })
            })
        });
        let loras = self.loras.into_iter().map(|lora| {
            Ok(LoraChoice {
                file: lora.asset.path(catalog)?,
                name: lora.asset.name,
                scale: lora.scale,
                text_scale: lora.text_scale,
            })
        });
        let controls = controls.collect::<Result<_>>()?;
        let network = self.upscaler.map(|asset| asset.path(catalog)).transpose()?;
        let loras = loras.collect::<Result<_>>()?;
        let refiner = self.refiner.map(|asset| asset.model(catalog)).transpose()?;
        let (prompt, negative_prompt) = match settings.style {
            Some(style) => {
                let (prompt, negative) =
                    style.apply(&self.inputs.prompt, settings.negative_prompt.as_deref());
                (prompt, Some(negative))
            }
            None => (self.inputs.prompt, settings.negative_prompt),
        };
        let texts = [prompt.as_str(), negative_prompt.as_deref().unwrap_or_default()];
        let paths = settings.embedding.iter();
        let paths = paths.map(|name| catalog.network(FileKind::Embedding, name));
        let paths = paths.collect::<Result<Vec<_>>>()?;
        let embeddings = embedding::named(paths, &model.files, catalog.models_path(), texts);
        let ((folder, file_names), (images, seeds)) = (self.output, self.seeds);
        Ok(Request {
            negative_prompt,
            images,
            steps: settings.steps.map(|steps| steps as usize),
            seeds,
            rng: settings.rng.unwrap_or_default(),
            size: settings.size,
            init: self.inputs.init.map(|init| InitImage {
                image: native(init.image),
                mask: init.mask.map(native),
                ..init
            }),
            controls,
            loras,
            embeddings,
            upscale: settings.upscale.map(|factor| UpscaleChoice {
                factor,
                network,
                or_resampled: settings.upscaler.is_none(),
            }),
            names: Names {
                style: settings.style.map(|style| style.name.to_owned()),
                quality_preset: preset,
            },
            strict: settings.strict,
            refiner: refiner.map(|model| RefinerChoice {
                switch: settings.refiner_switch,
                ..RefinerChoice::new(model)
            }),
            guidance_scale: settings.cfg.map(GuidanceScale),
            guidance_rescale: settings.guidance_rescale.unwrap_or(0.0),
            sampler: self.sampler,
            schedule: self.schedule,
            // Settings count from 1, as stable-diffusion-webui does.
            clip_skip: settings.clip_skip.map_or(0, |layer| layer as usize - 1),
            output: native(folder),
            file_names,
            device: settings.device.unwrap_or_default().first(),
            weight_type,
            memory: settings.memory,
            host_memory: settings.host_memory,
            user_dirs: user_dirs(),
            ..Request::new(prompt, model)
        })
    }
}

/// The default network that upscales by `factor`, if it is cached.
fn default_upscaler(catalog: &Catalog, factor: usize) -> Option<Asset> {
    let name = upscaler::default_name(factor)?;
    let path = catalog.cached(&names::reference(name)?)?;
    Some(Asset {
        kind: Kind::Upscaler,
        name: name.to_owned(),
        location: Location::Here(path),
    })
}
