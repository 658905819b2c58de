//! The networks of full-size models: their configurations, and the tensors that they read.
//!
//! Names and shapes are what the networks of `sd-models` request; there is no second list of them.

pub(crate) mod sd3;
pub(crate) mod text;
pub(crate) mod unet;
pub(crate) mod vae;

use candle_core::Device;
use sd_weights::{Checkpoint, RequestedTensors, Residency, WeightOptions, WeightType, Weights};
use serde::de::DeserializeOwned;
use serde_json::Value;

/// The distribution of a tensor's values.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Values {
    /// Around zero, with this standard deviation.
    Around(f32),
    /// The weights of a norm: ones.
    Ones,
}

/// A tensor to write.
#[derive(Debug, Clone)]
pub(crate) struct Tensor {
    pub(crate) name: String,
    pub(crate) shape: Vec<usize>,
    pub(crate) values: Values,
}

/// The standard deviation of biases and tables, which are added to activations.
const SMALL: f32 = 0.02;
/// How the names of tables end.
const TABLES: [&str; 5] = [
    "token_embedding.weight",
    "position_embedding.weight",
    "pos_embed.pos_embed",
    "shared.weight",
    "relative_attention_bias.weight",
];
/// How the names of T5's query projections end, and the features of an attention head of T5.
const T5_QUERIES: (&str, usize) = (".SelfAttention.q.weight", 64);

impl Tensor {
    pub(crate) fn new(name: String, shape: Vec<usize>) -> Self {
        Self {
            values: Values::of(&name, &shape),
            name,
            shape,
        }
    }

    /// The number of values.
    pub(crate) fn count(&self) -> usize {
        self.shape.iter().product()
    }
}

impl Values {
    /// The values of the tensor `name`. With them activations keep their scale from layer to layer.
    fn of(name: &str, shape: &[usize]) -> Self {
        if let [_] = shape {
            return if name.ends_with(".weight") {
                Self::Ones
            } else {
                Self::Around(SMALL)
            };
        }
        if TABLES.iter().any(|table| name.ends_with(table)) {
            return Self::Around(SMALL);
        }
        let fan_in: usize = shape[1..].iter().product();
        let (queries, head) = T5_QUERIES;
        // T5 does not divide attention scores by the square root of a head's features, so its queries are
        // smaller by that factor. Otherwise each token would attend to a single other token, and rounding
        // would decide to which.
        let divisor = if name.ends_with(queries) {
            fan_in * head
        } else {
            fan_in
        };
        Self::Around(1.0 / (divisor as f32).sqrt())
    }
}

/// The tensors that `make`, which creates networks, requests from its weights.
fn read_by(make: impl FnOnce(Weights) -> sd_models::Result<()>) -> Vec<Tensor> {
    let requested = RequestedTensors::default();
    let options = WeightOptions::new(Device::Cpu, WeightType::AsStored, Residency::Streamed);
    make(Weights::new(Checkpoint::requesting(&requested), options)).expect("the configuration is possible");
    let tensors = requested.list().into_iter();
    tensors.map(|(name, shape)| Tensor::new(name, shape)).collect()
}

/// The configuration of a network from the contents of its `config.json`.
fn parsed<C: DeserializeOwned>(config: Value) -> C {
    serde_json::from_value(config).expect("the configuration is possible")
}
