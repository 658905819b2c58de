//! Products of tiles: what a matrix unit multiplies.
//!
//! A tile on the left has 16 rows of 16 pairs of bf16, one on the right 16 pairs for each of 16 columns, and their
//! product is added to 16 by 16 floats. The pairs are elements of dot products, as vectors have them
//! ([`elements`](crate::cpu::elements)): the right tile of a panel is 16 consecutive vectors of it.

use half::bf16;

use super::Simd;

/// Rows of a tile, elements of a row, and lanes of a vector beside it.
pub(crate) const SIDE: usize = 16;
/// Elements of a tile on the left, which are consecutive.
pub(crate) const TILE: usize = SIDE * SIDE;

/// The sums of up to two blocks of 16 rows by two blocks of 16 columns. Steps are elements, each as large as a float.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub(crate) struct TileProduct<'a> {
    /// The first tile on the left. The tiles of all taps follow each other, `depth` for each tap.
    pub(crate) left: *const f32,
    /// From there to the first tile of the second 16 rows.
    pub(crate) left_block: usize,
    /// The first tile on the right of each 16 columns.
    pub(crate) right: [*const f32; 2],
    /// From row to row on the right, where the rows of all tiles of a tap follow each other.
    pub(crate) right_step: usize,
    /// Where the tiles of each tap begin on the right, relative to the first.
    pub(crate) taps: &'a [usize],
    /// Tiles of a tap.
    pub(crate) depth: usize,
    /// The first sum.
    pub(crate) sums: *mut f32,
    /// From row to row of the sums. Blocks of columns follow each other.
    pub(crate) sums_step: usize,
    /// Whether to add to what the sums hold.
    pub(crate) add: bool,
}

/// A single tap.
pub(crate) const ONE_TAP: &[usize] = &[0];

/// The tiles of the current thread, configured as long as this lives. A task makes one and drops it at its end.
pub(crate) struct TileUnit<S: Simd>(S);

impl<S: Simd> TileUnit<S> {
    #[inline(always)]
    pub(crate) fn new(simd: S) -> Self {
        simd.configure_tiles();
        Self(simd)
    }
}

impl<S: Simd> Drop for TileUnit<S> {
    #[inline(always)]
    fn drop(&mut self) {
        self.0.release_tiles();
    }
}

/// The product in plain Rust, in the order of "Intel 64 and IA-32 Architectures Software Developer's Manual",
/// `TDPBF16PS`: for each tile the even and the odd numbers are summed apart.
///
/// # Safety
/// The memory is as [`TileProduct`] states, and no other thread touches the sums.
pub(super) unsafe fn multiply_plainly<const ROWS: usize, const COLUMNS: usize>(product: &TileProduct<'_>) {
    let TileProduct {
        left,
        left_block,
        right,
        right_step,
        taps,
        depth,
        sums,
        sums_step,
        add,
    } = *product;
    let halves = |pair: f32| {
        let bits = pair.to_bits();
        [bits as u16, (bits >> 16) as u16].map(|half| bf16::from_bits(half).to_f32())
    };
    for row in 0..ROWS * SIDE {
        for column in 0..COLUMNS * SIDE {
            // SAFETY: guaranteed by the caller.
            unsafe {
                let to = sums.add(row * sums_step + column);
                let mut sum = if add { *to } else { 0.0 };
                for (tap, &offset) in taps.iter().enumerate() {
                    for tile in 0..depth {
                        let left = left
                            .add(row / SIDE * left_block + (tap * depth + tile) * TILE + row % SIDE * SIDE);
                        let right =
                            right[column / SIDE].add(offset + tile * SIDE * right_step + column % SIDE);
                        let mut parts = [0.0_f32; 2];
                        for element in 0..SIDE {
                            let a = halves(*left.add(element));
                            let b = halves(*right.add(element * right_step));
                            for half in 0..2 {
                                parts[half] = a[half].mul_add(b[half], parts[half]);
                            }
                        }
                        sum += parts[0] + parts[1];
                    }
                }
                *to = sum;
            }
        }
    }
}
