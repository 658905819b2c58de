//! Linear projections, with and without a fused epilogue.

mod fused;

use candle_core::{CpuStorage, DType, Device, Layout, Storage, Tensor, bail};

use crate::capabilities::{Backend, Capabilities};
use crate::cpu::kernel::Values;
use crate::cpu::projection::{Epilogue, Projection, QuantizedRows, Weight, project};
use crate::cpu::simd::InstructionSet;
#[cfg(gpu)]
use crate::gpu::{self, has_kernels};
use crate::{Precision, Quantization, Result};

/// The weight and bias of a linear projection, prepared once at load time.
#[derive(Debug, Clone)]
pub struct Linear {
    /// The values, or the bytes of quantised rows.
    weight: Tensor,
    quantization: Option<Quantization>,
    bias: Option<Tensor>,
    inputs: usize,
    outputs: usize,
}

impl Linear {
    /// A projection with `weight`, `[outputs, inputs]`, and `bias`, `[outputs]`.
    ///
    /// # Errors
    /// The shapes do not fit each other.
    pub fn new(weight: Tensor, bias: Option<Tensor>) -> Result<Self> {
        let (outputs, inputs) = weight.dims2()?;
        Self::of(weight, None, bias, (outputs, inputs))
    }

    /// A projection with a quantised weight and `bias`, `[outputs]`. `rows` are the weight's bytes,
    /// `[outputs, bytes of a row]`. Products have the bits of those with the decoded weight: as 32-bit floats, or
    /// rounded to bf16 on a CPU with a matrix unit or dot products for bf16, which is used then, or on a GPU rounded to
    /// the type of the activations.
    ///
    /// # Errors
    /// `rows` are not bytes or not of whole blocks, or the shapes do not fit.
    pub fn quantized(rows: Tensor, quantization: Quantization, bias: Option<Tensor>) -> Result<Self> {
        let (outputs, bytes) = rows.dims2()?;
        match quantization.row_values(bytes) {
            Some(inputs) if rows.dtype() == DType::U8 => {
                Self::of(rows, Some(quantization), bias, (outputs, inputs))
            }
            _ => bail!(
                "rows of {bytes} values of {:?} are not those of a weight in {quantization:?}",
                rows.dtype()
            ),
        }
    }

    fn of(
        weight: Tensor,
        quantization: Option<Quantization>,
        bias: Option<Tensor>,
        (outputs, inputs): (usize, usize),
    ) -> Result<Self> {
        if let Some(bias) = &bias
            && bias.dims() != [outputs]
        {
            bail!(
                "a projection to {outputs} features has a bias of shape {:?}",
                bias.dims()
            );
        }
        Ok(Self {
            weight: weight.contiguous()?,
            quantization,
            bias: bias.map(|bias| small(&bias)).transpose()?,
            inputs,
            outputs,
        })
    }

    /// Input features.
    pub fn in_features(&self) -> usize {
        self.inputs
    }

    /// Output features.
    pub fn out_features(&self) -> usize {
        self.outputs
    }

    /// The precision of products between activations in a network with such weights.
    pub fn precision(&self) -> Precision {
        match self.weight.dtype() {
            DType::BF16 => Precision::Bf16,
            _ if self.quantization.is_some() => Precision::Bf16,
            _ => Precision::Full,
        }
    }

    /// Fails if `x` does not have the input features.
    fn check(&self, x: &Tensor) -> Result<()> {
        if x.dims().last() != Some(&self.inputs) {
            bail!(
                "a projection of {} features was given {:?}",
                self.inputs,
                x.dims()
            );
        }
        Ok(())
    }

    /// The values of the weight, `[outputs, inputs]`: of a quantised one decoded to `dtype`, for this product alone.
    #[cfg(gpu)]
    fn values(&self, backend: Backend, dtype: DType) -> Result<Tensor> {
        let rows = &self.weight;
        match self.quantization {
            None => Ok(rows.clone()),
            Some(quantization) => gpu::on_gpu!(backend, decoded(rows, quantization, self.inputs, dtype)),
        }
    }

    /// Bytes of the weight and the bias.
    pub fn bytes(&self) -> u64 {
        let bytes = |tensor: &Tensor| (tensor.elem_count() * tensor.dtype().size_in_bytes()) as u64;
        bytes(&self.weight) + self.bias.as_ref().map_or(0, bytes)
    }
}

