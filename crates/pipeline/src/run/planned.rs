//! A run before its weights are read: opened files, resolved settings and a memory plan.

use std::sync::Arc;

use sd_memory::{Allowance, Bytes, Limit};
use sd_weights::{Residency, WeightOptions};

use super::init_image::{InitImageSource, LoadedInitImage};
use super::messages;
use super::model_pass::ModelPass;
use super::upscaling::Upscaling;
use crate::bundle::{Bundle, Control};
use crate::loaded::Loaded;
use crate::memory::allowance;
use crate::plan::{CachedBytes, Plan, SOURCE_IMAGES, SourceImageBytes, Surroundings, process_bytes};
use crate::recipe::{DenoisingRange, Recipe};
use crate::request::{ControlChoice, Request};
use crate::request_cache::RequestCache;
use crate::tokenizer::Tokenizers;
use crate::{Error, Result, device, device_budget, named};

/// The plan of a run of `request`. No weight is read.
///
/// # Errors
/// The model or the request is wrong, something that it names is missing, or the budget is too small.
pub fn plan(request: &Request) -> Result<Plan> {
    Planner::default().plan(request)
}

/// The opened model of `request` and the plan of its run, on a device that is `loaded` once for several requests.
///
/// # Errors
/// As [`plan`].
pub(crate) fn opened_and_planned(request: &Request, loaded: &mut Loaded) -> Result<(Arc<Bundle>, Plan)> {
    let mut planned = of_headers(request, loaded)?;
    let plan = planned.plan();
    Ok((planned.passes.swap_remove(0).bundle, plan))
}

/// What is known of a run before a weight is read.
#[derive(Debug)]
pub struct PlannedRequest {
    /// The recipe of the first model.
    pub recipe: Recipe,
    /// The plan, with the time that each stage takes.
    pub plan: Plan,
    /// Why the CPU computes although this build supports GPUs, in one line.
    pub fallback: Option<String>,
}

/// What is known of the run of `request`. No weight is read. If the rates of the device are not in the cache
/// of the request's user, the device computes for about a fifth of a second.
///
/// # Errors
/// As [`plan`].
pub fn planned(request: &Request) -> Result<PlannedRequest> {
    Planner::default().planned(request)
}

/// Plans requests of many users, also of several threads at once. The tokenizers of the last models are kept for the
/// next plan, and for the runs of the [`Engine`](crate::Engine) that
/// [shares](crate::Engine::sharing_tokenizers) them. The default keeps nothing. Clones share what is kept.
#[derive(Debug, Clone, Default)]
pub struct Planner {
    tokenizers: Tokenizers,
}

impl Planner {
    /// Keeps the tokenizers of the last models.
    pub fn keeping_tokenizers() -> Self {
        Self {
            tokenizers: Tokenizers::keeping(),
        }
    }

    /// Whether it keeps something. An engine that shares its tokenizers
    /// [releases](crate::Engine::release) it.
    pub fn is_loaded(&self) -> bool {
        !self.tokenizers.is_empty()
    }

    pub(crate) fn tokenizers(&self) -> &Tokenizers {
        &self.tokenizers
    }

    /// As [`plan`].
    ///
    /// # Errors
    /// As [`plan`].
    pub fn plan(&self, request: &Request) -> Result<Plan> {
        Ok(of_headers(request, &mut self.loaded())?.plan())
    }

    /// As [`planned`].
    ///
    /// # Errors
    /// As [`plan`].
    pub fn planned(&self, request: &Request) -> Result<PlannedRequest> {
        let mut loaded = self.loaded();
        let planned = of_headers(request, &mut loaded)?;
        let first = &planned.passes[0];
        let plan = match first.rates(&request.user_dirs) {
            Ok(Some(rates)) => planned.plan().timed(&rates),
            Ok(None) => planned.plan(),
            Err(error) => {
                tracing::debug!("the device cannot be measured: {error}");
                planned.plan()
            }
        };
        Ok(PlannedRequest {
            recipe: first.recipe.clone(),
            plan,
            fallback: loaded.fallback().map(str::to_owned),
        })
    }

    fn loaded(&self) -> Loaded {
        Loaded::with_tokenizers(self.tokenizers.clone())
    }
}

