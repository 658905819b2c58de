//! Packs weights for the microkernels: the values of neighbouring rows side by side, so that a vector holds
//! one value, or one pair of values, of each row.

use std::mem::MaybeUninit;

use half::{bf16, f16};

use super::super::kernel::Values;
use super::super::simd::{MOST_LANES, Simd};

/// The conversion of the 32-bit elements of a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    /// None.
    Whole,
    /// Pairs of bf16, each of which becomes two floats.
    Bf16,
    /// Pairs of f16, each of which becomes two floats.
    F16,
}

/// Some values of some rows of a weight.
#[derive(Debug, Clone, Copy)]
pub(in crate::cpu) struct Stretch<'a> {
    bytes: &'a [u8],
    form: Form,
    /// Bytes from row to row.
    step: usize,
    rows: usize,
    /// Bytes of each row that are packed.
    width: usize,
}

/// Blocks that are prefetched.
const AHEAD: usize = 4;

/// Memory of a block of 32-bit elements, for the widest vectors.
#[repr(align(64))]
struct Block(MaybeUninit<[f32; MOST_LANES * MOST_LANES]>);

impl Block {
    fn new() -> Self {
        Self(MaybeUninit::uninit())
    }

    fn floats(&mut self) -> *mut f32 {
        self.0.as_mut_ptr().cast()
    }
}

impl<'a> Stretch<'a> {
    /// `count` values from `first` on of `rows` rows from `row` on, of a weight with `inputs` values per row.
    /// If `pairs` is set, pairs of bf16 stay pairs.
    pub(in crate::cpu) fn new(
        weight: Values<'a>,
        inputs: usize,
        (row, rows): (usize, usize),
        (first, count): (usize, usize),
        pairs: bool,
    ) -> Self {
        let (bytes, form, size) = match weight {
            Values::F32(values) => (bytes_of(values), Form::Whole, size_of::<f32>()),
            Values::Bf16(values) if pairs => (bytes_of(values), Form::Whole, size_of::<bf16>()),
            Values::Bf16(values) => (bytes_of(values), Form::Bf16, size_of::<bf16>()),
            Values::F16(values) => (bytes_of(values), Form::F16, size_of::<f16>()),
        };
        let begin = (row * inputs + first) * size;
        let length = match rows {
            0 => 0,
            _ => ((rows - 1) * inputs + count) * size,
        };
        Self {
            bytes: &bytes[begin.min(bytes.len())..][..length],
            form,
            step: inputs * size,
            rows,
            width: count * size,
        }
    }

    /// The first `width` elements of each of `rows` rows, which are `step` elements apart.
    pub(super) fn of_elements(elements: &'a [f32], step: usize, rows: usize, width: usize) -> Self {
        let length = match rows {
            0 => 0,
            _ => (rows - 1) * step + width,
        };
        Self {
            bytes: bytes_of(&elements[..length]),
            form: Form::Whole,
            step: step * size_of::<f32>(),
            rows,
            width: width * size_of::<f32>(),
        }
    }

    /// Vectors that [`pack`] writes.
    pub(in crate::cpu) fn vectors<S: Simd>(&self) -> usize {
        let blocks = self.width.div_ceil(4 * S::LANES);
        let a_block = if self.form == Form::Whole { 1 } else { 2 };
        blocks * a_block * S::LANES
    }
}

fn bytes_of<T>(values: &[T]) -> &[u8] {
    // SAFETY: numbers have no bytes that are not set.
    unsafe { std::slice::from_raw_parts(values.as_ptr().cast(), size_of_val(values)) }
}

/// Packs a stretch of at most `LANES` rows into `to`: a vector for each value or pair of values, `step`
/// floats apart. Missing rows and values are 0.
#[inline(always)]
pub(in crate::cpu) fn pack<S: Simd>(simd: S, stretch: Stretch<'_>, to: &mut [f32], step: usize) {
    let vectors = stretch.vectors::<S>();
    assert!(
        stretch.rows <= S::LANES && (vectors == 0 || (vectors - 1) * step + S::LANES <= to.len()),
        "a weight does not fit where it is laid out. This is a bug."
    );
    let (block_bytes, to_step) = (4 * S::LANES, 4 * step);
    let (mut padded, mut pairs) = (Block::new(), Block::new());
    let (padded, pairs) = (padded.floats(), pairs.floats());
    let mut to = to.as_mut_ptr();
    for begin in (0..stretch.width).step_by(block_bytes) {
        let width = block_bytes.min(stretch.width - begin);
        // SAFETY: the stretch's rows lie inside of its bytes, `to` has space for all vectors, which was
        // checked above, and blocks of our own for as many elements as are written to them.
        unsafe {
            let mut from = stretch.bytes.as_ptr().add(begin);
            let mut from_step = stretch.step;
            if width < block_bytes || stretch.rows < S::LANES {
                padded.write_bytes(0, S::LANES * S::LANES);
                for row in 0..stretch.rows {
                    from.add(row * from_step)
                        .copy_to_nonoverlapping(padded.cast::<u8>().add(row * block_bytes), width);
                }
                (from, from_step) = (padded.cast(), block_bytes);
            } else {
                // After the end of these rows come the next rows.
                let mut ahead = AHEAD * block_bytes;
                if begin + ahead >= stretch.width {
                    ahead = S::LANES * stretch.step + ahead - stretch.width;
                }
                for row in 0..S::LANES {
                    simd.prefetch(from.wrapping_add(row * from_step + ahead));
                }
            }
            if stretch.form == Form::Whole {
                simd.transpose(from, from_step, to.cast(), to_step);
                to = to.wrapping_add(S::LANES * step);
                continue;
            }
            simd.transpose(from, from_step, pairs.cast(), block_bytes);
            for index in 0..S::LANES {
                let pair = simd.load(pairs.add(index * S::LANES));
                let (even, odd) = match stretch.form {
                    Form::F16 => (simd.even_f16(pair), simd.odd_f16(pair)),
                    _ => (simd.even_bf16(pair), simd.odd_bf16(pair)),
                };
                simd.store(to, even);
                simd.store(to.wrapping_add(step), odd);
                to = to.wrapping_add(2 * step);
            }
        }
    }
}
