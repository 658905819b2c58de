//! One model's part of a run.

use std::sync::Arc;

use sd_memory::{Bytes, MemoryInfo, memory_info};
use sd_weights::{Holding, Residency};

use super::enlargement::Enlargement;
use super::words;
use crate::bundle::Bundle;
use crate::plan::Plan;
use crate::recipe::{Recipe, Share};
use crate::request::Request;
use crate::source_image::SourceImage;
use crate::stage::Mask;
use crate::{Error, Result, device, device_budget, stage};

/// One model's part of a run: its files, the settings that it draws with, and where its bytes will live. The first draws;
/// one after it refines what the one before has drawn.
#[derive(Debug)]
pub(crate) struct Leg {
    pub(crate) bundle: Arc<Bundle>,
    pub(crate) recipe: Recipe,
    pub(crate) plan: Plan,
    /// How its networks are held.
    pub(crate) holding: Holding,
}

/// A request with everything that is known of it before a weight is read.
#[derive(Debug)]
pub(crate) struct Planned {
    /// At least one.
    pub(crate) legs: Vec<Leg>,
    /// How pictures are made larger in the end.
    pub(crate) enlargement: Option<Enlargement>,
    /// What of the host's memory a run may have where nobody says.
    pub(crate) of_host: Bytes,
    /// What cannot be had of what was asked for beside the picture, and why.
    pub(crate) failed: Vec<(String, Error)>,
}

impl Planned {
    pub(crate) fn of(request: &Request) -> Result<Self> {
        let weight_type = device::weight_type(request.weight_type);
        let holding = Holding::new(device::open(request.device)?, weight_type, Residency::Resident);
        let memory = memory_info();
        let of_host = device_budget::less_margin(room(&memory).0);
        let default = match device_budget::available(&holding.device)? {
            Some(of_device) => device_budget::less_margin(of_device.0),
            None => of_host,
        };
        let budget = request.memory.unwrap_or(default);

        let mut bundle = Bundle::open(&request.model.folder)?;
        let mut failed = Vec::new();
        for lora in &request.loras {
            if let Err(error) = bundle.adapt(lora) {
                failed.push((format!("the LoRA `{}`", lora.name), error));
            }
        }
        let init_size = match &request.init {
            Some(init) => SourceImage::open(&init.image)?.nearest_size(),
            None => None,
        };
        let mut recipe = Recipe::new(request, &bundle, init_size)?;
        if let Some(mask) = request.init.as_ref().and_then(|init| init.mask.as_deref())
            && let Err(error) = Mask::open(mask, recipe.size)
        {
            failed.push((format!("the mask `{}`", mask.display()), error));
            let mut without = request.clone();
            without.init.iter_mut().for_each(|init| init.mask = None);
            recipe = Recipe::new(&without, &bundle, init_size)?;
        }
        for control in &request.controls {
            if let Err(error) = bundle.control(control, recipe.size) {
                failed.push((format!("the ControlNet `{}`", control.name), error));
            }
        }
        let mut legs = vec![Leg::new(bundle, recipe, &holding, budget, room(&memory))?];
        if let Some(refiner) = &request.refiner {
            let leg = Bundle::open(&refiner.model.folder).and_then(|bundle| {
                let first = &legs[0];
                if refiner.switch.is_some() {
                    bundle.takes_over_from(&first.bundle)?;
                }
                let recipe = first.recipe.refined(refiner, &bundle)?;
                Leg::new(bundle, recipe, &holding, budget, room(&memory))
            });
            match leg {
                Ok(leg) => legs.push(leg),
                Err(error) => {
                    // Nobody takes the latents over: the model goes all the way.
                    legs[0].recipe.share = Share::Whole;
                    legs[0].replan(budget)?;
                    failed.push((words::refiner(&refiner.model.name), error));
                }
            }
        }
        let mut enlargement = None;
        if let Some(choice) = &request.upscale {
            let Recipe { size, images, .. } = legs[0].recipe;
            match Enlargement::of(choice, size, images, &holding, budget) {
                Ok(found) => enlargement = Some(found),
                Err(error) => failed.push((format!("upscaling by {}", choice.factor), error)),
            }
        }
        // A budget that cannot be met is for the user to say more of, and with `strict` everything is.
        let is_hard = |error: &Error| request.strict || matches!(error, Error::BudgetTooSmall { .. });
        if let Some(index) = failed.iter().position(|(_, error)| is_hard(error)) {
            return Err(failed.swap_remove(index).1);
        }
        Ok(Self {
            legs,
            enlargement,
            of_host,
            failed,
        })
    }

    /// The plans of all legs as one.
    pub(crate) fn plan(&self) -> Plan {
        let plans = self.legs.iter().map(|leg| leg.plan.clone());
        let plan = plans
            .reduce(Plan::followed_by)
            .expect("a run has a leg. This is a bug.");
        match self
            .enlargement
            .as_ref()
            .and_then(|enlargement| enlargement.plan.clone())
        {
            Some(stage) => plan.with(stage),
            None => plan,
        }
    }
}

impl Leg {
    fn new(bundle: Bundle, recipe: Recipe, holding: &Holding, budget: Bytes, room: Bytes) -> Result<Self> {
        stage::check(&bundle, &recipe)?;
        let plan = Plan::new(&bundle, &recipe, holding, budget, room)?;
        Ok(Self {
            bundle: Arc::new(bundle),
            recipe,
            holding: Holding {
                residency: plan.residency(),
                page_cache: plan.page_cache(),
                ..holding.clone()
            },
            plan,
        })
    }

    /// Plans anew, within `budget`.
    pub(crate) fn replan(&mut self, budget: Bytes) -> Result<()> {
        let room = room(&memory_info());
        let plan = Plan::new(&self.bundle, &self.recipe, &self.holding, budget, room)?;
        self.holding.residency = plan.residency();
        self.holding.page_cache = plan.page_cache();
        self.plan = plan;
        Ok(())
    }
}

/// What this process may come to have without anybody else having less.
fn room(memory: &MemoryInfo) -> Bytes {
    Bytes(memory.system_available.0 + memory.process.0)
}
