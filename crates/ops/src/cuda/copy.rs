//! Copies of views.

use candle_core::{Tensor, bail};

use super::channels_last;
use super::launch::{Kernel, Source};
use super::tensors::{Address, address, device_of, undefined};
use crate::Result;
use crate::gpu::{contiguous_strides, row_stride};

/// The dimensions that the kernel takes.
const RANK: usize = 6;
const THREADS: usize = 256;

/// As kernels have it.
#[repr(C)]
struct View {
    from: Address,
    to: Address,
    count: u64,
    sizes: [u32; RANK],
    strides: [u64; RANK],
    places: [u64; RANK],
}

/// The tensor itself where it is contiguous or an image with its channels last, else a copy.
///
/// # Errors
/// The device fails.
pub(crate) fn contiguous(tensor: &Tensor) -> Result<Tensor> {
    if tensor.is_contiguous() || channels_last::is_channels_last(tensor) {
        Ok(tensor.clone())
    } else {
        copied(tensor)
    }
}

/// A copy of the tensor, contiguous or with its channels last where it has them so.
///
/// # Errors
/// The device fails.
pub(crate) fn copied(tensor: &Tensor) -> Result<Tensor> {
    match channels_last::pixels(tensor) {
        Some(pixels) => channels_last::of_pixels(&in_memory_of_its_own(&pixels)?),
        None => in_memory_of_its_own(tensor),
    }
}

/// The tensor itself where it is contiguous, else a copy that is.
///
/// # Errors
/// The device fails.
pub(super) fn in_order(tensor: &Tensor) -> Result<Tensor> {
    if tensor.is_contiguous() {
        Ok(tensor.clone())
    } else {
        in_memory_of_its_own(tensor)
    }
}

/// The tensor with a contiguous last dimension and rows that follow each other: itself or a copy.
///
/// # Errors
/// The device fails.
pub(super) fn rows_in_order(tensor: &Tensor) -> Result<Tensor> {
    if row_stride(tensor).is_some() {
        Ok(tensor.clone())
    } else {
        in_order(tensor)
    }
}

fn in_memory_of_its_own(tensor: &Tensor) -> Result<Tensor> {
    if tensor.rank() > RANK {
        return tensor.force_contiguous();
    }
    let result = undefined(tensor.device(), tensor.dims(), tensor.dtype())?;
    copy(tensor, &result, 0, &contiguous_strides(tensor.dims()))?;
    Ok(result)
}

/// Writes `part` into `whole`, a contiguous tensor that nobody else reads, from `first` on in `dimension`. Their
/// shapes differ in that dimension alone.
///
/// # Errors
/// The part does not fit, or the device fails.
pub(crate) fn put(whole: &Tensor, part: &Tensor, dimension: usize, first: usize) -> Result<()> {
    let fits = |(index, (&size, &of_whole)): (usize, (&usize, &usize))| match index == dimension {
        true => first + size <= of_whole,
        false => size == of_whole,
    };
    let (dims, of_whole) = (part.dims(), whole.dims());
    if dims.len() != of_whole.len() || !dims.iter().zip(of_whole).enumerate().all(fits) {
        bail!("{dims:?} is put into {of_whole:?} at {first} of dimension {dimension}");
    }
    let strides = contiguous_strides(of_whole);
    copy(part, whole, first * strides[dimension], &strides)
}

/// Copies `tensor` to `target` from its value number `first` on, with these strides.
///
/// # Errors
/// The tensor has too many dimensions or another type, or the device fails.
pub(super) fn copy(tensor: &Tensor, target: &Tensor, first: usize, strides: &[usize]) -> Result<()> {
    if tensor.rank() > RANK || tensor.dtype() != target.dtype() {
        bail!("a copy of {:?} to {:?}", tensor, target.dtype());
    }
    let value = tensor.dtype().size_in_bytes();
    let to = address(target)? + (first * value) as u64;
    let from = address(tensor)?;
    // From the last dimension on, in bytes, without those of one value and with those that follow each other on both
    // sides taken as one.
    let mut dimensions: Vec<[usize; 3]> = Vec::new();
    for index in (0..tensor.rank()).rev() {
        let (size, stride, place) = (
            tensor.dims()[index],
            tensor.stride()[index] * value,
            strides[index] * value,
        );
        match dimensions.last_mut() {
            _ if size == 1 => {}
            Some(last) if stride == last[0] * last[1] && place == last[0] * last[2] => last[0] *= size,
            _ => dimensions.push([size, stride, place]),
        }
    }
    // Values that lie side by side on both sides are copied as large parts as alignment allows.
    let mut part = value;
    if let Some(&[size, stride, place]) = dimensions.first()
        && (stride, place) == (value, value)
    {
        let others = dimensions[1..]
            .iter()
            .flat_map(|&[_, stride, place]| [stride, place]);
        let divides = |part: usize| {
            let together = [size * value, from as usize % 16, to as usize % 16];
            together
                .into_iter()
                .chain(others.clone())
                .all(|bytes| bytes % part == 0)
        };
        part = [16, 8, 4, 2]
            .into_iter()
            .find(|&part| part > value && divides(part))
            .unwrap_or(value);
        dimensions[0] = [size * value / part, part, part];
    }
    let parts: usize = dimensions.iter().map(|[size, ..]| size).product();
    let mut view = View {
        from,
        to,
        count: if tensor.elem_count() == 0 { 0 } else { parts as u64 },
        sizes: [1; RANK],
        strides: [0; RANK],
        places: [0; RANK],
    };
    for (index, [size, stride, place]) in dimensions.into_iter().enumerate() {
        view.sizes[index] = super::launch::count(size)?;
        view.strides[index] = stride as u64;
        view.places[index] = place as u64;
    }
    let name = match part {
        1 => "copy_1",
        2 => "copy_2",
        4 => "copy_4",
        8 => "copy_8",
        _ => "copy_16",
    };
    let kernel = Kernel {
        source: Source::Copy,
        name,
        blocks: [(view.count as usize).div_ceil(THREADS), 1, 1],
        threads: [THREADS as u32, 1, 1],
        shared_bytes: 0,
    };
    // SAFETY: the parameters are those that the kernel declares; both tensors live.
    #[allow(unsafe_code)]
    unsafe {
        kernel.launch(&device_of(tensor)?, view)
    }
}
