//! How far a picture has come: its latents and what its sampler remembers, as plain tensors.

use candle_core::Tensor;

/// A picture between two evaluations of the network. All that the next step depends on is in it, so that a
/// run can be put away as named tensors and taken up again.
#[derive(Debug, Clone)]
pub struct Trajectory {
    /// `[batch, channels, height / 8, width / 8]`, 32-bit numbers.
    pub latents: Tensor,
    /// The latents that a step of several evaluations began with.
    pub(crate) origin: Option<Tensor>,
    /// What earlier evaluations gave, the newest first, in the sampler's own terms.
    pub(crate) outputs: Vec<Tensor>,
}

const LATENTS: &str = "latents";
const ORIGIN: &str = "origin";

/// More than any sampler remembers.
const MOST_OUTPUTS: usize = 8;

impl Trajectory {
    /// A picture before its first evaluation.
    pub fn new(latents: Tensor) -> Self {
        Self {
            latents,
            origin: None,
            outputs: Vec::new(),
        }
    }

    /// Every tensor with its name; `latents` comes first.
    pub fn tensors(&self) -> Vec<(String, &Tensor)> {
        let latents = std::iter::once((LATENTS.to_owned(), &self.latents));
        let origin = self.origin.iter().map(|tensor| (ORIGIN.to_owned(), tensor));
        let outputs = self.outputs.iter().enumerate();
        latents
            .chain(origin)
            .chain(outputs.map(|(age, tensor)| (output_name(age), tensor)))
            .collect()
    }

    /// A trajectory of the tensors that `find` has by their names; `None` where it has no `latents`.
    pub fn from_tensors(find: impl Fn(&str) -> Option<Tensor>) -> Option<Self> {
        Some(Self {
            latents: find(LATENTS)?,
            origin: find(ORIGIN),
            outputs: (0..MOST_OUTPUTS)
                .map_while(|age| find(&output_name(age)))
                .collect(),
        })
    }

    /// Remembers `output` and forgets all but the newest `kept`.
    pub(crate) fn remember(&mut self, output: Tensor, kept: usize) {
        self.outputs.insert(0, output);
        self.outputs.truncate(kept);
    }

    /// What the evaluation `age` before the last one gave, or the name of what is missing.
    pub(crate) fn output(&self, age: usize) -> Result<&Tensor, String> {
        self.outputs.get(age).ok_or_else(|| output_name(age))
    }

    /// The latents that the step began with, or the name of what is missing.
    pub(crate) fn origin(&self) -> Result<&Tensor, String> {
        self.origin.as_ref().ok_or_else(|| ORIGIN.to_owned())
    }
}

fn output_name(age: usize) -> String {
    format!("outputs.{age}")
}
