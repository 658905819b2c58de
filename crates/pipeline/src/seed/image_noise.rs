//! The random numbers of an image: which generator they come from, and in which order they are drawn.

use serde::{Deserialize, Serialize};

use super::{NormalStream, PhiloxStream};

/// The generator of an image's noise (`--rng`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum NoiseSource {
    /// torch's on the CPU, which diffusers uses for images that are the same on every machine.
    #[default]
    Torch,
    /// torch's on NVIDIA GPUs, as stable-diffusion-webui imitates it on every machine.
    Philox,
}

impl NoiseSource {
    /// Its name in stable-diffusion-webui's setting `RNG`.
    pub fn webui_name(self) -> &'static str {
        match self {
            Self::Torch => "CPU",
            Self::Philox => "NV",
        }
    }
}

/// The random numbers of one image.
#[derive(Debug, Clone)]
pub struct ImageNoise {
    latents: Stream,
    /// Where samples of an encoded image come from another stream than noise.
    samples: Option<NormalStream>,
}

#[derive(Debug, Clone)]
#[expect(clippy::large_enum_variant, reason = "an image has one")]
enum Stream {
    Torch(NormalStream),
    Philox(PhiloxStream),
}

impl ImageNoise {
    /// The random numbers of `seed`.
    pub fn new(source: NoiseSource, seed: u64) -> Self {
        match source {
            NoiseSource::Torch => Self {
                latents: Stream::Torch(NormalStream::new(seed)),
                samples: None,
            },
            NoiseSource::Philox => Self {
                latents: Stream::Philox(PhiloxStream::new(seed)),
                samples: Some(NormalStream::new(seed)),
            },
        }
    }

    /// The next `count` numbers for noise: that of the start, and that of the sampler's steps.
    pub fn normals(&mut self, count: usize) -> Vec<f32> {
        match &mut self.latents {
            Stream::Torch(stream) => stream.normals(count),
            Stream::Philox(stream) => stream.normals(count),
        }
    }

    /// The next `count` numbers for a sample of an encoded image. diffusers draws them from the stream of the noise.
    /// stable-diffusion-webui draws them elsewhere, from numbers that no seed repeats, so that its stream begins with
    /// the noise; here they come from torch's CPU stream of the same seed then.
    pub fn sample_normals(&mut self, count: usize) -> Vec<f32> {
        match &mut self.samples {
            Some(samples) => samples.normals(count),
            None => self.normals(count),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_of_images_take_nothing_from_the_stream_of_webui() {
        let drawn = |source| {
            let mut noise = ImageNoise::new(source, 3);
            noise.sample_normals(20);
            noise.normals(20)
        };
        assert_eq!(drawn(NoiseSource::Philox), PhiloxStream::new(3).normals(20));
        let mut torch = NormalStream::new(3);
        torch.normals(20);
        assert_eq!(drawn(NoiseSource::Torch), torch.normals(20));
    }
}
