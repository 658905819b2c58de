//! Linear projections with a fused epilogue: on a CPU results are written once, after the operation that
//! follows.

use candle_core::{Tensor, bail};

#[cfg(gpu)]
use super::on_gpu;
use super::{Linear, linear, on_cpu};
use crate::capabilities::Backend;
use crate::cpu::activation::Activation;
use crate::cpu::kernel::Values;
use crate::cpu::projection::Epilogue;
use crate::cpu::simd::InstructionSet;
#[cfg(gpu)]
use crate::gpu::{self, has_kernels};
use crate::{Result, gated_gelu_tanh, gated_residual, geglu, gelu, gelu_tanh, quick_gelu, silu};

/// [`gelu`] of [`linear`].
///
/// # Errors
/// As [`linear`].
pub fn linear_gelu(x: &Tensor, projection: &Linear) -> Result<Tensor> {
    activated(x, projection, Activation::Gelu, gelu)
}

/// [`gelu_tanh`] of [`linear`].
///
/// # Errors
/// As [`linear`].
pub fn linear_gelu_tanh(x: &Tensor, projection: &Linear) -> Result<Tensor> {
    activated(x, projection, Activation::GeluTanh, gelu_tanh)
}

/// [`quick_gelu`] of [`linear`].
///
/// # Errors
/// As [`linear`].
pub fn linear_quick_gelu(x: &Tensor, projection: &Linear) -> Result<Tensor> {
    activated(x, projection, Activation::QuickGelu, quick_gelu)
}

/// [`silu`] of [`linear`].
///
/// # Errors
/// As [`linear`].
pub fn linear_silu(x: &Tensor, projection: &Linear) -> Result<Tensor> {
    activated(x, projection, Activation::Silu, silu)
}

/// [`geglu`] of [`linear`]: `[…, inputs]` to `[…, outputs / 2]`.
///
/// # Errors
/// As [`linear`], or the projection has an odd number of outputs.
pub fn linear_geglu(x: &Tensor, projection: &Linear) -> Result<Tensor> {
    projection.check(x)?;
    match Backend::of(x.device()) {
        Backend::Cpu if projection.outputs.is_multiple_of(2) => {
            on_cpu(InstructionSet::best(), x, projection, Epilogue::Geglu)
        }
        #[cfg(gpu)]
        gpu if has_kernels(gpu) && projection.outputs.is_multiple_of(2) => {
            let weight = projection.values(gpu, x.dtype())?;
            gpu::on_gpu!(gpu, linear_geglu(x, &weight, projection.bias.as_ref()))
        }
        _ => geglu(&linear(x, projection)?),
    }
}

/// [`gated_gelu_tanh`] of two projections, the gate and the value.
///
/// # Errors
/// As [`linear`], or the projections have other outputs.
pub fn linear_gated_gelu_tanh(x: &Tensor, gate: &Linear, up: &Linear) -> Result<Tensor> {
    let gates = linear(x, gate)?;
    up.check(x)?;
    match Backend::of(x.device()) {
        Backend::Cpu if gate.outputs == up.outputs => {
            let (storage, layout) = gates.storage_and_layout();
            let gates = Values::of_storage(&storage, layout)?.floats()?;
            on_cpu(InstructionSet::best(), x, up, Epilogue::GatedGeluTanh { gates })
        }
        #[cfg(gpu)]
        gpu if has_kernels(gpu) && gate.outputs == up.outputs => {
            let weight = up.values(gpu, x.dtype())?;
            gpu::on_gpu!(gpu, linear_gated_gelu_tanh(gates, x, &weight, up.bias.as_ref()))
        }
        _ => gated_gelu_tanh(&gates, &linear(x, up)?),
    }
}

/// `residual` plus [`linear`], of the same shape.
///
/// # Errors
/// As [`linear`], or the shapes do not fit each other.
pub fn linear_residual(residual: &Tensor, x: &Tensor, projection: &Linear) -> Result<Tensor> {
    check_residual(residual, x, projection)?;
    match Backend::of(x.device()) {
        Backend::Cpu => {
            let residual = residual.contiguous()?;
            let (storage, layout) = residual.storage_and_layout();
            let residual = Values::of_storage(&storage, layout)?.floats()?;
            let epilogue = Epilogue::Residual { residual };
            on_cpu(InstructionSet::best(), x, projection, epilogue)
        }
        #[cfg(gpu)]
        gpu if has_kernels(gpu) => on_gpu(gpu, x, projection, gpu::Epilogue::residual(residual)),
        _ => residual + linear(x, projection)?,
    }
}

/// [`gated_residual`] of [`linear`]: `residual`, `[batch, tokens, outputs]`, plus `gate`, `[batch, outputs]`,
/// times the projection of `x`, `[batch, tokens, inputs]`.
///
/// # Errors
/// As [`linear`], or the shapes do not fit each other.
pub fn linear_gated_residual(
    residual: &Tensor,
    gate: &Tensor,
    x: &Tensor,
    projection: &Linear,
) -> Result<Tensor> {
    check_residual(residual, x, projection)?;
    let (batch, tokens, _) = x.dims3()?;
    if gate.dims() != [batch, projection.outputs] {
        bail!("a gate of shape {:?} for {:?}", gate.dims(), residual.dims());
    }
    match Backend::of(x.device()) {
        Backend::Cpu => {
            let (residual, gate) = (residual.contiguous()?, gate.contiguous()?);
            let (residual, layout) = residual.storage_and_layout();
            let residual = Values::of_storage(&residual, layout)?.floats()?;
            let (gate, layout) = gate.storage_and_layout();
            let gates = Values::of_storage(&gate, layout)?.floats()?;
            let epilogue = Epilogue::GatedResidual {
                residual,
                gates,
                tokens,
            };
            on_cpu(InstructionSet::best(), x, projection, epilogue)
        }
        #[cfg(gpu)]
        gpu if has_kernels(gpu) => on_gpu(gpu, x, projection, gpu::Epilogue::gated_residual(residual, gate)),
        _ => gated_residual(residual, gate, &linear(x, projection)?),
    }
}

fn activated(
    x: &Tensor,
    projection: &Linear,
    activation: Activation,
    plain: fn(&Tensor) -> Result<Tensor>,
) -> Result<Tensor> {
    projection.check(x)?;
    match Backend::of(x.device()) {
        Backend::Cpu => {
            let epilogue = Epilogue::Activation(activation);
            on_cpu(InstructionSet::best(), x, projection, epilogue)
        }
        #[cfg(gpu)]
        gpu if has_kernels(gpu) => on_gpu(gpu, x, projection, gpu::Epilogue::activation(activation)),
        _ => plain(&linear(x, projection)?),
    }
}

fn check_residual(residual: &Tensor, x: &Tensor, projection: &Linear) -> Result<()> {
    projection.check(x)?;
    let leading = &x.dims()[..x.rank() - 1];
    if residual.dims() != [leading, &[projection.outputs]].concat() {
        bail!(
            "a residual of shape {:?} for {} features of {:?}",
            residual.dims(),
            projection.outputs,
            x.dims()
        );
    }
    Ok(())
}
