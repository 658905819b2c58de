//! Encodes the prompts of several requests ahead of them, so that each text encoder is read once for all.

use sd_memory::Bytes;
use sd_weights::{Residency, WeightOptions};

use crate::bundle::Bundle;
use crate::event::{Event, Interrupt, Observer};
use crate::identity::ModelIdentity;
use crate::loaded::Loaded;
use crate::memory::{allowance, cleanup_memory};
use crate::plan::{encoder_bytes, encoding_peak, process_bytes};
use crate::prompt_cache::{AheadEntries, PromptCache};
use crate::recipe::Recipe;
use crate::request::{ModelChoice, Request};
use crate::resume::RunName;
use crate::stage_progress::StageProgress;
use crate::{Error, Result, clock, device, device_budget};

/// What is held of each batch of prompts between two blocks of an encoder, beside one that is encoded: its vectors
/// before and after the blocks, and those of the other encoders, each at most as large as its context.
const CONTEXTS_HELD: u64 = 3;

/// The name of the stage.
const STAGE: &str = "encode prompts";

/// Encodes the prompts of `requests` that share their text encoders with another one. What cannot be encoded is left to
/// the run of its request, which reports why.
///
/// # Errors
/// The run was interrupted.
pub(super) fn encode(
    requests: &[&Request],
    loaded: &mut Loaded,
    observer: &mut dyn Observer,
    interrupt: &Interrupt,
) -> Result<Vec<AheadEntries>> {
    let mut entries = Vec::new();
    for batch in with_the_same_encoders(requests) {
        if batch.len() == 1 || batch[0].model.files.is_embedded() {
            continue;
        }
        let outcome = of_models(&batch, loaded, observer, interrupt);
        cleanup_memory(true);
        match outcome {
            Ok(kept) => entries.extend(kept),
            Err(Error::Interrupted) => return Err(Error::Interrupted),
            Err(error) => tracing::debug!("the prompts are encoded one by one: {error}"),
        }
    }
    Ok(entries)
}

/// Groups `requests` whose prompts are encoded by the same encoders in the same way.
fn with_the_same_encoders<'r>(requests: &[&'r Request]) -> Vec<Vec<&'r Request>> {
    let is_same_model = |one: &ModelChoice, other: &ModelChoice| {
        let (one, other) = (&one.files, &other.files);
        one.path() == other.path() && one.networks == other.networks && one.prediction == other.prediction
    };
    let is_same = |one: &Request, other: &Request| {
        let is_same_refiner = match (&one.refiner, &other.refiner) {
            (Some(one), Some(other)) => is_same_model(&one.model, &other.model),
            (None, None) => true,
            _ => false,
        };
        is_same_refiner
            && is_same_model(&one.model, &other.model)
            && one.loras == other.loras
            && one.embeddings == other.embeddings
            && one.clip_skip == other.clip_skip
            && one.device == other.device
            && one.weight_type == other.weight_type
            && one.user_dirs == other.user_dirs
    };
    let mut groups: Vec<Vec<&Request>> = Vec::new();
    for &request in requests {
        match groups.iter_mut().find(|group| is_same(group[0], request)) {
            Some(group) => group.push(request),
            None => groups.push(vec![request]),
        }
    }
    groups
}

