//! Activation functions and gated activations.

use candle_core::{D, Tensor, bail};

use crate::Result;
use crate::capabilities::Backend;
use crate::cpu::activation::{self as kernel, Activation, GatedGeluTanh};
use crate::cpu::kernel::{on_one, on_two};
use crate::cpu::lanewise::map;
use crate::cpu::simd::InstructionSet;
#[cfg(gpu)]
use crate::gpu::{has_kernels, on_gpu};

/// GELU by the error function. Hendrycks and Gimpel, "Gaussian Error Linear Units (GELUs)", 2016.
///
/// # Errors
/// The device fails.
pub fn gelu(x: &Tensor) -> Result<Tensor> {
    elementwise("gelu", x, Activation::Gelu, Tensor::gelu_erf)
}

/// GELU by the tanh approximation.
///
/// # Errors
/// The device fails.
pub fn gelu_tanh(x: &Tensor) -> Result<Tensor> {
    elementwise("gelu_tanh", x, Activation::GeluTanh, Tensor::gelu)
}

/// `x * sigmoid(1.702 x)`, the quick GELU of CLIP.
///
/// # Errors
/// The device fails.
pub fn quick_gelu(x: &Tensor) -> Result<Tensor> {
    elementwise("quick_gelu", x, Activation::QuickGelu, |x| {
        x * ((x * -1.702)?.exp()? + 1.0)?.recip()?
    })
}

/// `x * sigmoid(x)`
///
/// # Errors
/// The device fails.
pub fn silu(x: &Tensor) -> Result<Tensor> {
    elementwise("silu", x, Activation::Silu, Tensor::silu)
}

/// `gelu_tanh(gate) * up`, the gated GELU of T5 v1.1. Shazeer, "GLU Variants Improve Transformer", 2020.
///
/// # Errors
/// The shapes differ or the device fails.
pub fn gated_gelu_tanh(gate: &Tensor, up: &Tensor) -> Result<Tensor> {
    if gate.dims() != up.dims() {
        bail!("a gate of shape {:?} for {:?}", gate.dims(), up.dims());
    }
    match Backend::of(gate.device()) {
        Backend::Cpu => on_two("gated_gelu_tanh", gate.dims(), gate, up, |gate, up| {
            let values = [gate.floats()?, up.floats()?];
            Ok(map(InstructionSet::best(), GatedGeluTanh, values))
        }),
        #[cfg(gpu)]
        gpu if has_kernels(gpu) => on_gpu!(gpu, gated_gelu_tanh(gate, up)),
        _ => gate.gelu()? * up,
    }
}

/// GEGLU: the first half of the last dimension times the GELU of the second half, `[…, 2n]` to `[…, n]`.
/// Shazeer 2020, in the order of diffusers' `GEGLU`.
///
/// # Errors
/// The last dimension is odd or the device fails.
pub fn geglu(x: &Tensor) -> Result<Tensor> {
    let width = x.dim(D::Minus1)?;
    if width % 2 != 0 {
        bail!("a gate and its values need an even number of features, not {width}");
    }
    match Backend::of(x.device()) {
        Backend::Cpu => {
            let mut shape = x.dims().to_vec();
            if let Some(last) = shape.last_mut() {
                *last = width / 2;
            }
            on_one("geglu", shape, x, |x| {
                Ok(kernel::geglu(InstructionSet::best(), x.floats()?, width))
            })
        }
        #[cfg(gpu)]
        gpu if has_kernels(gpu) => on_gpu!(gpu, geglu(x)),
        _ => {
            let values = x.narrow(D::Minus1, 0, width / 2)?;
            values * x.narrow(D::Minus1, width / 2, width / 2)?.gelu_erf()?
        }
    }
}

fn elementwise(
    name: &'static str,
    x: &Tensor,
    activation: Activation,
    plain: impl Fn(&Tensor) -> Result<Tensor>,
) -> Result<Tensor> {
    match Backend::of(x.device()) {
        Backend::Cpu => on_one(name, x.dims(), x, |x| {
            Ok(map(InstructionSet::best(), activation, [x.floats()?]))
        }),
        #[cfg(gpu)]
        gpu if has_kernels(gpu) => on_gpu!(gpu, activated(x, activation)),
        _ => plain(x),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::kernel::tests::{close, random};

    #[test]
    fn agree_with_the_plain_definitions() {
        let x = (random(&[3, 5000], 1) * 8.0).unwrap();
        let y = random(&[3, 5000], 2);
        close(&gelu(&x).unwrap(), &x.gelu_erf().unwrap(), 1e-6);
        close(&gelu_tanh(&x).unwrap(), &x.gelu().unwrap(), 1e-6);
        close(&silu(&x).unwrap(), &x.silu().unwrap(), 1e-6);
        let quick = (&x * candle_sigmoid(&(&x * 1.702).unwrap())).unwrap();
        close(&quick_gelu(&x).unwrap(), &quick, 1e-6);
        close(
            &gated_gelu_tanh(&x, &y).unwrap(),
            &(x.gelu().unwrap() * &y).unwrap(),
            1e-6,
        );
        let both = Tensor::cat(&[&y, &x], 1).unwrap();
        close(
            &geglu(&both).unwrap(),
            &(x.gelu_erf().unwrap() * &y).unwrap(),
            1e-6,
        );
        let view = x.t().unwrap();
        close(&silu(&view).unwrap(), &view.silu().unwrap(), 1e-6);
    }

    fn candle_sigmoid(x: &Tensor) -> Tensor {
        (x.neg().unwrap().exp().unwrap() + 1.0).unwrap().recip().unwrap()
    }

    #[test]
    fn far_values_stay_finite() {
        let x = Tensor::new(&[-1e6_f32, -100.0, 0.0, 100.0, 1e6], &candle_core::Device::Cpu).unwrap();
        for function in [gelu, gelu_tanh, quick_gelu, silu] {
            let values = function(&x).unwrap().to_vec1::<f32>().unwrap();
            assert_eq!(values[3..], [100.0, 1e6]);
            assert!(values[..3].iter().all(|value| value.abs() < 1e-30), "{values:?}");
        }
    }
}
