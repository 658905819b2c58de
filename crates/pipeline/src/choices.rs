//! [`Choices`]: what a request chose and its resolved settings do not show.

use std::path::PathBuf;

use sd_weights::{NetworkFiles, Prediction};
use serde::{Deserialize, Serialize};

use crate::request::{Request, TypeChoice};
use crate::scheduler::ScheduleKind;

/// What a request chose and its resolved settings do not show. With both, an image can be generated again.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Choices {
    /// The noise schedule. One that is named may read other settings of the model's scheduler than the automatic one,
    /// even if that resolves to it.
    pub schedule: ScheduleKind,
    /// The data type of the weights.
    pub dtype: TypeChoice,
    /// What the model predicts, in place of what its files say.
    pub prediction: Option<Prediction>,
    /// The files of networks in place of the model's own.
    pub networks: NetworkFiles,
    /// The file of the upscaling network.
    pub upscaler: Option<PathBuf>,
}

impl Choices {
    /// The choices of `request`.
    pub(crate) fn of(request: &Request) -> Self {
        let files = &request.model.files;
        Self {
            schedule: request.schedule,
            dtype: request.weight_type,
            prediction: files.prediction,
            networks: files.networks.clone(),
            upscaler: request
                .upscale
                .as_ref()
                .and_then(|upscale| upscale.network.clone()),
        }
    }
}
