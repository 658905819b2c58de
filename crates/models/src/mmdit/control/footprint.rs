//! The memory of a ControlNet: of its weights, its conditions, and its part of the transformer's forward
//! pass.

use super::{CONTROL_IMAGE, ControlNet, scopes};
use crate::footprint::held_bytes;
use crate::mmdit::PATCHES;
use crate::mmdit::footprint::{Bytes, block_bytes, condition_weight_bytes};
use crate::mmdit::work;
use crate::{Conditioned, Footprint, Load, WeightBytes, Work};

impl Conditioned for ControlNet {
    fn weight_bytes(&self) -> WeightBytes {
        let blocks = scopes(&self.weights, self.kinds.len()).map(|scope| block_bytes(&scope));
        WeightBytes {
            blocks: blocks.collect(),
            always: match self.patches {
                Some(_) => held_bytes(&self.weights.scope(PATCHES), |_| true),
                None => 0,
            },
        }
    }

    fn condition_weight_bytes(&self) -> WeightBytes {
        let mut weights = condition_weight_bytes(&self.weights, self.kinds.len());
        weights.always += held_bytes(&self.weights.scope(CONTROL_IMAGE), |_| true);
        weights
    }

    fn condition_bytes(&self, load: Load, steps: usize) -> u64 {
        let bytes = self.bytes();
        let positions = if self.config.has_positions() {
            bytes.positions(load)
        } else {
            0
        };
        let control_image = bytes.image(Load { texts: 1, ..load });
        bytes.conditioning(load, &self.kinds, steps) + positions + control_image
    }

    fn condition_footprint(&self, load: Load, steps: usize) -> Footprint {
        self.bytes().conditioning_footprint(load, steps)
    }

    fn condition_work(&self, load: Load, steps: usize) -> Work {
        let control_image = Load {
            inputs: 1,
            texts: 1,
            ..load
        };
        work::condition(&self.network, &self.kinds, load, steps).and(work::embedding(
            &self.network,
            self.config.control_channels(),
            control_image,
        ))
    }
}

impl ControlNet {
    /// Bytes of its tokens, which are alive during the whole forward pass of the transformer.
    pub(in crate::mmdit) fn stream_bytes(&self, load: Load) -> u64 {
        self.bytes().streams(load, &self.kinds)
    }

    /// Bytes that one of its blocks takes beside the tokens, residuals included.
    pub(in crate::mmdit) fn block_bytes(&self, load: Load) -> u64 {
        let bytes = self.bytes();
        // The residuals, and one more before it is scaled.
        let adding = bytes.added(load) + bytes.image(load);
        bytes.block(load, &self.kinds).max(adding)
    }

    /// The scratch of its operations.
    pub(in crate::mmdit) fn scratch(&self) -> u64 {
        self.bytes().scratch()
    }

    fn bytes(&self) -> Bytes<'_> {
        Bytes::new(&self.network, &self.weights, self.activation_type)
    }
}
