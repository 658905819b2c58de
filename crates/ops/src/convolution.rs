//! 2D convolutions.

#[cfg(feature = "cuda")]
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use candle_core::{Tensor, bail};

use crate::Result;
use crate::capabilities::Backend;
use crate::cpu::convolution as kernel;
use crate::cpu::kernel::{Values, on_two};
#[cfg(gpu)]
use crate::gpu::{Addends, Windows, has_kernels, on_gpu};
use crate::linear::small;

/// The weight and bias of a convolution, prepared once at load time.
#[derive(Debug, Clone)]
pub struct Conv2d {
    pub(crate) weight: Tensor,
    /// The weight in the order that the kernels of an NVIDIA GPU read, in the same memory, from the first use on.
    #[cfg(feature = "cuda")]
    in_kernel_order: Arc<OnceLock<Tensor>>,
    pub(crate) bias: Option<Tensor>,
    pub(crate) stride: usize,
    pub(crate) padding: Padding,
}

/// Zero padding: rows above and below, and as many columns left and right.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Padding {
    pub(crate) before: usize,
    pub(crate) after: usize,
}

impl Padding {
    pub(crate) fn sum(self) -> usize {
        self.before + self.after
    }
}

impl Conv2d {
    /// A convolution with `weight`, `[out channels, in channels, kernel height, kernel width]`, and `bias`,
    /// `[out channels]`, with the given stride and zero padding on every side.
    ///
    /// # Errors
    /// The shapes do not fit each other, or the stride or the weight is empty.
    pub fn new(weight: Tensor, bias: Option<Tensor>, stride: usize, padding: usize) -> Result<Self> {
        let (outputs, ..) = weight.dims4()?;
        if stride == 0 || weight.elem_count() == 0 {
            bail!("a convolution by {:?} with a stride of {stride}", weight.dims());
        }
        if let Some(bias) = &bias
            && bias.dims() != [outputs]
        {
            bail!(
                "a convolution to {outputs} channels has a bias of shape {:?}",
                bias.dims()
            );
        }
        let bias = bias.map(|bias| small(&bias)).transpose()?;
        Ok(Self {
            weight: weight.contiguous()?,
            #[cfg(feature = "cuda")]
            in_kernel_order: Arc::default(),
            bias,
            stride,
            padding: Padding {
                before: padding,
                after: padding,
            },
        })
    }

    /// The same convolution with other `padding` below and to the right.
    #[must_use]
    pub fn padded_after(mut self, padding: usize) -> Self {
        self.padding.after = padding;
        self
    }

    /// Input channels.
    pub fn in_channels(&self) -> usize {
        self.weight.dims()[1]
    }

    /// Output channels.
    pub fn out_channels(&self) -> usize {
        self.weight.dims()[0]
    }

    /// Bytes of the weight and the bias.
    pub fn bytes(&self) -> u64 {
        let bytes = |tensor: &Tensor| (tensor.elem_count() * tensor.dtype().size_in_bytes()) as u64;
        bytes(&self.weight) + self.bias.as_ref().map_or(0, bytes)
    }

    /// The sizes of the convolution of an input of the given channels, height and width; none if they do not
    /// fit.
    fn sizes(&self, [channels, height, width]: [usize; 3]) -> Option<kernel::Sizes> {
        let &[out_channels, in_channels, kernel_height, kernel_width] = self.weight.dims() else {
            return None;
        };
        let windows = |size: usize, kernel: usize| {
            let rest = (size + self.padding.sum()).checked_sub(kernel)?;
            Some(rest / self.stride + 1)
        };
        (channels == in_channels && height * width > 0).then_some(())?;
        Some(kernel::Sizes {
            in_channels,
            height,
            width,
            out_channels,
            out_height: windows(height, kernel_height)?,
            out_width: windows(width, kernel_width)?,
            kernel_height,
            kernel_width,
            stride: self.stride,
            rows_above: self.padding.before,
            columns_left: self.padding.before,
        })
    }