/// Plans `request` from headers. What is left out of a run is an error here.
fn of_headers(request: &Request, loaded: &mut Loaded) -> Result<Planned> {
    let strict = Request {
        strict: true,
        ..request.clone()
    };
    Planned::of(&strict, Looked::AtHeaders, loaded)
}

/// A request with everything that is known before a weight is read.
#[derive(Debug)]
pub(crate) struct Planned {
    /// The model passes, at least one.
    pub(crate) passes: Vec<ModelPass>,
    /// The initial image of the first pass, for image-to-image.
    pub(crate) init_image: Option<LoadedInitImage>,
    /// The upscaling at the end.
    pub(crate) upscaling: Option<Upscaling>,
    /// The default budget of host memory.
    pub(crate) of_host: Bytes,
    /// The limit that the budget comes from.
    pub(crate) budget_from: Limit,
    /// The optional parts that failed, with their errors.
    pub(crate) failed: Vec<(String, Error)>,
    /// What earlier requests have cached for each pass; empty without a cache.
    cached: Vec<CachedBytes>,
}

/// What a run is planned for.
#[derive(Debug, Clone, Copy)]
struct Conditions<'a> {
    request: &'a Request,
    tokenizers: &'a Tokenizers,
    weight_options: &'a WeightOptions,
    host: &'a Allowance,
    /// The limit that the budget comes from.
    budget_from: &'a Limit,
}

/// How thoroughly LoRA files and embeddings are checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Looked {
    /// Only their headers.
    AtHeaders,
    /// Also their values, before they are used.
    AtValues,
}

impl Planned {
    /// Plans `request` without reading the model's weights. What is `loaded` and not used by it is dropped.
    ///
    /// # Errors
    /// A file that it names is missing, the model or the request is wrong, or the budget is too small.
    pub(crate) fn of(request: &Request, looked: Looked, loaded: &mut Loaded) -> Result<Self> {
        named::check(request)?;
        let weight_type = device::weight_type(request.weight_type);
        let weight_options =
            WeightOptions::new(loaded.device(request.device)?, weight_type, Residency::Resident);
        let host = allowance();
        let (budget, budget_from) = match request.memory {
            Some(requested) => (requested, Limit::Requested),
            None => device_budget::default(&weight_options.device, &host)?,
        };
        loaded.begin(&request.model, budget);
        let cache = loaded.cache().cloned();
        let tokenizers = loaded.tokenizers().clone();
        let conditions = Conditions {
            request,
            tokenizers: &tokenizers,
            weight_options: &weight_options,
            host: &host,
            budget_from: &budget_from,
        };
        let within = |looked, budget, cache| Self::within(&conditions, looked, budget, cache);
        let planned = within(looked, budget, cache.as_ref()).map_err(|error| match error {
            Error::BudgetTooSmall {
                budget: exceeded,
                smallest,
                stage,
            } => {
                let (smallest, stage) = match exceeded == budget {
                    true => enough(smallest, stage, |budget| {
                        within(Looked::AtHeaders, budget, None).err()
                    }),
                    // The host's memory is not the budget.
                    false => (smallest, stage),
                };
                match budget_from.clone() {
                    Limit::Requested => Error::BudgetTooSmall {
                        budget: exceeded,
                        smallest,
                        stage,
                    },
                    limit => Error::TooLittleLeft {
                        limit,
                        budget: exceeded,
                        smallest,
                        stage,
                    },
                }
            }
            error => error,
        });
        let mut planned = planned?;
        if let Some(cache) = cache {
            planned.take_over(&cache)?;
            let first = &planned.passes[0];
            let process = process_bytes(&first.bundle, &first.weight_options);
            loaded.note_process(Bytes(process));
        }
        Ok(planned)
    }