/// A bias or similar small tensor in the type of activations.
pub(crate) fn small(tensor: &Tensor) -> Result<Tensor> {
    let activation_type = Capabilities::of(tensor.device()).activation_type(tensor.dtype());
    tensor.to_dtype(activation_type)?.contiguous()
}

/// `x * weight^T + bias` over the last dimension: `[…, inputs]` to `[…, outputs]`.
///
/// # Errors
/// The last dimension of `x` is not the projection's, or the device fails.
pub fn linear(x: &Tensor, projection: &Linear) -> Result<Tensor> {
    projection.check(x)?;
    match Backend::of(x.device()) {
        Backend::Cpu => on_cpu(InstructionSet::best(), x, projection, Epilogue::Identity),
        #[cfg(gpu)]
        gpu if has_kernels(gpu) => on_gpu(gpu, x, projection, gpu::Epilogue::NONE),
        _ => plain(x, projection),
    }
}

/// The projection of `x`, which was checked, with a fused `epilogue`.
fn on_cpu(set: InstructionSet, x: &Tensor, projection: &Linear, epilogue: Epilogue<'_>) -> Result<Tensor> {
    let (inputs, outputs) = (projection.inputs, projection.outputs);
    let mut shape = x.dims().to_vec();
    let rows = shape[..shape.len() - 1].iter().product();
    if let Some(last) = shape.last_mut() {
        *last = outputs / epilogue.products();
    }
    let x = x.contiguous()?;
    let (storage, layout) = x.storage_and_layout();
    let x = Values::of_storage(&storage, layout)?.floats()?;
    let (weight, layout) = projection.weight.storage_and_layout();
    let bias = projection.bias.as_ref().map(Tensor::storage_and_layout);
    let bias = bias
        .as_ref()
        .map(|(storage, layout)| Values::of_storage(storage, layout)?.floats());
    let projection = Projection {
        weight: match projection.quantization {
            None => Values::of_storage(&weight, layout)?.into(),
            Some(quantization) => {
                let bytes = bytes_of(&weight, layout)?;
                Weight::Quantized(QuantizedRows {
                    bytes,
                    row_bytes: bytes.len() / outputs.max(1),
                    inputs,
                    quantization,
                })
            }
        },
        bias: bias.transpose()?,
        inputs,
        outputs,
    };
    Tensor::from_vec(project(set, x, rows, projection, epilogue), shape, &Device::Cpu)
}

/// The bytes of a contiguous tensor on the CPU.
fn bytes_of<'a>(storage: &'a Storage, layout: &Layout) -> Result<&'a [u8]> {
    match (storage, layout.contiguous_offsets()) {
        (Storage::Cpu(CpuStorage::U8(bytes)), Some((start, end))) => Ok(&bytes[start..end]),
        _ => bail!("a quantised weight that is not of bytes"),
    }
}

/// The projection of `x`, which was checked, with an `epilogue` in place.
#[cfg(gpu)]
fn on_gpu(backend: Backend, x: &Tensor, projection: &Linear, epilogue: gpu::Epilogue<'_>) -> Result<Tensor> {
    let weight = projection.values(backend, x.dtype())?;
    gpu::on_gpu!(backend, linear(x, &weight, projection.bias.as_ref(), epilogue))
}

/// The plain definition.
fn plain(x: &Tensor, projection: &Linear) -> Result<Tensor> {
    let (leading, rows) = (x.dims(), x.elem_count() / projection.inputs.max(1));
    let shape = [&leading[..leading.len() - 1], &[projection.outputs]].concat();
    let product = x
        .reshape((rows, projection.inputs))?
        .matmul(&projection.weight.t()?)?;
    match &projection.bias {
        Some(bias) => product.broadcast_add(bias)?.reshape(shape),
        None => product.reshape(shape),
    }
}