    /// The weight as the kernels of a GPU take it.
    #[cfg(gpu)]
    pub(crate) fn weight_of_kernels(&self) -> Result<Tensor> {
        match Backend::of(self.weight.device()) {
            #[cfg(feature = "cuda")]
            Backend::Cuda => {
                // A clone of this layer, on another thread, waits for the order, so that nobody reads in between.
                static ORDERING: Mutex<()> = Mutex::new(());
                if let Some(weight) = self.in_kernel_order.get() {
                    return Ok(weight.clone());
                }
                let _ordering = ORDERING.lock().unwrap_or_else(PoisonError::into_inner);
                if let Some(weight) = self.in_kernel_order.get() {
                    return Ok(weight.clone());
                }
                let ordered = crate::cuda::channels_last_in_place(&self.weight)?;
                Ok(match ordered {
                    Some(weight) => self.in_kernel_order.get_or_init(|| weight).clone(),
                    None => self.weight.clone(),
                })
            }
            _ => Ok(self.weight.clone()),
        }
    }

    /// The bias for the CPU kernels.
    pub(crate) fn bias_values(&self) -> Result<Option<Vec<f32>>> {
        self.bias.as_ref().map(Tensor::to_vec1::<f32>).transpose()
    }
}

/// The convolution (cross-correlation) of `x`, `[batch, in channels, height, width]`:
/// `[batch, out channels, height', width']` with
/// `height' = (height + padding above and below - kernel height) / stride + 1`, and the width alike.
///
/// # Errors
/// `x` has other channels than the convolution, or is smaller than its kernel, or the device fails.
pub fn conv2d(x: &Tensor, convolution: &Conv2d) -> Result<Tensor> {
    conv2d_and(x, convolution, None, None)
}

/// [`conv2d`] of `x` plus `shifts`, `[batch, out channels]`, broadcast over all pixels.
///
/// # Errors
/// As for [`conv2d`], or `shifts` has another shape.
pub fn conv2d_shifted(x: &Tensor, convolution: &Conv2d, shifts: &Tensor) -> Result<Tensor> {
    conv2d_and(x, convolution, Some(shifts), None)
}

/// [`conv2d`] of `x`, added to `onto`, which has the shape of the result.
///
/// # Errors
/// As for [`conv2d`], or `onto` has another shape.
pub fn conv2d_onto(onto: &Tensor, x: &Tensor, convolution: &Conv2d) -> Result<Tensor> {
    conv2d_and(x, convolution, None, Some(onto))
}

fn conv2d_and(
    x: &Tensor,
    convolution: &Conv2d,
    shifts: Option<&Tensor>,
    onto: Option<&Tensor>,
) -> Result<Tensor> {
    let (batch, channels, height, width) = x.dims4()?;
    let Some(sizes) = convolution.sizes([channels, height, width]) else {
        bail!(
            "a convolution by {:?} was given {:?}",
            convolution.weight.dims(),
            x.dims()
        );
    };
    let shape = [batch, sizes.out_channels, sizes.out_height, sizes.out_width];
    if shifts.is_some_and(|shifts| shifts.dims() != &shape[..2])
        || onto.is_some_and(|onto| onto.dims() != shape)
    {
        bail!(
            "{:?} and {:?} cannot be added to a convolution's result of {shape:?}",
            shifts.map(Tensor::dims),
            onto.map(Tensor::dims)
        );
    }
    match Backend::of(x.device()) {
        Backend::Cpu => on_cpu(x, convolution, shifts, onto, sizes),
        #[cfg(gpu)]
        gpu if has_kernels(gpu) => {
            let addends = Addends {
                bias: convolution.bias.as_ref(),
                shifts,
                onto,
            };
            let windows = Windows {
                stride: convolution.stride,
                above: convolution.padding.before.cast_signed(),
                left: convolution.padding.before,
                height: sizes.out_height,
                width: sizes.out_width,
                upsamples: false,
            };
            on_gpu!(
                gpu,
                conv2d(x, &convolution.weight_of_kernels()?, addends, windows)
            )
        }
        _ => {
            let mut result = plain(x, convolution)?;
            if let Some(shifts) = shifts {
                result = result.broadcast_add(&shifts.reshape((shape[0], shape[1], 1, 1))?)?;
            }
            match onto {
                Some(onto) => onto + result,
                None => Ok(result),
            }
        }
    }
}