    /// Sets `cache` as the block cache of all passes, in which text encoders are kept too where they fit, and drops
    /// blocks that no pass can use.
    fn take_over(&mut self, cache: &RequestCache) -> Result<()> {
        self.keep_encoders()?;
        let mut names = Vec::new();
        let of_passes = self.passes.iter().map(|pass| {
            let weight_type = pass.weight_options.weight_type;
            let denoiser = pass.bundle.denoiser_cache_names(weight_type)?;
            names.extend(denoiser.iter().cloned());
            names.push(pass.bundle.vae_cache_name(weight_type)?);
            let encoders = pass.plan.kept_encoders.iter();
            let encoders = encoders.map(|encoder| pass.bundle.components().cache_name(encoder, weight_type));
            let encoders = encoders.collect::<Result<Vec<_>>>()?;
            names.extend(encoders.iter().cloned());
            Ok((denoiser, encoders))
        });
        let of_passes = of_passes.collect::<Result<Vec<_>>>()?;
        cache.blocks.retain(&names);
        let all = cache.bytes().0;
        let new_prompts = self.prompt_bytes()?;
        let leaves = |pass: &ModelPass| pass.plan.leaves_cached();
        let by_all: u64 = self.passes.iter().map(leaves).sum();
        let bytes_of =
            |names: &[String]| -> u64 { names.iter().map(|name| cache.blocks.bytes_of(name)).sum() };
        self.cached = self
            .passes
            .iter()
            .zip(&of_passes)
            .map(|(pass, (denoiser, encoders))| {
                let denoiser = bytes_of(denoiser);
                let others = all.saturating_sub(denoiser + bytes_of(encoders));
                CachedBytes {
                    denoiser,
                    others: others + new_prompts + (by_all - leaves(pass)),
                }
            })
            .collect();
        for (pass, (_, encoders)) in self.passes.iter_mut().zip(of_passes) {
            pass.weight_options.block_cache = Some(cache.blocks.clone());
            pass.encoder_names = encoders;
        }
        Ok(())
    }

    /// Keeps the text encoders that fit into the budget beside the peak of every stage and all else that the run leaves
    /// in the cache, so that they take nothing from the networks of the next request.
    fn keep_encoders(&mut self) -> Result<()> {
        let prompts = self.prompt_bytes()?;
        for index in 0..self.passes.len() {
            for component in self.passes[index].bundle.family.text_encoders().components() {
                let before = self.passes[index].plan.clone();
                let mut kept = before.kept_encoders.clone();
                kept.push(component.encoder);
                self.passes[index].plan = before.clone().keeping_encoders(&kept);
                if self.peak_beside_all(prompts) > before.budget {
                    self.passes[index].plan = before;
                }
            }
        }
        Ok(())
    }

    /// The peak of the run, without a budget, if the run before was of the same kind and all that it left is cached.
    fn peak_beside_all(&self, prompts: u64) -> Bytes {
        let leaves = |pass: &ModelPass| pass.plan.leaves_cached();
        let by_all: u64 = self.passes.iter().map(leaves).sum();
        let peaks = self.passes.iter().map(|pass| {
            let plan = &pass.plan;
            let unlimited = Plan {
                budget: Bytes(u64::MAX),
                ..plan.clone()
            };
            let mut cached = plan.cached_by_itself();
            // The prompts of the request before and its own.
            cached.others += 2 * prompts + (by_all - leaves(pass));
            unlimited.with_cached(cached).predicted_peak
        });
        let upscaling = self.upscaling.iter();
        let upscaling =
            upscaling.map(|upscaling| Bytes(upscaling.plan.predicted_peak.0 + by_all + 2 * prompts));
        peaks.chain(upscaling).max().unwrap_or_default()
    }

    /// Bytes of the encoded prompts of all passes.
    fn prompt_bytes(&self) -> Result<u64> {
        self.passes.iter().map(ModelPass::prompt_bytes).sum()
    }