pub use fused::{
    linear_gated_gelu_tanh, linear_gated_residual, linear_geglu, linear_gelu, linear_gelu_tanh,
    linear_quick_gelu, linear_residual, linear_silu,
};

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;
    use crate::cpu::kernel::tests::{close, equal, random};

    #[test]
    fn agrees_with_the_plain_definition() {
        for (rows, inputs, outputs) in [
            (1, 1, 1),
            (7, 33, 5),
            (64, 144, 432),
            (3, 5, 2100),
            (130, 600, 2049),
        ] {
            let x = random(&[2, rows, inputs], 1);
            for bias in [None, Some(random(&[outputs], 3))] {
                let projection = Linear::new(random(&[outputs, inputs], 2), bias).unwrap();
                close(
                    &linear(&x, &projection).unwrap(),
                    &plain(&x, &projection).unwrap(),
                    1e-5,
                );
            }
        }
    }

    #[test]
    fn a_weight_of_16_bits_gives_the_bits_of_the_same_weight_widened() {
        for kind in [DType::BF16, DType::F16] {
            let weight = random(&[700, 300], 1).to_dtype(kind).unwrap();
            let x = random(&[9, 300], 2);
            let narrow = Linear::new(weight.clone(), None).unwrap();
            let wide = Linear::new(weight.to_dtype(DType::F32).unwrap(), None).unwrap();
            assert_eq!(narrow.bytes(), 2 * 700 * 300);
            let projection = wide;
            let (narrow, wide) = (linear(&x, &narrow).unwrap(), linear(&x, &projection).unwrap());
            if kind == DType::BF16 && InstructionSet::best().has_bf16_dot() {
                // Activations are rounded too, and nothing else is.
                let rounded = x.to_dtype(kind).unwrap().to_dtype(DType::F32).unwrap();
                let rounded = linear(&rounded, &projection).unwrap();
                close(&narrow, &rounded, 1e-5);
            } else {
                equal(&narrow, &wide);
            }
        }
    }

    #[test]
    fn views_and_wrong_shapes() {
        let projection = Linear::new(random(&[4, 6], 1), None).unwrap();
        let x = random(&[6, 5], 2);
        let view = x.t().unwrap();
        equal(
            &linear(&view, &projection).unwrap(),
            &linear(&view.contiguous().unwrap(), &projection).unwrap(),
        );
        assert!(linear(&x, &projection).is_err());
        assert!(Linear::new(random(&[4, 6], 1), Some(random(&[6], 1))).is_err());
        let none = Tensor::zeros((0, 6), DType::F32, &Device::Cpu).unwrap();
        assert_eq!(linear(&none, &projection).unwrap().dims(), [0, 4]);
    }

    #[test]
    fn quantised_weights_are_projections_like_others() {
        use candle_core::quantized::{GgmlDType, QTensor};

        let (x, bias) = (random(&[2, 30, 512], 1), random(&[70], 3));
        let weight = random(&[70, 512], 2);
        for (kind, quantization) in [
            (GgmlDType::Q8_0, Quantization::Q8_0),
            (GgmlDType::Q4K, Quantization::Q4K),
        ] {
            let quantized = QTensor::quantize(&weight, kind).unwrap();
            let bytes = quantized.data().unwrap().into_owned();
            let size = bytes.len();
            let rows = Tensor::from_vec(bytes, (70, size / 70), &Device::Cpu).unwrap();
            let of = |rows: Tensor| Linear::quantized(rows, quantization, Some(bias.clone()));
            let projection = of(rows.clone()).unwrap();
            assert_eq!((projection.in_features(), projection.out_features()), (512, 70));
            assert_eq!(projection.bytes(), size as u64 + 4 * 70);
            assert_eq!(projection.precision(), Precision::Bf16);
            let widened = quantized.dequantize(&Device::Cpu).unwrap();
            let widened = Linear::new(widened, Some(bias.clone())).unwrap();
            let found = linear_gelu(&x, &projection).unwrap();
            close(&found, &linear_gelu(&x, &widened).unwrap(), 1e-2);

            assert!(of(rows.narrow(1, 0, size / 70 - 1).unwrap()).is_err());
            assert!(of(rows.narrow(0, 0, 69).unwrap()).is_err());
            assert!(of(weight.clone()).is_err());
        }
    }

    #[test]
    fn the_number_of_threads_changes_no_bit() {
        let (x, projection) = (
            random(&[300, 500], 1),
            Linear::new(random(&[900, 500], 2), None).unwrap(),
        );
        let with = |threads: usize| {
            let pool = rayon::ThreadPoolBuilder::new()
                .num_threads(threads)
                .build()
                .unwrap();
            pool.install(|| linear(&x, &projection).unwrap())
        };
        equal(&with(1), &with(3));
    }
}
