//! The names and shapes of the tensors that a network reads, without a model file.
//!
//! Programs that write model files take the list of tensors from the network itself.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use crate::lock::lock;

/// The names and shapes of the tensors that networks requested from a checkpoint without a file
/// ([`Checkpoint::requesting`](crate::Checkpoint::requesting)). Clones share one list.
#[derive(Debug, Clone, Default)]
pub struct RequestedTensors(Arc<Mutex<BTreeMap<String, Vec<usize>>>>);

impl RequestedTensors {
    /// The names and shapes that were requested so far, each name once, sorted by name.
    pub fn list(&self) -> Vec<(String, Vec<usize>)> {
        let tensors = lock(&self.0);
        let tensors = tensors.iter().map(|(name, shape)| (name.clone(), shape.clone()));
        tensors.collect()
    }

    /// Adds the tensor `name`.
    pub(crate) fn add(&self, name: &str, shape: &[usize]) {
        lock(&self.0).insert(name.to_owned(), shape.to_vec());
    }
}