    /// As [`of`](Self::of), within `budget`.
    fn within(
        conditions: &Conditions<'_>,
        looked: Looked,
        budget: Bytes,
        cache: Option<&RequestCache>,
    ) -> Result<Self> {
        let Conditions {
            request,
            tokenizers,
            weight_options,
            host,
            budget_from,
        } = *conditions;
        let mut bundle = Bundle::open_with(&request.model.files, tokenizers)?;
        let mut failed = Vec::new();
        for lora in &request.loras {
            if let Err(error) = bundle.adapt(lora, looked == Looked::AtValues) {
                failed.push((format!("the LoRA `{}`", lora.name), error));
            }
        }
        for embedding in &request.embeddings {
            if let Err(error) = bundle.embed(embedding, looked == Looked::AtValues) {
                failed.push((format!("the embedding `{}`", embedding.name), error));
            }
        }
        let mut init_image = request.init.as_ref().map(InitImageSource::open).transpose()?;
        let init_size = init_image.as_ref().and_then(InitImageSource::nearest_size);
        let mut recipe = Recipe::new(request, &bundle, init_size)?;
        let mut mask_failed = match (&mut init_image, &request.init) {
            (Some(init_image), Some(init)) => init_image.open_mask(init, recipe.size).err(),
            _ => None,
        };
        let mut controls_failed = Vec::new();
        for control in &request.controls {
            if let Err(error) = bundle.control(control, recipe.size) {
                controls_failed.push((control.clone(), error));
            }
        }
        let of_init_image = init_image
            .as_ref()
            .map(|init_image| init_image.bytes(recipe.size));
        let of_controls = bundle.controls().iter().map(Control::source_image_bytes);
        let source_images = of_controls.fold(of_init_image.unwrap_or_default(), SourceImageBytes::and);
        if let Some(cache) = cache {
            let process = process_bytes(&bundle, weight_options);
            cache.limit_to(budget.saturating_sub(Bytes(process + source_images.most())));
        }
        let mut loaded_init_image = None;
        // If they do not fit, the plan below fails with the smallest budget.
        if fits(source_images, &bundle, weight_options, budget, host.budget())? {
            if let Some(init_image) = init_image {
                let (loaded, failed) = init_image.read(recipe.size)?;
                loaded_init_image = Some(loaded);
                mask_failed = mask_failed.or(failed);
            }
            controls_failed.extend(bundle.read_controls());
        }
        if let (Some(error), Some(init)) = (mask_failed, &request.init) {
            let mask = init.mask.as_deref().unwrap_or(&init.image);
            failed.push((format!("the mask `{}`", mask.display()), error));
            let mut without = request.clone();
            without.init.iter_mut().for_each(|init| init.mask = None);
            recipe = Recipe::new(&without, &bundle, init_size)?;
        }
        let titled =
            |(control, error): (ControlChoice, Error)| (format!("the ControlNet `{}`", control.name), error);
        failed.extend(controls_failed.into_iter().map(titled));
        let surroundings = Surroundings {
            alone: request.refiner.is_none() && request.upscale.is_none(),
            other_prompts: 0,
        };
        let (free_memory, source_images_read) = (host.bytes, source_images.once_read());
        let first = ModelPass::new(
            bundle,
            recipe,
            weight_options,
            surroundings,
            budget,
            free_memory,
            source_images,
        )?;
        let mut passes = vec![first];
        if let Some(refiner) = &request.refiner {
            let pass = Bundle::open_with(&refiner.model.files, tokenizers).and_then(|bundle| {
                let first = &passes[0];
                if refiner.switch.is_some() {
                    bundle.takes_over_from(&first.bundle)?;
                }
                let recipe = first.recipe.refined(refiner, &bundle)?;
                let surroundings = Surroundings {
                    alone: false,
                    other_prompts: first.prompt_bytes()?,
                };
                ModelPass::new(
                    bundle,
                    recipe,
                    weight_options,
                    surroundings,
                    budget,
                    free_memory,
                    source_images_read,
                )
            });
            match pass {
                Ok(pass) => {
                    passes[0].surroundings.other_prompts = pass.prompt_bytes()?;
                    passes[0].replan(budget)?;
                    passes.push(pass);
                }
                Err(error) => {
                    // Without a refiner the base model runs the whole schedule.
                    passes[0].recipe.denoising_range = DenoisingRange::Full;
                    passes[0].surroundings.alone = request.upscale.is_none();
                    passes[0].replan(budget)?;
                    failed.push((messages::refiner(&refiner.model.name), error));
                }
            }
        }
        let mut upscaling = None;
        if let Some(choice) = &request.upscale {
            let last = &passes[passes.len() - 1];
            let prompts = match last.recipe.images {
                1 => 0,
                _ => passes.iter().map(ModelPass::prompt_bytes).sum::<Result<u64>>()?,
            };
            match Upscaling::of(choice, last, prompts, weight_options, budget) {
                Ok(found) => upscaling = Some(found),
                Err(error) => failed.push((format!("upscaling by {}", choice.factor), error)),
            }
        }
        // A budget that is too small is always an error, and with `strict` every failure is.
        let is_hard = |error: &Error| request.strict || matches!(error, Error::BudgetTooSmall { .. });
        if let Some(index) = failed.iter().position(|(_, error)| is_hard(error)) {
            return Err(failed.swap_remove(index).1);
        }
        settle_groups(&mut passes, upscaling.as_mut());
        Ok(Self {
            passes,
            init_image: loaded_init_image,
            upscaling,
            of_host: host.budget(),
            budget_from: budget_from.clone(),
            failed,
            cached: Vec::new(),
        })
    }

