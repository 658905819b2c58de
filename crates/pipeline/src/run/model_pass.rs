//! One pass for each model of a run, base or refiner: its files, its recipe and its plan.

use std::sync::Arc;
use std::time::Duration;

use candle_core::DType;
use sd_memory::Bytes;
use sd_ops::Rates;
use sd_weights::WeightOptions;

use crate::bundle::Bundle;
use crate::measured_rates::{self, MeasuredStep};
use crate::memory::{allowance, cleanup_memory};
use crate::plan::{self, Plan, SourceImageBytes, Surroundings};
use crate::recipe::Recipe;
use crate::user_dirs::UserDirs;
use crate::{Result, stage};

/// The pass of one model over the images of a run. The base model has the first pass, a refiner the second.
#[doc(alias = "base")]
#[doc(alias = "refiner")]
#[derive(Debug)]
pub(crate) struct ModelPass {
    pub(crate) bundle: Arc<Bundle>,
    pub(crate) recipe: Recipe,
    pub(crate) plan: Plan,
    /// How its weights are held.
    pub(crate) weight_options: WeightOptions,
    /// The other stages of a group of images.
    pub(crate) surroundings: Surroundings,
    /// The memory of the user's images.
    pub(super) source_images: SourceImageBytes,
    /// The names in the block cache of the text encoders that the plan keeps.
    pub(super) encoder_names: Vec<String>,
    /// The type of the denoising network's weights, on which the rates of the device depend, if it is one in which
    /// they are computed.
    rated_type: Option<DType>,
}

impl ModelPass {
    pub(super) fn new(
        bundle: Bundle,
        recipe: Recipe,
        weight_options: &WeightOptions,
        surroundings: Surroundings,
        budget: Bytes,
        free_memory: Bytes,
        source_images: SourceImageBytes,
    ) -> Result<Self> {
        stage::check(&bundle, &recipe)?;
        let plan = Plan::new(
            &bundle,
            &recipe,
            weight_options,
            surroundings,
            budget,
            free_memory,
            source_images,
        )?;
        let weights = bundle.weights(bundle.family.component(), weight_options)?;
        Ok(Self {
            rated_type: weights.main_held_type(),
            bundle: Arc::new(bundle),
            recipe,
            weight_options: WeightOptions {
                residency: plan.residency(),
                page_cache: plan.page_cache(),
                ..weight_options.clone()
            },
            plan,
            source_images,
            surroundings,
            encoder_names: Vec::new(),
        })
    }

    /// Bytes of its encoded prompts.
    pub(super) fn prompt_bytes(&self) -> Result<u64> {
        plan::prompt_bytes(&self.bundle, &self.recipe)
    }

    /// The rates of its device with weights of the denoising network's type, if they are known or can be measured.
    ///
    /// # Errors
    /// The device fails while it is measured.
    pub(super) fn rates(&self, user_dirs: &UserDirs) -> Result<Option<Rates>> {
        let of_type = |weight_type| measured_rates::of(&self.weight_options.device, weight_type, user_dirs);
        self.rated_type.map(of_type).transpose()
    }

    /// The `plan` of the whole run with the time of each stage, as far as the rates of the device are in the cache, or
    /// the run is so long and so large that measuring them matters neither for its time nor for its memory.
    pub(super) fn timed(&self, plan: Plan, user_dirs: &UserDirs) -> Plan {
        /// Multiply-adds that keep a CPU of two cores busy for half a minute.
        const LONG: u64 = 1_000_000_000_000;
        /// Several times what the measurement takes.
        const LARGE: Bytes = Bytes(512 << 20);
        let work = plan.stages.iter().map(|stage| stage.arithmetic.multiply_adds);
        let is_long = work.fold(0, u64::saturating_add) >= LONG;
        let rates = if is_long && plan.predicted_peak >= LARGE {
            let rates = self.rates(user_dirs);
            cleanup_memory(true);
            rates
        } else {
            Ok(self.known_rates(user_dirs))
        };
        match rates {
            Ok(Some(rates)) => plan.timed(&rates),
            Ok(None) => plan,
            Err(error) => {
                tracing::debug!("the device cannot be measured: {error}");
                plan
            }
        }
    }

