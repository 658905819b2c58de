//! From a job to the request of the pipeline: its settings over those of the user, its names resolved to what is on this
//! machine, and its plan. Nothing is downloaded.

use std::fmt;
use std::path::{Path, PathBuf};

use sd_catalog::{Catalog, Configuration, Layers, Resolved, Settings, user_dirs};
use sd_pipeline::seed::Seeds;
use sd_pipeline::{PlannedRequest, Planner, Request, UserDirs};

use crate::job::{Inputs, Invalid, JobRequest, PlanView, SeedField};
use crate::options::Limits;

/// Why a job cannot be run.
#[derive(Debug)]
pub(crate) enum Unusable {
    /// A field of its request is wrong.
    Invalid(Invalid),
    /// Something that it names is not here, or settings contradict each other.
    Catalog(sd_catalog::Error),
    /// Its model is wrong, or it does not fit.
    Pipeline(sd_pipeline::Error),
}

impl fmt::Display for Unusable {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Invalid(invalid) => write!(formatter, "{}: {}", invalid.field, invalid.reason),
            Self::Catalog(error) => error.fmt(formatter),
            Self::Pipeline(error) => error.fmt(formatter),
        }
    }
}

impl Unusable {
    /// What a client can do about it.
    pub(crate) fn hint(&self) -> Option<String> {
        let meant = |similar: &Option<String>| {
            let similar = similar.as_ref().map(|name| format!("did you mean `{name}`? "));
            similar.unwrap_or_default() + "GET /api/models lists what requests may name"
        };
        Some(match self {
            Self::Pipeline(sd_pipeline::Error::BudgetTooSmall { smallest, .. }) => format!(
                "use a smaller `size`, or start the server with --memory {} or more",
                smallest.as_budget()
            ),
            Self::Pipeline(sd_pipeline::Error::TooLittleLeft { smallest, .. }) => format!(
                "use a smaller `size`, or close other programs: {} are enough",
                smallest.as_budget()
            ),
            Self::Catalog(sd_catalog::Error::NothingAt {
                name, similar: None, ..
            }) if sd_catalog::reference(name).is_some() => format!(
                "`generate models pull {name}` downloads it, on the server; GET /api/models lists what requests may name"
            ),
            Self::Catalog(
                sd_catalog::Error::NothingAt { similar, .. } | sd_catalog::Error::NoPreset { similar, .. },
            ) => meant(similar),
            Self::Catalog(sd_catalog::Error::NoNetwork { .. }) => meant(&None),
            Self::Catalog(
                sd_catalog::Error::NotInstalled { reference, .. }
                | sd_catalog::Error::PartlyInstalled { reference, .. },
            ) => format!("`generate models pull {reference}` downloads it, on the server"),
            _ => return None,
        })
    }
}

/// The folders of a job.
#[derive(Debug)]
pub(crate) struct JobFolder(PathBuf);

impl JobFolder {
    pub(crate) fn new(path: PathBuf) -> Self {
        Self(path)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    /// The images that came with it.
    pub(crate) fn inputs(&self) -> Inputs {
        Inputs::new(self.0.join("inputs"))
    }

    /// Its own images.
    pub(crate) fn images(&self) -> PathBuf {
        self.0.join("images")
    }

    /// The parent of the state of its run, from which a run that was interrupted goes on.
    pub(crate) fn state(&self) -> PathBuf {
        self.0.join("state")
    }

    /// The directories of its run: its own state, and the caches of the user.
    pub(crate) fn user_dirs(&self) -> UserDirs {
        UserDirs {
            state: Some(self.state()),
            cache: user_dirs().cache,
        }
    }
}

/// What whoever starts a server or a worker decides about requests.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Terms<'a> {
    pub(crate) configuration: &'a Configuration,
    /// The only models that requests may name, if they are limited.
    pub(crate) models: Option<&'a [String]>,
    pub(crate) limits: &'a Limits,
    /// Plans jobs.
    pub(crate) planner: &'a Planner,
}

impl Terms<'_> {
    /// The catalog that the names of requests are resolved with.
    pub(crate) fn catalog(&self) -> Catalog {
        let models = self.models.map(<[String]>::to_vec);
        Catalog::new(self.configuration)
            .for_others(self.configuration, models)
            .planning_with(self.planner.clone())
    }

    /// Plans `request`. The plan is what the command prints for it.
    ///
    /// # Errors
    /// The model is wrong, or the run does not fit into the memory.
    pub(crate) fn planned(&self, request: &Request) -> Result<PlannedRequest, Unusable> {
        self.planner.planned(request).map_err(Unusable::Pipeline)
    }
}

/// The request of the pipeline for a job whose images are in `folder`.
///
/// # Errors
/// The job cannot be run.
pub(crate) fn request(job: &JobRequest, folder: &JobFolder, terms: Terms<'_>) -> Result<Request, Unusable> {
    let typed = Settings {
        output: Some(
            folder
                .images()
                .join(format!("{{date}}_{{time}}_%03d.{}", job.extension())),
        ),
        ..job.settings(terms.limits).map_err(Unusable::Invalid)?
    };
    let catalog = terms.catalog();
    let inputs = folder.inputs().of(job);
    let layers = Layers::new(typed, terms.configuration).map_err(Unusable::Catalog)?;
    let layered = match layers.settled() {
        Some(layered) => layered,
        None => layers
            .best_that_fits(&catalog, &inputs, None)
            .map_err(Unusable::Catalog)?,
    };
    inputs.check().map_err(Unusable::Catalog)?;
    let mut request = Resolved::new(&catalog, inputs, layered)
        .and_then(|resolved| resolved.request(&catalog))
        .map_err(Unusable::Catalog)?;
    request.user_dirs = folder.user_dirs();
    Ok(request)
}

/// What clients are told of a plan.
pub(crate) fn plan_view(planned: &PlannedRequest) -> PlanView {
    let plan = &planned.plan;
    PlanView {
        predicted_peak: plan.predicted_peak.0,
        budget: plan.budget.0,
        smallest_budget: plan.smallest_budget.0,
        seconds: plan.duration.map(|duration| duration.as_secs_f64()),
        streams: plan.streams(),
    }
}

/// Writes the seeds that were chosen into the job, so that it has the same images however often it is begun.
pub(crate) fn fix_seeds(job: &mut JobRequest, request: &Request) {
    job.seed = Some(match &request.seeds {
        Seeds::From(seed) => SeedField::Large(*seed),
        Seeds::Each(seeds) => SeedField::List(seeds.clone()),
    });
}
