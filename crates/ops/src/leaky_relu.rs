//! Leaky ReLU, PReLU and scaled residuals, as super-resolution networks use them.

use candle_core::{DType, Tensor, bail};

use crate::Result;
use crate::capabilities::Backend;
use crate::cpu::kernel::{on_one, on_two};
use crate::cpu::lanewise::map;
use crate::cpu::leaky_relu::{self as kernel, LeakyRelu, ScaledSum};
use crate::cpu::simd::InstructionSet;

/// Leaky ReLU: `x` where positive, `slope * x` elsewhere, for slopes up to 1.
///
/// # Errors
/// The device fails.
pub fn leaky_relu(x: &Tensor, slope: f32) -> Result<Tensor> {
    match Backend::of(x.device()) {
        Backend::Cpu => on_one("leaky_relu", x.dims(), x, |x| {
            Ok(map(InstructionSet::best(), LeakyRelu { slope }, [x.floats()?]))
        }),
        _ => x.maximum(&(x * f64::from(slope))?),
    }
}

/// PReLU of `x`, `[batch, channels, height, width]`: `x` where positive, elsewhere `x` times the slope of its
/// channel in `slopes`, `[channels]`. He et al., "Delving Deep into Rectifiers", 2015.
///
/// # Errors
/// The number of slopes is not that of the channels, or the device fails.
pub fn prelu(x: &Tensor, slopes: &Tensor) -> Result<Tensor> {
    let (_, channels, height, width) = x.dims4()?;
    if slopes.dims() != [channels] {
        bail!("slopes of shape {:?} for {channels} channels", slopes.dims());
    }
    match Backend::of(x.device()) {
        Backend::Cpu => {
            let slopes = slopes.to_dtype(DType::F32)?.to_vec1::<f32>()?;
            on_one("prelu", x.dims(), x, |x| {
                let set = InstructionSet::best();
                Ok(kernel::prelu(set, x.floats()?, &slopes, height * width))
            })
        }
        _ => {
            let below = x.minimum(&x.zeros_like()?)?;
            x.relu()? + below.broadcast_mul(&slopes.reshape((1, (), 1, 1))?)?
        }
    }
}

/// `x + scale * y`, of tensors of one shape.
///
/// # Errors
/// The shapes differ or the device fails.
pub fn scaled_residual(x: &Tensor, scale: f32, y: &Tensor) -> Result<Tensor> {
    if x.dims() != y.dims() {
        bail!("a residual of shape {:?} for {:?}", x.dims(), y.dims());
    }
    match Backend::of(x.device()) {
        Backend::Cpu => on_two("scaled_residual", x.dims(), x, y, |x, y| {
            let values = [x.floats()?, y.floats()?];
            Ok(map(InstructionSet::best(), ScaledSum { scale }, values))
        }),
        _ => x + (y * f64::from(scale))?,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::kernel::tests::{close, equal, random};

    #[test]
    fn agree_with_the_plain_definitions() {
        let (x, y) = (random(&[2, 3, 70, 90], 1), random(&[2, 3, 70, 90], 2));
        equal(
            &leaky_relu(&x, 0.2).unwrap(),
            &x.maximum(&(&x * 0.2).unwrap()).unwrap(),
        );
        let slopes = random(&[3], 3);
        let below = x.minimum(&x.zeros_like().unwrap()).unwrap();
        let below = below
            .broadcast_mul(&slopes.reshape((1, 3, 1, 1)).unwrap())
            .unwrap();
        close(
            &prelu(&x, &slopes).unwrap(),
            &(x.relu().unwrap() + below).unwrap(),
            1e-6,
        );
        close(
            &scaled_residual(&x, 0.2, &y).unwrap(),
            &(&x + (&y * 0.2).unwrap()).unwrap(),
            1e-6,
        );
    }

    #[test]
    fn shapes_that_do_not_fit_are_refused() {
        let x = random(&[1, 3, 4, 4], 1);
        assert!(prelu(&x, &random(&[4], 1)).is_err());
        assert!(scaled_residual(&x, 1.0, &random(&[1, 3, 4, 5], 1)).is_err());
    }
}
