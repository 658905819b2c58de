//! The last part of a run: pictures made larger.

use std::path::{Path, PathBuf};

use sd_memory::Bytes;
use sd_weights::Holding;

use crate::plan::StagePlan;
use crate::request::{ImageSize, UpscaleChoice};
use crate::{Error, Result, device_budget, stage};

/// How pictures are made larger.
#[derive(Debug, Clone)]
pub(crate) struct Enlargement {
    /// How many times as high and wide they become.
    pub(crate) factor: usize,
    /// The network's file; without one they are resampled.
    pub(crate) network: Option<PathBuf>,
    pub(crate) plan: Option<StagePlan>,
}

impl Enlargement {
    const STAGE: &str = "upscale";
    /// The program itself, as the stages before have it.
    const PROGRAM: u64 = 64 << 20;

    /// What `choice` asks for, for `images` pictures of `size`. Of the network only headers are read.
    ///
    /// # Errors
    /// The network's file cannot be used, or the budget is too small for it.
    pub(crate) fn of(
        choice: &UpscaleChoice,
        size: ImageSize,
        images: usize,
        holding: &Holding,
        budget: Bytes,
    ) -> Result<Self> {
        let resampled = Self {
            factor: choice.factor,
            network: None,
            plan: None,
        };
        let Some(file) = &choice.network else {
            return Ok(resampled);
        };
        match Self::by_network(file, choice.factor, size, images, holding, budget) {
            Err(error) if choice.or_resampled => {
                tracing::info!(
                    "pictures are resampled, not made larger by `{}`: {error}",
                    file.display()
                );
                Ok(resampled)
            }
            enlargement => enlargement,
        }
    }

    fn by_network(
        file: &Path,
        factor: usize,
        size: ImageSize,
        images: usize,
        holding: &Holding,
        budget: Bytes,
    ) -> Result<Self> {
        let network = stage::upscaler(file, holding)?;
        let rounds = stage::rounds(network.scale(), factor);
        // The last round is over the largest picture.
        let before = network.scale().pow(rounds - 1);
        let (width, height) = (before * size.width(), before * size.height());
        let pixels = |factor: usize| (factor * factor * size.width() * size.height()) as u64;
        let largest = network.scale().pow(rounds);
        let float = size_of::<f32>() as u64;
        // The pictures that wait, the one that goes in, and of the one that comes out numbers, bytes and the file.
        let beside = device_budget::process(&holding.device).unwrap_or(Self::PROGRAM)
            + images as u64 * 3 * pixels(1)
            + 3 * pixels(before) * 2 * float
            + 3 * pixels(largest) * (2 * float + 1)
            + 3 * pixels(factor) * 2;
        let weights = network.weight_bytes();
        let peak = Bytes(beside + weights + network.footprint(height, width).bytes());
        if peak > budget {
            return Err(Error::BudgetTooSmall {
                budget,
                smallest: peak,
                stage: Self::STAGE,
            });
        }
        Ok(Self {
            factor,
            network: Some(file.to_owned()),
            plan: Some(StagePlan {
                name: Self::STAGE.to_owned(),
                resident: Bytes(weights),
                streamed: Bytes(0),
                predicted_peak: peak,
                read_each_pass: Bytes(0),
                passes: images * rounds as usize,
            }),
        })
    }

    /// How pictures are made larger, for the metadata.
    pub(crate) fn method(&self) -> String {
        match &self.network {
            Some(file) => file
                .file_stem()
                .unwrap_or(file.as_os_str())
                .to_string_lossy()
                .into_owned(),
            None => "lanczos".to_owned(),
        }
    }
}
