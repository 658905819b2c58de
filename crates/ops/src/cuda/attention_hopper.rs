//! Attention on Hopper (compute capability 9.0): one kernel whose products are queued by groups of warps and whose tiles
//! the copy engine brings.

use candle_core::Tensor;

use super::launch::{Kernel, Limits, Source, count, suffix};
use super::stream::{Section, Stream};
use super::tensor_map::TensorMap;
use super::tensors::device_of;
use crate::Result;

/// How the kernel is compiled for heads of up to a size.
struct Form {
    size: usize,
    /// The groups of warps of a block that compute, with `QUERIES` queries each.
    groups: usize,
    /// The tiles of keys, and of values, that a block holds.
    stages: usize,
}

const FORMS: [Form; 4] = [
    Form::new(40, 3, 4),
    Form::new(64, 3, 4),
    Form::new(80, 2, 2),
    Form::new(128, 2, 2),
];
/// As the kernel has them: the keys of a tile, the queries of a group of warps, its threads, and the values and bytes of
/// a row of a tile in shared memory.
const KEYS: usize = 128;
const QUERIES: usize = 64;
const GROUP: usize = 128;
const ROW: usize = 64;
const ROW_BYTES: usize = 128;
/// Shared memory for barriers, and for the alignment of tiles.
const BARRIERS: usize = 256;
const ALIGNMENT: usize = 1024;

impl Form {
    const fn new(size: usize, groups: usize, stages: usize) -> Self {
        Self { size, groups, stages }
    }

    /// The queries of a block.
    fn queries(&self) -> usize {
        self.groups * QUERIES
    }

    /// Shared memory of a block.
    fn shared_bytes(&self) -> usize {
        let rows = self.queries() + 2 * self.stages * KEYS;
        rows * self.size.div_ceil(ROW) * ROW_BYTES + BARRIERS + ALIGNMENT
    }
}

/// As the kernel has it.
#[repr(C)]
struct Attention {
    queries: [TensorMap; 2],
    keys: [TensorMap; 2],
    values: [TensorMap; 2],
    results: [Section; 2],
    query_counts: [u32; 2],
    key_counts: [u32; 2],
    heads: u32,
    batches: u32,
    size: u32,
    scale: f32,
}

/// Whether the device has the kernel and it takes these streams, of one or two: every kind of tensor has values, and
/// those of different tokens are at different places.
pub(super) fn takes(streams: &[Stream<'_>]) -> Result<bool> {
    let Some(first) = streams.first() else {
        return Ok(false);
    };
    let any = |of: fn(&Stream<'_>) -> usize| streams.iter().any(|stream| of(stream) > 0);
    let apart = |tensor: &Tensor| {
        (0..3).all(|dimension| tensor.dims()[dimension] <= 1 || tensor.stride()[dimension] > 0)
    };
    let (batch, heads, _, size) = first.queries.dims4()?;
    let fits = batch * heads > 0
        && any(|stream| stream.queries.dims()[2])
        && any(|stream| stream.keys.dims()[2])
        && form(size).is_some()
        && streams.iter().all(|stream| {
            [stream.queries, stream.keys, stream.values]
                .into_iter()
                .all(apart)
        });
    Ok(fits && Limits::of(&device_of(first.queries)?)?.is_hopper)
}

fn form(size: usize) -> Option<Form> {
    FORMS.into_iter().find(|form| form.size >= size)
}

/// Runs the kernel for one stream or two that it [takes].
///
/// # Errors
/// The device fails.
pub(super) fn fused(streams: &[Stream<'_>], scale: f64) -> Result<()> {
    let Some(first) = streams.first() else {
        return Ok(());
    };
    let (batch, heads, _, size) = first.queries.dims4()?;
    let Some(form) = form(size) else {
        candle_core::bail!("attention with heads of {size}");
    };
    // A stream that is absent or empty is never read: the other one stands in its place.
    let maps = |rows: usize, of: fn(&Stream<'_>) -> Tensor| -> Result<[TensorMap; 2]> {
        let tensors: Vec<Tensor> = streams
            .iter()
            .map(of)
            .filter(|tensor| tensor.elem_count() > 0)
            .collect();
        let at = |index: usize| {
            let own = streams
                .get(index)
                .map(of)
                .filter(|tensor| tensor.elem_count() > 0);
            own.or_else(|| tensors.first().cloned())
        };
        let map = |index: usize| match at(index) {
            Some(tensor) => TensorMap::of(&tensor, ROW, rows),
            None => candle_core::bail!("attention without tokens"),
        };
        Ok([map(0)?, map(1)?])
    };
    let second = streams.get(1);
    let tokens = |of: fn(&Stream<'_>) -> usize| -> Result<[u32; 2]> {
        Ok([count(of(first))?, count(second.map_or(0, of))?])
    };
    let parameters = Attention {
        queries: maps(QUERIES, |stream| stream.queries.clone())?,
        keys: maps(KEYS, |stream| stream.keys.clone())?,
        values: maps(KEYS, |stream| stream.values.clone())?,
        results: [
            Section::of(first.result)?,
            Section::of(second.unwrap_or(first).result)?,
        ],
        query_counts: tokens(|stream| stream.queries.dims()[2])?,
        key_counts: tokens(|stream| stream.keys.dims()[2])?,
        heads: count(heads)?,
        batches: count(batch)?,
        size: count(size)?,
        scale: scale as f32 * std::f32::consts::LOG2_E,
    };
    let blocks: usize = streams
        .iter()
        .map(|stream| stream.queries.dims()[2].div_ceil(form.queries()))
        .sum();
    let device = device_of(first.queries)?;
    let kernel = Kernel {
        source: Source::AttentionHopper,
        name: &format!(
            "attention_hopper_{}_{}",
            form.size,
            suffix(first.queries.dtype())?
        ),
        // A block takes further work when it is done.
        blocks: [
            (blocks * heads * batch).min(Limits::of(&device)?.multiprocessors),
            1,
            1,
        ],
        threads: [count((form.groups + 1) * GROUP)?, 1, 1],
        shared_bytes: count(form.shared_bytes())?,
    };
    // SAFETY: the parameters are those that the kernel declares; the tensors live.
    #[allow(unsafe_code)]
    unsafe {
        kernel.launch(&device, parameters)
    }
}
