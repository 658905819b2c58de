//! The arithmetic of a ControlNet: its part of the transformer's forward pass.

use super::ControlNet;
use crate::mmdit::work;
use crate::{Load, Work};

impl ControlNet {
    /// The arithmetic of its part of a forward pass.
    pub(in crate::mmdit) fn forward_work(&self, load: Load) -> Work {
        let width = self.network.width();
        let rows = load.texts * work::patches(&self.network, load);
        let embedding = match self.patches {
            Some(_) => work::embedding(&self.network, self.network.in_channels, load),
            None => Work::default(),
        };
        // Each residual is projected, scaled, and added to the tokens.
        let residual = Work::linear(rows, width, width).and(Work::elementwise(2 * rows * width));
        work::blocks(&self.network, &self.kinds, load)
            .and(embedding)
            .and(residual.times(self.kinds.len() * load.inputs))
    }
}
