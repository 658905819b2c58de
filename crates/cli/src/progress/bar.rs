//! The bar of a status line.

/// Its cells.
const CELLS: u64 = 20;

/// A bar of which the part `done` of `all` is full.
pub(crate) fn bar(done: u64, all: u64) -> String {
    let part = u128::from(CELLS) * u128::from(done);
    let full = part
        .checked_div(u128::from(all))
        .unwrap_or(0)
        .min(u128::from(CELLS)) as usize;
    format!("{}{}", "━".repeat(full), "╌".repeat(CELLS as usize - full))
}
