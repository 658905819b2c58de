//! Recognises the network of a file by the names and shapes of its tensors.

use sd_weights::Weights;

use super::names::unknown_indices;
use crate::counts::MOST_FEATURES;
use crate::{Error, Result};

/// An architecture and its sizes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Architecture {
    Dense(Dense),
    Compact(Compact),
}

/// RRDBNet, the network of ESRGAN: residual-in-residual dense blocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Dense {
    pub(super) features: usize,
    /// Channels that each convolution of a dense block adds (the growth rate).
    pub(super) growth: usize,
    pub(super) blocks: usize,
    /// Factor of the pixel unshuffling before the first convolution.
    pub(super) unshuffled: usize,
}

/// SRVGGNetCompact: a chain of convolutions at the resolution of the image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Compact {
    pub(super) features: usize,
    /// Number of convolutions, including the last one.
    pub(super) convolutions: usize,
    pub(super) scale: usize,
}

impl Dense {
    /// Scale of the network without pixel unshuffling.
    pub(super) const SCALE: usize = 4;
}

impl Architecture {
    pub(super) fn recognise(weights: &Weights) -> Result<Self> {
        let found = if weights.contains("conv_first.weight") {
            dense(weights).map(Self::Dense)
        } else {
            compact(weights).map(Self::Compact)
        };
        let found = found.and_then(Self::possible);
        found.map_err(|reason| Error::Upscaler {
            file: weights.checkpoint().place().to_owned(),
            reason,
        })
    }

    /// Checks the widths: a file can hold any shape for a tensor without elements.
    fn possible(self) -> std::result::Result<Self, String> {
        let (features, growth) = match self {
            Self::Dense(Dense { features, growth, .. }) => (features, growth),
            Self::Compact(Compact { features, .. }) => (features, features),
        };
        let is_possible = |count: &usize| (1..=MOST_FEATURES).contains(count);
        match [features, growth].into_iter().find(|count| !is_possible(count)) {
            None => Ok(self),
            Some(count) => Err(format!(
                "it would have {count} features, and 1 to {MOST_FEATURES} are possible"
            )),
        }
    }

    pub(super) fn scale(self) -> usize {
        match self {
            Self::Dense(Dense { unshuffled, .. }) => Dense::SCALE / unshuffled,
            Self::Compact(Compact { scale, .. }) => scale,
        }
    }

    pub(super) fn features(self) -> usize {
        match self {
            Self::Dense(Dense { features, .. }) | Self::Compact(Compact { features, .. }) => features,
        }
    }

    pub(super) fn unshuffled(self) -> usize {
        match self {
            Self::Dense(Dense { unshuffled, .. }) => unshuffled,
            Self::Compact(_) => 1,
        }
    }

    pub(super) fn block_count(self) -> usize {
        match self {
            // The first convolution, and the last ones.
            Self::Dense(Dense { blocks, .. }) => blocks + 2,
            Self::Compact(Compact { convolutions, .. }) => convolutions,
        }
    }
}

fn dense(weights: &Weights) -> std::result::Result<Dense, String> {
    let wrong = |what: &str| Err(format!("it looks like an RRDBNet, but {what}"));
    if let Some(indices) = unknown_indices(weights) {
        return wrong(&format!(
            "the names of ESRGAN's first release have convolutions at {indices:?}; only those of scale 4 (at \
             0, 3, 6, 8 and 10) are supported"
        ));
    }
    if let Some(name) = weights.names().find(|name| name.contains("conv1x1")) {
        return wrong(&format!("it has `{name}`, as ESRGAN+ does, which is not known"));
    }
    let Some(&[features, channels, 3, 3]) = weights.shape("conv_first.weight") else {
        return wrong("its first convolution is not one by 3 x 3");
    };
    let unshuffled = match channels {
        3 => 1,
        12 => 2,
        48 => 4,
        _ => return wrong(&format!("it takes {channels} channels instead of 3, 12 or 48")),
    };
    let growth = match weights.shape("body.0.rdb1.conv1.weight") {
        Some(&[growth, inputs, 3, 3]) if inputs == features && growth > 0 => growth,
        _ => return wrong("its first block is missing or has another width"),
    };
    let blocks = (0..)
        .take_while(|block| weights.contains(&format!("body.{block}.rdb1.conv1.weight")))
        .count();
    Ok(Dense {
        features,
        growth,
        blocks,
        unshuffled,
    })
}

fn compact(weights: &Weights) -> std::result::Result<Compact, String> {
    let unknown = || {
        "it is neither an RRDBNet (`conv_first`, `body.0.rdb1.conv1`, …) nor an SRVGGNetCompact (`body.0`, `body.1`, …)"
            .to_owned()
    };
    let convolution = |index: usize| match weights.shape(&format!("body.{index}.weight")) {
        Some(&[outputs, inputs, 3, 3]) => Some((outputs, inputs)),
        _ => None,
    };
    let (features, 3) = convolution(0).ok_or_else(unknown)? else {
        return Err(unknown());
    };
    // Convolutions and the slopes after them take turns.
    let convolutions = (0..).take_while(|index| convolution(2 * index).is_some()).count();
    let last = 2 * (convolutions - 1);
    let (outputs, _) = convolution(last).ok_or_else(unknown)?;
    let slopes = (1..last).step_by(2);
    if convolutions < 2
        || !slopes
            .into_iter()
            .all(|index| weights.shape(&format!("body.{index}.weight")) == Some(&[features]))
    {
        return Err("it looks like an SRVGGNetCompact, but its activations are not PReLU".to_owned());
    }
    let scale = (1..=8).find(|scale| 3 * scale * scale == outputs);
    let scale = scale.ok_or_else(|| {
        format!(
            "it looks like an SRVGGNetCompact, but gives {outputs} channels, of which no image can be made"
        )
    })?;
    Ok(Compact {
        features,
        convolutions,
        scale,
    })
}
