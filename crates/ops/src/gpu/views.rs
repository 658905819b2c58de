//! How the values of tensors lie in memory.

use candle_core::Tensor;

/// The values between neighbours in each dimension of a contiguous tensor.
pub(crate) fn contiguous_strides(dims: &[usize]) -> Vec<usize> {
    let mut strides = vec![1; dims.len()];
    for index in (1..dims.len()).rev() {
        strides[index - 1] = strides[index] * dims[index];
    }
    strides
}

/// How many values lie between the beginnings of rows, if all follow each other at that distance.
pub(crate) fn row_stride(tensor: &Tensor) -> Option<usize> {
    let (dims, strides) = (tensor.dims(), tensor.stride());
    let (&width, leading) = dims.split_last()?;
    if width > 1 && strides[leading.len()] != 1 {
        return None;
    }
    let mut distance = None;
    let mut rows = 1;
    for (&size, &stride) in leading.iter().zip(strides).rev() {
        if size == 1 {
            continue;
        }
        match distance {
            None => distance = Some(stride),
            Some(distance) if stride == distance * rows => {}
            Some(_) => return None,
        }
        rows *= size;
    }
    Some(distance.unwrap_or(width))
}