    /// As [`rates`](Self::rates), only from the cache.
    fn known_rates(&self, user_dirs: &UserDirs) -> Option<Rates> {
        measured_rates::known(&self.weight_options.device, self.rated_type?, user_dirs)
    }

    /// Compares the cached rates of its device with a step of one image, of which this is the `fastest`.
    pub(super) fn compare_rates(&self, fastest: Duration, user_dirs: &UserDirs) {
        let Some(weight_type) = self.rated_type else {
            return;
        };
        let step = MeasuredStep {
            arithmetic: self.plan.arithmetic_of_step(),
            duration: fastest,
            reads_files: self.plan.streams() || !self.plan.controls_stay,
        };
        measured_rates::compare(&self.weight_options.device, weight_type, user_dirs, step);
    }

    /// Makes a new plan within `budget`. The groups of images stay as they are.
    pub(crate) fn replan(&mut self, budget: Bytes) -> Result<()> {
        let free_memory = allowance().bytes;
        let plan = Plan::new(
            &self.bundle,
            &self.recipe,
            &self.weight_options,
            self.surroundings,
            budget,
            free_memory,
            self.source_images,
        )?;
        self.weight_options.residency = plan.residency();
        self.weight_options.page_cache = plan.page_cache();
        self.plan = plan;
        // The new plan keeps none.
        self.encoder_names.clear();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::path::Path;
    use std::sync::Mutex;

    use candle_core::Device;
    use sd_weights::{
        Checkpoint, FileIdentity, ModelFile, ModelFiles, ModelFolder, ModelSource, Residency, SourcePart,
        TokenizerFiles, WeightType,
    };

    use super::*;
    use crate::{ModelChoice, Recommended, Request};

    /// A model that counts how often the headers of each component are read.
    #[derive(Debug)]
    struct Counting {
        folder: ModelFolder,
        opened: Mutex<BTreeMap<String, usize>>,
    }

    impl ModelSource for Counting {
        fn path(&self) -> &Path {
            self.folder.path()
        }

        fn is_embedded(&self) -> bool {
            false
        }

        fn exists(&self) -> bool {
            true
        }

        fn has_config(&self, component: &str) -> bool {
            self.folder.has_config(component)
        }

        fn config(&self, component: &str) -> sd_weights::Result<ModelFile> {
            self.folder.config(component)
        }

        fn checkpoint(&self, component: &str) -> sd_weights::Result<Checkpoint> {
            *self
                .opened
                .lock()
                .unwrap()
                .entry(component.to_owned())
                .or_default() += 1;
            self.folder.checkpoint(component)
        }

        fn tokenizer(&self, component: &str) -> sd_weights::Result<TokenizerFiles> {
            self.folder.tokenizer(component)
        }

        fn vocabulary_bytes(&self, component: &str) -> u64 {
            self.folder.vocabulary_bytes(component)
        }

        fn identity(&self, part: SourcePart<'_>) -> sd_weights::Result<Vec<FileIdentity>> {
            self.folder.identity(part)
        }

        fn known_sha256(&self, component: &str) -> Option<String> {
            self.folder.known_sha256(component)
        }
    }

    #[test]
    fn a_pass_reads_the_headers_of_each_network_once() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/families/sd15");
        let source = Arc::new(Counting {
            folder: ModelFolder::on_disk(folder),
            opened: Mutex::default(),
        });
        let request = Request::new(
            "a red circle",
            ModelChoice {
                name: "sd15".to_owned(),
                files: ModelFiles::at(folder),
                recommended: Recommended::default(),
            },
        );
        let options = WeightOptions::new(Device::Cpu, WeightType::AsStored, Residency::Resident);
        let bundle = Bundle::from_source(source.clone()).unwrap();
        let recipe = Recipe::new(&request, &bundle, None).unwrap();
        let (budget, none) = (Bytes(1 << 30), SourceImageBytes::default());
        let pass = ModelPass::new(
            bundle,
            recipe,
            &options,
            Surroundings::ALONE,
            budget,
            budget,
            none,
        )
        .unwrap();
        pass.bundle.denoising_network(&options, &options).unwrap();
        let once = ["text_encoder", "unet", "vae"].map(|component| (component.to_owned(), 1));
        assert_eq!(*source.opened.lock().unwrap(), BTreeMap::from(once));
    }
}
