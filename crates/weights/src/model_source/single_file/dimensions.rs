//! What the tensors of a file say about the dimensions of a network.

use crate::Checkpoint;

/// The size of a dimension of a tensor, 0 where there is no such tensor or dimension.
pub(super) fn size(tensors: &Checkpoint, name: &str, dimension: usize) -> usize {
    let header = tensors.header(name);
    header
        .and_then(|header| header.shape.get(dimension))
        .copied()
        .unwrap_or(0)
}

/// How many numbers from 0 on `{number}` can be in `pattern` for a tensor to be there.
pub(super) fn count(tensors: &Checkpoint, pattern: impl Fn(usize) -> String) -> usize {
    (0..MOST_NUMBERED)
        .find(|&number| tensors.header(&pattern(number)).is_none())
        .unwrap_or(MOST_NUMBERED)
}

/// The maximum number of blocks that are counted. No network has as many.
const MOST_NUMBERED: usize = 1000;
