//! The bytes of weights that the stages of a run are expected to read.

use candle_core::Device;
use sd_memory::Bytes;

use super::{DECODE, DENOISE, ENCODE_IMAGE, Plan, StagePlan};
use crate::device::reads_before_passes;
use crate::family::TEXT_ENCODERS;

impl Plan {
    /// The bytes of weights that the stage `name` of a run reads once on `device`, if that is known. It is for one
    /// group of images.
    pub(crate) fn expected_reads(&self, name: &str, device: &Device) -> Option<Bytes> {
        let is_encoder = |stage: &StagePlan| TEXT_ENCODERS.iter().any(|(encoder, _)| *encoder == stage.name);
        let all = |is_part: &dyn Fn(&StagePlan) -> bool| {
            let parts = self.stages.iter().filter(|stage| is_part(stage));
            parts
                .map(|stage| stage.resident.0 + stage.streamed.0)
                .sum::<u64>()
        };
        let bytes = match name {
            "encode" => all(&is_encoder),
            "encode image" => all(&|stage| stage.name == ENCODE_IMAGE),
            "load" => {
                let conditions = all(&|stage| matches!(stage.name.as_str(), "conditions" | "control"));
                let resident = self.stages.iter().filter(|stage| stage.name == DENOISE);
                let resident: u64 = resident.map(|stage| stage.resident.0).sum();
                // Otherwise the first step reads them.
                conditions + if reads_before_passes(device) { resident } else { 0 }
            }
            "decode" => all(&|stage| stage.name == DECODE),
            _ => return None,
        };
        Some(Bytes(bytes))
    }
}
