//! The layout of mark labels, which never overlap.

/// The height of a row of labels.
pub(super) const ROW: f64 = 17.0;
/// Labels that need more rows are omitted.
const MOST_ROWS: usize = 9;
/// The approximate width of a character.
const CHARACTER: f64 = 6.3;
/// The gap between a label and its neighbours.
const GAP: f64 = 14.0;

/// Gives every label a row, or none if it does not fit. `labels` are x positions from left to right, with
/// texts. A label starts at its position, and the line from its mark down to it crosses no other label.
pub(super) fn rows(labels: &[(f64, &str)]) -> Vec<Option<usize>> {
    // The left end of what each row holds, filled from the right: labels further left go to lower rows, so
    // that their lines pass.
    let mut taken_from: Vec<f64> = Vec::new();
    let mut rows = vec![None; labels.len()];
    for (index, &(x, text)) in labels.iter().enumerate().rev() {
        let end = x + width(text) + GAP;
        let row = taken_from
            .iter()
            .position(|&from| end <= from)
            .unwrap_or(taken_from.len());
        if row < MOST_ROWS {
            taken_from.resize(taken_from.len().max(row + 1), x);
            // The line passes the rows above.
            for from in &mut taken_from[..=row] {
                *from = from.min(x);
            }
            rows[index] = Some(row);
        }
    }
    rows
}

/// The approximate width of a text.
pub(super) fn width(text: &str) -> f64 {
    CHARACTER * text.chars().count() as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_that_fit_stay_in_the_first_row() {
        assert_eq!(
            rows(&[(0.0, "one"), (200.0, "two"), (400.0, "three")]),
            [Some(0); 3]
        );
        assert_eq!(rows(&[]), []);
    }

    #[test]
    fn crowded_labels_go_down_from_right_to_left() {
        assert_eq!(
            rows(&[(0.0, "Startup"), (3.0, "Before"), (6.0, "After")]),
            [Some(2), Some(1), Some(0)]
        );
        let many = vec![(5.0, "all at one position"); 30];
        let placed = rows(&many);
        assert_eq!(placed.iter().flatten().count(), MOST_ROWS);
        assert_eq!(placed[29], Some(0));
    }

    proptest::proptest! {
        #[test]
        fn nothing_is_covered(mut labels in proptest::collection::vec((0.0..900.0_f64, 1..30_usize), 0..40)) {
            labels.sort_by(|a, b| a.0.total_cmp(&b.0));
            let texts: Vec<(f64, String)> = labels.into_iter().map(|(x, length)| (x, "n".repeat(length))).collect();
            let labels: Vec<(f64, &str)> = texts.iter().map(|(x, text)| (*x, text.as_str())).collect();
            let rows = rows(&labels);
            let placed: Vec<(f64, f64, usize)> = labels
                .iter()
                .zip(&rows)
                .filter_map(|(&(x, text), row)| Some((x, x + width(text), (*row)?)))
                .collect();
            for (index, &(start, end, row)) in placed.iter().enumerate() {
                for &(other_start, _, other_row) in &placed[index + 1..] {
                    // Labels of a row do not overlap, and no line crosses a label.
                    proptest::prop_assert!(row != other_row || end < other_start);
                    proptest::prop_assert!(other_row < row || end < other_start || start >= other_start);
                }
            }
        }
    }
}
