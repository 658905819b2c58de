//! What a sampler remembers of one image between two evaluations of the network, as named tensors.

use candle_core::Tensor;

/// The state of one image between two evaluations of the network: its latents and what the sampler remembers
/// of earlier evaluations. The next step depends on nothing else, so a run can be saved as named tensors and
/// resumed to the same bits.
#[derive(Debug, Clone)]
#[doc(alias = "Trajectory")]
pub struct SamplerState {
    /// `[batch, channels, height / 8, width / 8]`, 32-bit floats.
    pub latents: Tensor,
    /// The latents at the beginning of a step that takes several evaluations.
    pub(crate) origin: Option<Tensor>,
    /// Results of earlier evaluations, newest first. Each solver stores what it needs: predictions, predicted
    /// original samples or derivatives.
    pub(crate) outputs: Vec<Tensor>,
}

const LATENTS: &str = "latents";
const ORIGIN: &str = "origin";

/// An upper limit for the outputs that any solver keeps.
const MAX_OUTPUTS: usize = 8;

impl SamplerState {
    /// The state before the first evaluation.
    pub fn new(latents: Tensor) -> Self {
        Self {
            latents,
            origin: None,
            outputs: Vec::new(),
        }
    }

    /// All tensors with their names; `latents` comes first.
    pub fn tensors(&self) -> Vec<(String, &Tensor)> {
        let latents = std::iter::once((LATENTS.to_owned(), &self.latents));
        let origin = self.origin.iter().map(|tensor| (ORIGIN.to_owned(), tensor));
        let outputs = self.outputs.iter().enumerate();
        latents
            .chain(origin)
            .chain(outputs.map(|(age, tensor)| (output_name(age), tensor)))
            .collect()
    }

    /// The state whose tensors `find` returns by name; `None` if there are no `latents`.
    pub fn from_tensors(find: impl Fn(&str) -> Option<Tensor>) -> Option<Self> {
        Some(Self {
            latents: find(LATENTS)?,
            origin: find(ORIGIN),
            outputs: (0..MAX_OUTPUTS)
                .map_while(|age| find(&output_name(age)))
                .collect(),
        })
    }

    /// Stores `output` as the newest and keeps only the newest `kept`.
    pub(crate) fn push_output(&mut self, output: Tensor, kept: usize) {
        self.outputs.insert(0, output);
        self.outputs.truncate(kept);
    }

    /// The output that was stored `age` evaluations before the last one, or the name of the missing tensor.
    pub(crate) fn output(&self, age: usize) -> Result<&Tensor, String> {
        self.outputs.get(age).ok_or_else(|| output_name(age))
    }

    /// The latents at the beginning of the current step, or the name of the missing tensor.
    pub(crate) fn origin(&self) -> Result<&Tensor, String> {
        self.origin.as_ref().ok_or_else(|| ORIGIN.to_owned())
    }
}

fn output_name(age: usize) -> String {
    format!("outputs.{age}")
}