/// Encodes the prompts of `requests`, which have the same models.
fn of_models(
    requests: &[&Request],
    loaded: &mut Loaded,
    observer: &mut dyn Observer,
    interrupt: &Interrupt,
) -> Result<Vec<AheadEntries>> {
    let first = requests[0];
    let device = loaded.device(first.device)?;
    let options = WeightOptions::new(
        device,
        device::weight_type(first.weight_type),
        Residency::Streamed,
    );
    let budgets = requests.iter().map(|request| match request.memory {
        Some(requested) => Ok(requested),
        None => Ok(device_budget::default(&options.device, &allowance())?.0),
    });
    let budgets = budgets.collect::<Result<Vec<Bytes>>>()?;
    let budget = budgets.into_iter().min().unwrap_or(Bytes(0));
    loaded.begin(&first.model, budget);

    let mut bundle = Bundle::open_with(&first.model.files, loaded.tokenizers())?;
    // A part that fails is left out here as in the run.
    for lora in &first.loras {
        let _ = bundle.adapt(lora, false);
    }
    for embedding in &first.embeddings {
        let _ = bundle.embed(embedding, false);
    }
    let recipes = requests.iter().map(|request| Recipe::new(request, &bundle, None));
    let recipes = recipes.collect::<Result<Vec<_>>>()?;
    let mut work = Work {
        request: first,
        options: &options,
        budget,
        loaded,
        observer,
        interrupt,
    };
    let mut entries = Vec::new();
    entries.extend(work.encode(&bundle, &recipes)?);
    if let Some(refiner) = &first.refiner {
        let bundle = Bundle::open_with(&refiner.model.files, work.loaded.tokenizers())?;
        let refined = requests.iter().zip(&recipes).filter_map(|(request, recipe)| {
            let refiner = request.refiner.as_ref()?;
            Some(recipe.refined(refiner, &bundle))
        });
        let refined = refined.collect::<Result<Vec<_>>>()?;
        entries.extend(work.encode(&bundle, &refined)?);
    }
    Ok(entries)
}

/// What the encoding needs.
struct Work<'a> {
    /// One of the requests.
    request: &'a Request,
    options: &'a WeightOptions,
    budget: Bytes,
    loaded: &'a Loaded,
    observer: &'a mut dyn Observer,
    interrupt: &'a Interrupt,
}

impl Work<'_> {
    /// Encodes the prompts of `recipes` with the encoders of `bundle`: all at once if the budget allows it, else as
    /// many as it allows.
    fn encode(&mut self, bundle: &Bundle, recipes: &[Recipe]) -> Result<Option<AheadEntries>> {
        let options = self.options;
        let clip_skip = recipes.first().map_or(0, |recipe| recipe.clip_skip);
        let identity = ModelIdentity::of(bundle)?;
        let cached = self.loaded.cache();
        let cache = PromptCache::new(
            &self.request.user_dirs,
            bundle,
            &identity,
            &RunName::new(&clock::now()),
            cached.map(|cache| cache.prompts.clone()),
        );
        if !cache.keeps() {
            return Ok(None);
        }
        let batches: Vec<Vec<&str>> = recipes.iter().map(|recipe| recipe.texts(bundle)).collect();
        let missing = cache.missing(bundle, &batches, clip_skip, options)?;
        if missing.len() < 2 {
            return Ok(None);
        }
        let encoders = bundle.family.text_encoders();
        let (mut peak, mut context) = (Bytes(0), 0);
        for batch in &missing {
            let values = batch.prompts.len() * encoders.tokens(&batch.prompts)? * encoders.context_features();
            let bytes = (values * size_of::<f32>()) as u64;
            if bytes > context {
                context = bytes;
                peak = encoding_peak(bundle, &batch.prompts, clip_skip, options)?;
            }
        }
        let held = CONTEXTS_HELD * context;
        let at_once = self.budget.saturating_sub(peak).0 / held.max(1);
        let at_once = (at_once as usize).min(missing.len());
        if at_once < 2 {
            return Ok(None);
        }
        let peak = Bytes(peak.0 + held * at_once as u64);
        // What the cache may hold beside the encoders.
        let left = self.budget.saturating_sub(peak);
        if let Some(cache) = cached {
            cache.limit_to(left);
        }
        device_budget::bound(&options.device, peak, process_bytes(bundle, options))?;
        let entries = cache.ahead_entries();
        let expected = encoder_bytes(bundle, clip_skip, options)?;
        let bytes = context.saturating_mul(missing.len() as u64);
        for batches in missing.chunks(at_once) {
            self.interrupt.check()?;
            self.observer.observe(&Event::Stage {
                stage: STAGE,
                progress: StageProgress::begin(Some(expected)),
            });
            cache.encode_ahead(
                bundle,
                batches,
                (bytes, left.0),
                clip_skip,
                options,
                self.interrupt,
            )?;
        }
        Ok(entries)
    }
}
