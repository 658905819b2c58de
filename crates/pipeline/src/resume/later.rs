//! The requests that follow a run in its batch. They are kept with its state, so that who resumes the run can go on with
//! them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::kept_request::KeptRequest;
use crate::Result;
use crate::bundle::Bundle;
use crate::recipe::Recipe;
use crate::request::{DeviceChoice, ModelChoice, Request};
use crate::source_image::SourceImage;
use crate::user_dirs::UserDirs;

/// The models that requests share, by their files.
pub(crate) type Bundles = BTreeMap<PathBuf, Bundle>;

/// A request that was not begun when its batch was interrupted, with all settings resolved.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(transparent)]
pub struct LaterRequest(pub(super) KeptRequest);

impl LaterRequest {
    /// Each of `requests`, which run on `device`. None for one whose run will fail: that says why.
    pub(crate) fn of_all(requests: &[&Request], device: DeviceChoice) -> Vec<Option<Self>> {
        // Prompts usually share a model, of which configurations count here.
        let mut bundles = Bundles::default();
        let of = |request: &&Request| {
            Self::of(request, &mut bundles, device)
                .inspect_err(|error| tracing::debug!("a later request cannot be kept: {error}"))
                .ok()
        };
        requests.iter().map(of).collect()
    }

    /// The `request` as it runs on `device`, with its model among `bundles`.
    ///
    /// # Errors
    /// Its model or its initial image cannot be opened, or a setting does not suit them.
    pub(crate) fn of(request: &Request, bundles: &mut Bundles, device: DeviceChoice) -> Result<Self> {
        let path = request.model.files.path();
        if !bundles.contains_key(path) {
            bundles.insert(path.to_owned(), Bundle::open(&request.model.files)?);
        }
        let init = request.init.as_ref();
        let init_image = init.map(|init| SourceImage::open(&init.image)).transpose()?;
        let init_size = init_image.as_ref().and_then(SourceImage::nearest_size);
        let recipe = Recipe::new(request, &bundles[path], init_size)?;
        Ok(Self(KeptRequest::new(request, &recipe, device)))
    }

    /// The models in the order of their passes: the user's name, and the folder, or `None` for the built-in
    /// model.
    pub fn models(&self) -> Vec<(&str, Option<&Path>)> {
        self.0.named_models()
    }

    /// The request, with `models` in place of those that [`LaterRequest::models`] names.
    ///
    /// # Panics
    /// Their number differs.
    pub fn request(&self, models: Vec<ModelChoice>, user_dirs: &UserDirs) -> Request {
        self.0.restore(models, user_dirs)
    }
}
