//! Convolutions over pictures.

use candle_core::{DType, Tensor, bail};

use crate::Result;
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
    let (_, channels, height, width) = x.dims4()?;
    let (_, inputs, kernel_height, kernel_width) = convolution.weight.dims4()?;
    let padding = 2 * convolution.padding;
    if channels != inputs || height + padding < kernel_height || width + padding < kernel_width {
        bail!(
            "a convolution by {:?} was given {:?}",
            convolution.weight.dims(),
            x.dims()
        );
    }
    plain(x, convolution)
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
