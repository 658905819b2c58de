//! [`Preview`]: a small image of what latents show, by a linear map from latents to colours.
//!
//! A latent of an autoencoder mostly has the colour of its pixels, so that a matrix of three rows is enough to
//! recognise an image while it forms. It costs nothing beside a step of the network.

use candle_core::{D, Device, Tensor};
use sd_models::vae;

use crate::Result;
use crate::save::RgbImage;

/// What an image is expected to become.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Preview {
    /// Which image of the run, from 0.
    pub image: usize,
    /// The number of images.
    pub images: usize,
    /// The finished steps of this image.
    pub step: usize,
    /// The steps of an image.
    pub steps: usize,
    /// What the network predicts now, in a pixel for each latent.
    pub pixels: RgbImage,
}

/// The colours of the latents of one autoencoder, from -1 to 1.
#[derive(Debug)]
struct LatentColors {
    /// The factor of the autoencoder's latents, by which it is recognised.
    scaling_factor: f64,
    /// Red, green and blue for each channel.
    factors: &'static [[f32; 3]],
    /// The colour of latents of zeros.
    bias: [f32; 3],
}

/// The known autoencoders. Those of Stable Diffusion 1 and XL are the factors that ComfyUI publishes in
/// `comfy/latent_formats.py`, those of Stable Diffusion 3 the ones of Stability AI's `sd3-ref` (`sd3_impls.py`). The
/// last is the built-in model's, which `examples/latent_colors.rs` computes from its own decoder.
const KNOWN: [LatentColors; 4] = [
    LatentColors {
        scaling_factor: 0.18215,
        factors: &[
            [0.3512, 0.2297, 0.3227],
            [0.3250, 0.4974, 0.2350],
            [-0.2829, 0.1762, 0.2721],
            [-0.2120, -0.2616, -0.7177],
        ],
        bias: [0.0; 3],
    },
    LatentColors {
        scaling_factor: 0.13025,
        factors: &[
            [0.3651, 0.4232, 0.4341],
            [-0.2533, -0.0042, 0.1068],
            [0.1076, 0.1111, -0.0362],
            [-0.3165, -0.2492, -0.2188],
        ],
        bias: [0.1084, -0.0175, -0.0011],
    },
    LatentColors {
        scaling_factor: 1.5305,
        factors: &[
            [-0.0645, 0.0177, 0.1052],
            [0.0028, 0.0312, 0.0650],
            [0.1848, 0.0762, 0.0360],
            [0.0944, 0.0360, 0.0889],
            [0.0897, 0.0506, -0.0364],
            [-0.0020, 0.1203, 0.0284],
            [0.0855, 0.0118, 0.0283],
            [-0.0539, 0.0658, 0.1047],
            [-0.0057, 0.0116, 0.0700],
            [-0.0412, 0.0281, -0.0039],
            [0.1106, 0.1171, 0.1220],
            [-0.0248, 0.0682, -0.0481],
            [0.0815, 0.0846, 0.1207],
            [-0.0120, -0.0055, -0.0867],
            [-0.0749, -0.0634, -0.0456],
            [-0.1418, -0.1457, -0.1259],
        ],
        bias: [0.0; 3],
    },
    LatentColors {
        scaling_factor: 0.7149,
        factors: &[
            [-0.0621, -0.0731, 0.1444],
            [-0.0295, -0.0688, -0.0642],
            [-0.0532, -0.0556, -0.0538],
            [0.1766, 0.2636, 0.0538],
            [0.1789, 0.0626, 0.1796],
            [0.1480, -0.0977, 0.0163],
            [0.0376, 0.1068, 0.1840],
            [0.0500, 0.1467, 0.0806],
            [-0.0327, 0.0117, 0.0178],
            [-0.1058, -0.0526, -0.0557],
            [-0.1706, -0.0396, 0.0435],
            [-0.2300, -0.0696, -0.0146],
            [0.0129, -0.1105, -0.2370],
            [-0.1263, -0.0165, -0.0850],
            [0.0124, 0.1044, -0.0222],
            [-0.0118, -0.0352, 0.0025],
        ],
        bias: [0.0793, 0.0485, 0.1049],
    },
];

impl LatentColors {
    /// The colours of the latents of `vae`, if they are known.
    fn of(vae: &vae::Config) -> Option<&'static Self> {
        KNOWN.iter().find(|known| {
            known.factors.len() == vae.latent_channels
                && (known.scaling_factor - vae.scaling_factor).abs() < 1e-6
        })
    }
}

/// The image that `latents`, `[1, channels, rows, columns]` in host memory, show: scaled as the denoising network of
/// the autoencoder `vae` has them. Latents of an unknown autoencoder are shown in grey.
///
/// # Errors
/// The device fails.
pub(crate) fn of_latents(latents: &Tensor, vae: &vae::Config) -> Result<RgbImage> {
    let latents = latents.squeeze(0)?;
    let (channels, rows, columns) = latents.dims3()?;
    let Some(known) = LatentColors::of(vae) else {
        // Their mean, which has a deviation of one over the root of their number.
        let grey = (latents.mean_keepdim(0)? * ((channels as f64).sqrt() * 0.5))?;
        return RgbImage::from_tensor(&grey.repeat((3, 1, 1))?);
    };
    let factors = Tensor::from_iter(known.factors.iter().flatten().copied(), &Device::Cpu)?;
    let factors = factors.reshape((channels, 3))?.t()?.contiguous()?;
    let bias = Tensor::from_slice(&known.bias, (3, 1), &Device::Cpu)?;
    let colors = factors
        .matmul(&latents.flatten_from(D::Minus2)?)?
        .broadcast_add(&bias)?;
    RgbImage::from_tensor(&colors.reshape((3, rows, columns))?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vae(channels: usize, scaling_factor: f64) -> vae::Config {
        let config = serde_json::json!({
            "latent_channels": channels,
            "scaling_factor": scaling_factor,
            "block_out_channels": [32],
        });
        serde_json::from_value(config).unwrap()
    }

    fn pixels(vae: &vae::Config, value: f64) -> Vec<u8> {
        let latents = Tensor::full(value as f32, (1, vae.latent_channels, 1, 2), &Device::Cpu).unwrap();
        of_latents(&latents, vae).unwrap().pixels().to_vec()
    }

    #[test]
    fn latents_have_the_colours_of_their_autoencoder() {
        // Zeros have the bias, and (x / 2 + 1 / 2) * 255 is a byte.
        assert_eq!(pixels(&vae(4, 0.13025), 0.0), [141, 125, 127, 141, 125, 127]);
        // The sums of the columns are 0.1813, 0.6417, 0.1121.
        assert_eq!(pixels(&vae(4, 0.18215), 1.0)[..3], [151, 209, 142]);
        assert_eq!(pixels(&vae(16, 1.5305), 0.0)[..3], [128, 128, 128]);
    }

    #[test]
    fn latents_of_an_unknown_autoencoder_are_grey() {
        let unknown = vae(4, 0.5);
        assert_eq!(pixels(&unknown, 0.0)[..3], [128; 3]);
        let bright = pixels(&unknown, 0.5);
        assert!(
            bright[0] > 128 && bright.iter().all(|&byte| byte == bright[0]),
            "{bright:?}"
        );
    }
}
