//! Means and variances of an image's channels, from the whole image or band by band.

use candle_core::{D, DType, Tensor, bail};

use crate::Result;
use crate::capabilities::Backend;
use crate::cpu::kernel::Values;
use crate::cpu::moments as kernel;
use crate::cpu::simd::InstructionSet;
#[cfg(gpu)]
use crate::gpu::{self, has_kernels};

/// The mean and variance of each channel of a batch of images, for group norms. An image may arrive in bands
/// of rows, from the top down. The result has the same bits on a CPU however the image is split, and is equal
/// up to rounding on a GPU.
#[derive(Debug, Clone, Default)]
pub struct ChannelMoments {
    kept: Option<Kept>,
}

#[derive(Debug, Clone)]
enum Kept {
    /// For each channel of each image.
    OnCpu {
        channels: usize,
        moments: Vec<kernel::Moments>,
    },
    #[cfg(gpu)]
    OnGpu(gpu::ChannelMoments),
    Plain(Plain),
}

/// The plain definition: `[batch, channels]` both, over `count` values of each channel.
#[derive(Debug, Clone)]
struct Plain {
    count: f64,
    mean: Tensor,
    /// The sum of squared deviations from the mean.
    squares: Tensor,
}

impl ChannelMoments {
    /// The moments of `x`, `[batch, channels, height, width]`.
    ///
    /// # Errors
    /// `x` has other than four dimensions, or the device fails.
    pub fn of(x: &Tensor) -> Result<Self> {
        let mut moments = Self::default();
        moments.add(x)?;
        Ok(moments)
    }

    /// Adds the next rows of the same images, `[batch, channels, rows, width]`.
    ///
    /// # Errors
    /// `rows` has another batch or other channels than before, or the device fails.
    pub fn add(&mut self, rows: &Tensor) -> Result<()> {
        match Backend::of(rows.device()) {
            Backend::Cpu => self.add_on_cpu(rows),
            #[cfg(gpu)]
            backend if has_kernels(backend) => self.add_on_gpu(rows),
            _ => self.add_plain(rows),
        }
    }

    fn add_on_cpu(&mut self, rows: &Tensor) -> Result<()> {
        let (batch, channels, height, width) = rows.dims4()?;
        let kept = self.kept.get_or_insert_with(|| Kept::OnCpu {
            channels,
            moments: vec![kernel::Moments::NONE; batch * channels],
        });
        let moments = match kept {
            Kept::OnCpu {
                channels: before,
                moments,
            } if (*before, moments.len()) == (channels, batch * channels) => moments,
            _ => bail!("moments of other images than these of {:?}", rows.dims()),
        };
        let rows = rows.contiguous()?;
        let (storage, layout) = rows.storage_and_layout();
        let values = Values::of_storage(&storage, layout)?.floats()?;
        kernel::add_channels(InstructionSet::best(), moments, values, height * width, width);
        Ok(())
    }

    pub(crate) fn add_plain(&mut self, rows: &Tensor) -> Result<()> {
        let (_, _, height, width) = rows.dims4()?;
        let values = rows.to_dtype(DType::F32)?.flatten_from(2)?;
        let mean = values.mean_keepdim(D::Minus1)?;
        let added = Plain {
            count: (height * width) as f64,
            squares: values.broadcast_sub(&mean)?.sqr()?.sum(D::Minus1)?,
            mean: mean.squeeze(2)?,
        };
        self.kept = Some(Kept::Plain(match &self.kept {
            None => added,
            Some(Kept::Plain(before)) => before.and(&added)?,
            Some(_) => bail!("moments of an image on two devices"),
        }));
        Ok(())
    }

    #[cfg(gpu)]
    fn add_on_gpu(&mut self, rows: &Tensor) -> Result<()> {
        let earlier = match &self.kept {
            None => None,
            Some(Kept::OnGpu(earlier)) => Some(earlier),
            Some(_) => bail!("moments of an image on two devices"),
        };
        self.kept = Some(Kept::OnGpu(gpu::ChannelMoments::of(rows, earlier)?));
        Ok(())
    }

