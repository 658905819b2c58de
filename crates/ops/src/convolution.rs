//! Convolutions over pictures.

use candle_core::{DType, Tensor, bail};

use crate::Result;
use crate::cpu::convolution as kernel;
use crate::cpu::kernel::on_two;
use crate::linear::small;

/// The weight and bias of a convolution, prepared once when they are loaded.
#[derive(Debug, Clone)]
pub struct Conv2d {
    weight: Tensor,
    bias: Option<Tensor>,
    stride: usize,
    padding: usize,
}

impl Conv2d {
    /// A convolution by `weight`, `[out channels, in channels, kernel height, kernel width]`, and `bias`,
    /// `[out channels]`. A window begins every `stride` pixels; `padding` rows and columns of zeros lie on
    /// every side of the picture. Other paddings are the caller's to add.
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
            bias,
            stride,
            padding,
        })
    }

    /// Channels that go in.
    pub fn in_channels(&self) -> usize {
        self.weight.dims()[1]
    }

    /// Channels that come out.
    pub fn out_channels(&self) -> usize {
        self.weight.dims()[0]
    }

    /// Bytes that the weight and the bias take.
    pub fn bytes(&self) -> u64 {
        let bytes = |tensor: &Tensor| (tensor.elem_count() * tensor.dtype().size_in_bytes()) as u64;
        bytes(&self.weight) + self.bias.as_ref().map_or(0, bytes)
    }
}

/// The convolution of `x`, `[batch, in channels, height, width]`: `[batch, out channels, height', width']`
/// with `height' = (height + 2 * padding - kernel height) / stride + 1`, and the width alike. As usual with
/// networks the kernel is not turned round.
///
/// # Errors
/// `x` has other channels than the convolution, or is smaller than its kernel, or the device fails.
pub fn conv2d(x: &Tensor, convolution: &Conv2d) -> Result<Tensor> {
    let (batch, channels, height, width) = x.dims4()?;
    let (out_channels, inputs, kernel_height, kernel_width) = convolution.weight.dims4()?;
    let padding = 2 * convolution.padding;
    if height * width == 0
        || channels != inputs
        || height + padding < kernel_height
        || width + padding < kernel_width
    {
        bail!(
            "a convolution by {:?} was given {:?}",
            convolution.weight.dims(),
            x.dims()
        );
    }
    if !x.device().is_cpu() {
        return plain(x, convolution);
    }
    let stride = convolution.stride;
    let sizes = kernel::Sizes {
        in_channels: channels,
        height,
        width,
        out_channels,
        out_height: (height + padding - kernel_height) / stride + 1,
        out_width: (width + padding - kernel_width) / stride + 1,
        kernel_height,
        kernel_width,
        stride,
        padding: convolution.padding,
    };
    let bias = convolution
        .bias
        .as_ref()
        .map(Tensor::to_vec1::<f32>)
        .transpose()?;
    let shape = (batch, out_channels, sizes.out_height, sizes.out_width);
    on_two("conv2d", shape, x, &convolution.weight, |x, weight| {
        Ok(kernel::conv2d(x.floats()?, weight, bias.as_deref(), sizes))
    })
}

/// The plain definition.
fn plain(x: &Tensor, convolution: &Conv2d) -> Result<Tensor> {
    let Conv2d {
        weight,
        bias,
        stride,
        padding,
    } = convolution;
    let weight = if x.device().is_cpu() {
        &weight.to_dtype(DType::F32)?
    } else {
        weight
    };
    let product = x.contiguous()?.conv2d(weight, *padding, *stride, 1, 1)?;
    match bias {
        Some(bias) => product.broadcast_add(&bias.reshape((1, (), 1, 1))?),
        None => Ok(product),
    }
}

#[cfg(test)]
mod tests {
    use candle_core::Device;
    use proptest::prelude::*;

    use super::*;
    use crate::cpu::kernel::tests::{close, equal, random};

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
            (stride, padding) in (1_usize..4, 0_usize..4),
            bias: bool,
        ) {
            let x = random(&[batch, inputs, height, width], 1);
            let convolution =
                convolution([outputs, inputs, kernel_height, kernel_width], bias, stride, padding);
            close(&conv2d(&x, &convolution).unwrap(), &plain(&x, &convolution).unwrap(), 1e-5);
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
    fn a_weight_of_16_bits_gives_the_bits_of_the_same_weight_widened() {
        let x = random(&[1, 100, 20, 20], 1);
        for kind in [DType::BF16, DType::F16] {
            let weight = random(&[70, 100, 3, 3], 2).to_dtype(kind).unwrap();
            let narrow = Conv2d::new(weight.clone(), None, 1, 1).unwrap();
            let wide = Conv2d::new(weight.to_dtype(DType::F32).unwrap(), None, 1, 1).unwrap();
            assert_eq!((narrow.bytes(), wide.bytes()), (126_000, 252_000));
            equal(&conv2d(&x, &narrow).unwrap(), &conv2d(&x, &wide).unwrap());
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
