//! Which blocks of a network stay in memory.

/// Which blocks of a network stay in memory after their turn. Residency never changes a result.
#[doc(alias = "offload")]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Residency {
    /// Every block is read at its first turn and stays in memory.
    Resident,
    /// Every block is read ahead of each of its turns and dropped after it.
    Streamed,
    /// This many blocks, spread evenly over the list, are resident. The others are streamed.
    Partly(usize),
}

impl Residency {
    /// The number of streamed blocks in memory at a time: one in use and one being read.
    pub const WINDOW: usize = 2;

    /// Whether block `index` of a list of `length` blocks is resident.
    pub fn keeps(self, index: usize, length: usize) -> bool {
        match self {
            Self::Resident => true,
            Self::Streamed => false,
            Self::Partly(kept) => (index + 1) * kept / length.max(1) > index * kept / length.max(1),
        }
    }

    /// The number of resident blocks in a list of `length` blocks.
    pub fn kept_of(self, length: usize) -> usize {
        match self {
            Self::Resident => length,
            Self::Streamed => 0,
            Self::Partly(kept) => kept.min(length),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kept_blocks_are_spread_evenly() {
        let kept = |residency: Residency, length: usize| -> Vec<usize> {
            (0..length)
                .filter(|&index| residency.keeps(index, length))
                .collect()
        };
        assert_eq!(kept(Residency::Resident, 4), [0, 1, 2, 3]);
        assert!(kept(Residency::Streamed, 4).is_empty());
        assert_eq!(kept(Residency::Partly(2), 6), [2, 5]);
        for length in [1, 5, 38] {
            for count in 0..=length {
                assert_eq!(kept(Residency::Partly(count), length).len(), count);
            }
        }
    }
}