    /// The combined plan of all passes.
    pub(crate) fn plan(&self) -> Plan {
        let plans = self.passes.iter().enumerate().map(|(index, pass)| {
            let plan = pass.plan.clone();
            match self.cached.get(index) {
                Some(cached) => plan.with_cached(*cached),
                None => plan,
            }
        });
        let plan = plans
            .reduce(Plan::followed_by)
            .expect("a run has a pass. This is a bug.");
        let plan = Plan {
            budget_from: self.budget_from.clone(),
            ..plan
        };
        match &self.upscaling {
            Some(upscaling) => {
                let mut stage = upscaling.plan.clone();
                if let (Some(cached), Some(pass)) = (self.cached.last(), self.passes.last()) {
                    let all = cached.denoiser + cached.others + pass.plan.leaves_cached();
                    stage.add_cached(all, plan.budget.0);
                }
                plan.with(stage)
            }
            None => plan,
        }
    }
}

/// The smallest budget that the whole run fits into, and the stage that needs it. The first stage that does not fit
/// needs `smallest`; with that much `error` may find another that needs more.
fn enough(
    mut smallest: Bytes,
    mut stage: &'static str,
    error: impl Fn(Bytes) -> Option<Error>,
) -> (Bytes, &'static str) {
    while let Some(Error::BudgetTooSmall {
        smallest: more,
        stage: of_more,
        ..
    }) = error(smallest)
        && more > smallest
    {
        (smallest, stage) = (more, of_more);
    }
    (smallest, stage)
}

/// Gives all model passes the largest group size that any of them prefers, as far as it fits.
fn settle_groups(passes: &mut [ModelPass], upscaling: Option<&mut Upscaling>) {
    let plans = || passes.iter().map(|pass| &pass.plan);
    let wanted = plans().map(|plan| plan.groups.images_a_group).max();
    let most = plans().map(|plan| plan.groups.most_images).min();
    let budget = passes[0].plan.budget;
    let of_upscaling = upscaling
        .as_ref()
        .map_or(usize::MAX, |upscaling| upscaling.most_images_a_group(budget));
    let group = wanted.min(most).unwrap_or(1).min(of_upscaling);
    for pass in passes.iter_mut() {
        pass.plan = pass.plan.clone().in_groups_of(group);
    }
    if let Some(upscaling) = upscaling {
        let groups = &passes[0].plan.groups;
        upscaling.in_groups_of(groups.images_a_group, groups.groups);
    }
}

/// Whether `source_images` can be read within `budget`, or, if that is the budget of a device's own memory,
/// within `of_host`.
///
/// # Errors
/// The host has not enough memory for them. For a host budget the plan gives a better error.
fn fits(
    source_images: SourceImageBytes,
    bundle: &Bundle,
    weight_options: &WeightOptions,
    budget: Bytes,
    of_host: Bytes,
) -> Result<bool> {
    if device_budget::process(&weight_options.device).is_none() {
        return Ok(process_bytes(bundle, weight_options) + source_images.most() <= budget.0);
    }
    if source_images.most() <= of_host.0 {
        return Ok(true);
    }
    Err(Error::BudgetTooSmall {
        budget: of_host,
        smallest: Bytes(source_images.most()),
        stage: SOURCE_IMAGES,
    })
}
