//! Which rows of a tensor the rows of a layer are.

/// Rows of a layer, and the rows of the tensor that they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RowMove {
    /// The first row of the layer.
    pub(crate) from: usize,
    /// The first row of the tensor.
    pub(crate) to: usize,
    pub(crate) rows: usize,
}

/// Rows of a layer within a range of rows of the tensor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Overlap {
    /// The first row of the layer.
    pub(super) layer: usize,
    /// The first row, counted from the start of the range.
    pub(super) at: usize,
    pub(super) rows: usize,
}

/// The rows of the layer that `moves` puts into the `rows` rows of the tensor from `first` on.
pub(super) fn overlaps(moves: &[RowMove], first: usize, rows: usize) -> impl Iterator<Item = Overlap> {
    moves.iter().filter_map(move |moved| {
        let (start, end) = (moved.to.max(first), (moved.to + moved.rows).min(first + rows));
        (start < end).then(|| Overlap {
            layer: moved.from + start - moved.to,
            at: start - first,
            rows: end - start,
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_those_of_the_moves_within_the_range() {
        // Halves that change places.
        let moves = [
            RowMove {
                from: 0,
                to: 4,
                rows: 4,
            },
            RowMove {
                from: 4,
                to: 0,
                rows: 4,
            },
        ];
        let found: Vec<Overlap> = overlaps(&moves, 3, 3).collect();
        assert_eq!(
            found,
            [
                Overlap {
                    layer: 0,
                    at: 1,
                    rows: 2
                },
                Overlap {
                    layer: 7,
                    at: 0,
                    rows: 1
                },
            ]
        );
        assert_eq!(overlaps(&moves, 8, 2).count(), 0);
    }
}
