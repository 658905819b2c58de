//! What a network predicts: `prediction_type` of diffusers' configurations.

/// What the output of a network means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PredictionType {
    /// The noise.
    Epsilon,
    /// The velocity v: Salimans and Ho, "Progressive Distillation for Fast Sampling of Diffusion Models",
    /// 2022, appendix D.
    VPrediction,
    /// The original sample, x0.
    Sample,
    /// The velocity of rectified flow: noise minus original sample.
    Flow,
}

impl PredictionType {
    /// The name in configurations.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Epsilon => "epsilon",
            Self::VPrediction => "v_prediction",
            Self::Sample => "sample",
            Self::Flow => "flow_prediction",
        }
    }
}
