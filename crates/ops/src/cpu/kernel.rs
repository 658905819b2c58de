//! The bridge from candle's tensors to kernels over slices.

use candle_core::{
    CpuStorage, CustomOp1, CustomOp2, CustomOp3, Layout, Result, Shape, Storage, Tensor, bail,
};
use half::{bf16, f16};

/// The values of a contiguous tensor, in their stored type.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Values<'a> {
    F32(&'a [f32]),
    Bf16(&'a [bf16]),
    F16(&'a [f16]),
}

impl<'a> Values<'a> {
    fn of(storage: &'a CpuStorage, layout: &Layout) -> Result<Self> {
        let Some((start, end)) = layout.contiguous_offsets() else {
            bail!("a kernel was given a strided tensor")
        };
        Ok(match storage {
            CpuStorage::F32(values) => Self::F32(&values[start..end]),
            CpuStorage::BF16(values) => Self::Bf16(&values[start..end]),
            CpuStorage::F16(values) => Self::F16(&values[start..end]),
            _ => bail!("a kernel was given a tensor that is not of floats"),
        })
    }

    /// The values of a tensor on the CPU.
    pub(crate) fn of_storage(storage: &'a Storage, layout: &Layout) -> Result<Self> {
        match storage {
            Storage::Cpu(storage) => Self::of(storage, layout),
            _ => bail!("a CPU kernel was given a tensor of another device"),
        }
    }

    /// Number of values.
    pub(crate) fn len(self) -> usize {
        match self {
            Self::F32(values) => values.len(),
            Self::Bf16(values) => values.len(),
            Self::F16(values) => values.len(),
        }
    }

    /// The values as 32-bit floats; fails for other types.
    pub(crate) fn floats(self) -> Result<&'a [f32]> {
        match self {
            Self::F32(values) => Ok(values),
            _ => bail!("activations on the CPU are f32"),
        }
    }
}

/// A kernel and the shape of its output.
struct Kernel<F> {
    name: &'static str,
    shape: Shape,
    run: F,
}

impl<F> Kernel<F> {
    fn output(&self, values: Vec<f32>) -> Result<(CpuStorage, Shape)> {
        Ok((CpuStorage::F32(values), self.shape.clone()))
    }
}

impl<F: Fn(Values<'_>) -> Result<Vec<f32>>> CustomOp1 for Kernel<F> {
    fn name(&self) -> &'static str {
        self.name
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        self.output((self.run)(Values::of(storage, layout)?)?)
    }
}

impl<F: Fn(Values<'_>, Values<'_>) -> Result<Vec<f32>>> CustomOp2 for Kernel<F> {
    fn name(&self) -> &'static str {
        self.name
    }

    fn cpu_fwd(
        &self,
        s1: &CpuStorage,
        l1: &Layout,
        s2: &CpuStorage,
        l2: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        self.output((self.run)(Values::of(s1, l1)?, Values::of(s2, l2)?)?)
    }
}

impl<F: Fn(Values<'_>, Values<'_>, Values<'_>) -> Result<Vec<f32>>> CustomOp3 for Kernel<F> {
    fn name(&self) -> &'static str {
        self.name
    }

    fn cpu_fwd(
        &self,
        s1: &CpuStorage,
        l1: &Layout,
        s2: &CpuStorage,
        l2: &Layout,
        s3: &CpuStorage,
        l3: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        self.output((self.run)(
            Values::of(s1, l1)?,
            Values::of(s2, l2)?,
            Values::of(s3, l3)?,
        )?)
    }
}

/// Runs `run` on the values of one tensor; its result has `shape`.
pub(crate) fn on_one(
    name: &'static str,
    shape: impl Into<Shape>,
    a: &Tensor,
    run: impl Fn(Values<'_>) -> Result<Vec<f32>>,
) -> Result<Tensor> {
    a.contiguous()?.apply_op1_no_bwd(&Kernel {
        name,
        shape: shape.into(),
        run,
    })
}

/// Runs `run` on the values of two tensors; its result has `shape`.
pub(crate) fn on_two(
    name: &'static str,
    shape: impl Into<Shape>,
    a: &Tensor,
    b: &Tensor,
    run: impl Fn(Values<'_>, Values<'_>) -> Result<Vec<f32>>,
) -> Result<Tensor> {
    a.contiguous()?.apply_op2_no_bwd(
        &b.contiguous()?,
        &Kernel {
            name,
            shape: shape.into(),
            run,
        },
    )
}

/// Runs `run` on the values of three tensors; its result has `shape`.
pub(crate) fn on_three(
    name: &'static str,
    shape: impl Into<Shape>,
    a: &Tensor,
    b: &Tensor,
    c: &Tensor,
    run: impl Fn(Values<'_>, Values<'_>, Values<'_>) -> Result<Vec<f32>>,
) -> Result<Tensor> {
    a.contiguous()?.apply_op3_no_bwd(
        &b.contiguous()?,
        &c.contiguous()?,
        &Kernel {
            name,
            shape: shape.into(),
            run,
        },
    )
}

#[cfg(test)]
pub(crate) mod tests {
    use candle_core::{Device, Tensor};

    /// Numbers between -1 and 1 that look random, the same for the same seed.
    pub(crate) fn random(shape: &[usize], seed: u64) -> Tensor {
        let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        let mut next = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 40) as f32 / (1_u64 << 23) as f32 - 1.0
        };
        let values: Vec<f32> = (0..shape.iter().product()).map(|_| next()).collect();
        Tensor::from_vec(values, shape, &Device::Cpu).unwrap()
    }

    /// Multiples of an eighth between -1 and 1: bf16 holds them, and the sums of a few of them, to the bit.
    pub(crate) fn eighths(shape: &[usize], seed: u64) -> Tensor {
        ((random(shape, seed) * 8.0).unwrap().round().unwrap() / 8.0).unwrap()
    }

    fn values(tensor: &Tensor) -> Vec<f32> {
        tensor.flatten_all().unwrap().to_vec1().unwrap()
    }

    /// Asserts that two tensors differ by at most `tolerance` of the second one's size.
    #[track_caller]
    pub(crate) fn close(found: &Tensor, expected: &Tensor, tolerance: f64) {
        assert_eq!(found.dims(), expected.dims());
        let (found, expected) = (values(found), values(expected));
        let norm =
            |values: &mut dyn Iterator<Item = f32>| values.map(|x| f64::from(x).powi(2)).sum::<f64>().sqrt();
        let difference = norm(&mut found.iter().zip(&expected).map(|(a, b)| a - b));
        let size = norm(&mut expected.iter().copied());
        assert!(
            difference <= tolerance * size.max(1e-12),
            "relative error {}",
            difference / size
        );
    }

    /// Asserts that two tensors are equal to the bit.
    #[track_caller]
    pub(crate) fn equal(found: &Tensor, expected: &Tensor) {
        let bits = |tensor: &Tensor| values(tensor).into_iter().map(f32::to_bits).collect::<Vec<_>>();
        assert_eq!(found.dims(), expected.dims());
        assert!(bits(found) == bits(expected), "not equal to the bit");
    }
}