fn on_cpu(
    x: &Tensor,
    convolution: &Conv2d,
    shifts: Option<&Tensor>,
    onto: Option<&Tensor>,
    sizes: kernel::Sizes,
) -> Result<Tensor> {
    let shape = [x.dim(0)?, sizes.out_channels, sizes.out_height, sizes.out_width];
    let bias = match (&convolution.bias, shifts) {
        (Some(bias), Some(shifts)) => Some(shifts.broadcast_add(bias)?.flatten_all()?),
        (None, Some(shifts)) => Some(shifts.flatten_all()?),
        (bias, None) => bias.clone(),
    };
    let bias = bias.map(|bias| bias.to_vec1::<f32>()).transpose()?;
    let onto = onto.map(Tensor::contiguous).transpose()?;
    let onto = onto.as_ref().map(Tensor::storage_and_layout);
    let onto = onto
        .as_ref()
        .map(|(storage, layout)| Values::of_storage(storage, layout)?.floats());
    let addends = kernel::Addends {
        bias: bias.as_deref(),
        onto: onto.transpose()?,
    };
    on_two("conv2d", &shape[..], x, &convolution.weight, |x, weight| {
        Ok(kernel::conv2d(x.floats()?, weight, addends, sizes))
    })
}

/// The plain definition.
pub(crate) fn plain(x: &Tensor, convolution: &Conv2d) -> Result<Tensor> {
    let Padding { before, after } = convolution.padding;
    if before == after {
        return plain_padded(x, convolution, before);
    }
    let padded = x
        .pad_with_zeros(2, before, after)?
        .pad_with_zeros(3, before, after)?;
    plain_padded(&padded, convolution, 0)
}

/// The plain definition with the same padding on all sides.
pub(crate) fn plain_padded(x: &Tensor, convolution: &Conv2d, padding: usize) -> Result<Tensor> {
    let Conv2d {
        weight, bias, stride, ..
    } = convolution;
    let weight = weight.to_dtype(x.dtype())?;
    let product = x.contiguous()?.conv2d(&weight, padding, *stride, 1, 1)?;
    match bias {
        Some(bias) => product.broadcast_add(&bias.reshape((1, (), 1, 1))?),
        None => Ok(product),
    }
}

#[cfg(test)]
mod tests {
    use candle_core::{DType, Device};
    use proptest::prelude::*;

    use super::*;
    use crate::cpu::kernel::tests::{close, equal, random};
    use crate::cpu::simd::InstructionSet;

    fn convolution(weight: [usize; 4], bias: bool, stride: usize, padding: usize) -> Conv2d {
        let bias = bias.then(|| random(&weight[..1], 3));
        Conv2d::new(random(&weight, 2), bias, stride, padding).unwrap()
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn agrees_with_the_plain_definition(
            (batch, inputs, outputs) in (1_usize..3, 1_usize..20, 1_usize..70),
            (height, width) in (5_usize..40, 5_usize..40),
            (kernel_height, kernel_width) in (1_usize..6, 1_usize..6),
            (stride, padding, after) in (1_usize..4, 0_usize..4, 0_usize..4),
            bias: bool,
        ) {
            let x = random(&[batch, inputs, height, width], 1);
            let convolution =
                convolution([outputs, inputs, kernel_height, kernel_width], bias, stride, padding).padded_after(after);
            close(&conv2d(&x, &convolution).unwrap(), &plain(&x, &convolution).unwrap(), 1e-5);
        }
    }