    /// The moments of images on a GPU with kernels.
    #[cfg(gpu)]
    pub(crate) fn on_gpu(&self) -> Result<&gpu::ChannelMoments> {
        match &self.kept {
            Some(Kept::OnGpu(moments)) => Ok(moments),
            Some(_) => bail!("the moments of an image on another device"),
            None => bail!("the moments of no image"),
        }
    }

    pub(crate) fn on_cpu(&self) -> Result<&[kernel::Moments]> {
        match &self.kept {
            Some(Kept::OnCpu { moments, .. }) => Ok(moments),
            Some(_) => bail!("the moments of an image on another device"),
            None => bail!("the moments of no image"),
        }
    }

    /// The means and variances of `groups` groups of channels, `[batch, groups]` both, by the plain
    /// definition.
    pub(crate) fn of_groups(&self, groups: usize) -> Result<(Tensor, Tensor)> {
        let Some(Kept::Plain(Plain { count, mean, squares })) = &self.kept else {
            bail!("the moments of no image on this device")
        };
        let (batch, channels) = mean.dims2()?;
        let grouped = |tensor: &Tensor| tensor.reshape((batch, groups, channels / groups));
        // All channels have the same number of values.
        let means = grouped(mean)?;
        let mean = means.mean_keepdim(D::Minus1)?;
        let apart = means.broadcast_sub(&mean)?.sqr()?.mean(D::Minus1)?;
        let within = (grouped(squares)?.mean(D::Minus1)? / *count)?;
        Ok((mean.squeeze(2)?, (within + apart)?))
    }
}

impl Plain {
    /// The moments of both sets of values (Chan's parallel algorithm), as [`kernel::Moments`] merges them.
    fn and(&self, other: &Self) -> Result<Self> {
        let count = self.count + other.count;
        let difference = (&other.mean - &self.mean)?;
        let squares = (difference.sqr()? * (self.count * other.count / count))?;
        Ok(Self {
            count,
            mean: (&self.mean + (difference * (other.count / count))?)?,
            squares: ((&self.squares + &other.squares)? + squares)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::kernel::tests::{close, random};
    use crate::{GroupNorm, group_norm};

    fn image() -> Tensor {
        ((random(&[2, 6, 23, 70], 1) * 3.0).unwrap() + 5.0).unwrap()
    }

    fn bands(x: &Tensor, height: usize) -> Vec<Tensor> {
        let rows = x.dim(2).unwrap();
        let firsts = (0..rows).step_by(height);
        firsts
            .map(|first| x.narrow(2, first, height.min(rows - first)).unwrap())
            .collect()
    }

    #[test]
    fn banding_changes_no_bit() {
        let x = image();
        let norm = GroupNorm::new(3, 1e-6, random(&[6], 2), random(&[6], 3)).unwrap();
        let norms = |moments: &ChannelMoments| format!("{:?}", norm.of_channels(moments, false).unwrap());
        let whole = norms(&ChannelMoments::of(&x).unwrap());
        for height in [1, 2, 7, 22] {
            let mut moments = ChannelMoments::default();
            for band in bands(&x, height) {
                moments.add(&band).unwrap();
            }
            assert_eq!(norms(&moments), whole);
        }
    }

    #[test]
    fn the_plain_definition_is_the_norm_too() {
        let x = image();
        let norm = GroupNorm::new(3, 1e-6, random(&[6], 2), random(&[6], 3)).unwrap();
        let expected = group_norm(&x, &norm).unwrap();
        for height in [4, 23] {
            let mut moments = ChannelMoments::default();
            for band in bands(&x, height) {
                moments.add_plain(&band).unwrap();
            }
            let normed: Vec<Tensor> = bands(&x, 9)
                .iter()
                .map(|band| norm.plain_by(band, &moments).unwrap())
                .collect();
            close(&Tensor::cat(&normed, 2).unwrap(), &expected, 1e-5);
        }
    }

    #[test]
    fn what_does_not_belong_together_is_refused() {
        let mut moments = ChannelMoments::default();
        assert!(moments.on_cpu().is_err());
        moments.add(&image()).unwrap();
        assert!(moments.add(&random(&[2, 5, 3, 70], 1)).is_err());
        assert!(moments.add(&random(&[1, 6, 3, 70], 1)).is_err());
        assert!(moments.add_plain(&image()).is_err());
        assert!(moments.of_groups(3).is_err());
    }
}
