//! The arithmetic of a ControlNet: of its control image, and of a forward pass.

use super::{ControlNet, Step};
use crate::unet::work::CountedPass;
use crate::{Load, Work};

impl ControlNet {
    /// The arithmetic of a forward pass.
    pub fn forward_work(&self, load: Load) -> Work {
        let mut pass = CountedPass::new(load, &self.config.network);
        for step in &self.steps {
            match step {
                Step::Shared(spec) => pass.pass(spec),
                Step::Adds { .. } => pass.keep(),
            }
        }
        pass.work()
    }

    /// The arithmetic of embedding the control image for latents of `height` and `width`.
    pub(super) fn embedding_work(&self, (height, width): (usize, usize)) -> Work {
        let factor = self.config.downsampling();
        let mut pixels = factor * factor * height * width;
        let mut work = Work::default();
        for [inputs, outputs, stride] in self.config.convolutions() {
            pixels /= stride * stride;
            work = work
                .and(Work::conv2d(pixels, inputs, outputs, 3))
                .and(Work::elementwise(pixels * outputs));
        }
        work
    }
}