    #[test]
    fn what_is_added_is_added() {
        let x = random(&[2, 9, 7, 12], 1);
        for bias in [false, true] {
            let convolution = convolution([10, 9, 3, 3], bias, 1, 1);
            let plain = plain(&x, &convolution).unwrap();
            let (shifts, onto) = (random(&[2, 10], 4), random(&[2, 10, 7, 12], 5));
            let shifted = plain.broadcast_add(&shifts.reshape((2, 10, 1, 1)).unwrap());
            close(
                &conv2d_shifted(&x, &convolution, &shifts).unwrap(),
                &shifted.unwrap(),
                1e-5,
            );
            close(
                &conv2d_onto(&onto, &x, &convolution).unwrap(),
                &(&onto + &plain).unwrap(),
                1e-5,
            );
            assert!(conv2d_shifted(&x, &convolution, &onto).is_err());
            assert!(conv2d_onto(&x, &x, &convolution).is_err());
        }
    }

    #[test]
    fn many_bands_and_panels_agree_with_the_plain_definition() {
        for (weight, size, stride, padding) in [
            ([96, 130, 3, 3], 33, 1, 1),
            ([16, 8, 3, 3], 150, 2, 1),
            ([200, 40, 1, 1], 50, 1, 0),
            ([70, 70, 1, 1], 31, 2, 0),
            ([130, 8192, 3, 3], 4, 1, 1),
        ] {
            let x = random(&[2, weight[1], size, size + 3], 1);
            let convolution = convolution(weight, true, stride, padding);
            close(
                &conv2d(&x, &convolution).unwrap(),
                &plain(&x, &convolution).unwrap(),
                1e-5,
            );
        }
    }

    #[test]
    fn a_weight_of_16_bits_gives_the_bits_of_the_same_weight_widened_or_is_multiplied_in_pairs() {
        let x = random(&[1, 100, 20, 20], 1);
        for kind in [DType::BF16, DType::F16] {
            let weight = random(&[70, 100, 3, 3], 2).to_dtype(kind).unwrap();
            let narrow = Conv2d::new(weight.clone(), None, 1, 1).unwrap();
            let wide = Conv2d::new(weight.to_dtype(DType::F32).unwrap(), None, 1, 1).unwrap();
            assert_eq!((narrow.bytes(), wide.bytes()), (126_000, 252_000));
            let (narrow, wide) = (conv2d(&x, &narrow).unwrap(), conv2d(&x, &wide).unwrap());
            if kind == DType::BF16 && InstructionSet::best().has_bf16_dot() {
                close(&narrow, &wide, 5e-3);
            } else {
                equal(&narrow, &wide);
            }
        }
    }

    #[test]
    fn views_are_read_as_they_are_and_wrong_shapes_refused() {
        let three = convolution([4, 6, 3, 3], true, 1, 0);
        let x = random(&[1, 6, 9, 5], 1).transpose(2, 3).unwrap();
        equal(
            &conv2d(&x, &three).unwrap(),
            &conv2d(&x.contiguous().unwrap(), &three).unwrap(),
        );
        assert!(conv2d(&random(&[1, 5, 9, 9], 1), &three).is_err());
        assert!(conv2d(&random(&[1, 6, 2, 9], 1), &three).is_err());
        let padded = convolution([4, 6, 1, 1], true, 1, 1);
        assert!(
            conv2d(
                &Tensor::zeros((1, 6, 0, 4), DType::F32, &Device::Cpu).unwrap(),
                &padded
            )
            .is_err()
        );
        assert!(Conv2d::new(random(&[4, 6, 3, 3], 1), Some(random(&[6], 1)), 1, 1).is_err());
        assert!(Conv2d::new(random(&[4, 6, 3, 3], 1), None, 0, 1).is_err());
    }

    #[test]
    fn the_number_of_threads_changes_no_bit() {
        let (x, convolution) = (
            random(&[2, 64, 40, 40], 1),
            convolution([96, 64, 3, 3], true, 1, 1),
        );
        let with = |threads: usize| {
            let pool = rayon::ThreadPoolBuilder::new()
                .num_threads(threads)
                .build()
                .unwrap();
            pool.install(|| conv2d(&x, &convolution).unwrap())
        };
        equal(&with(1), &with(3));
    }
}
