//! The seeds of a run's images.

use serde::{Deserialize, Serialize};

/// The seed of each image of a run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Seeds {
    /// The first image has this seed, and each other one the seed after that of the image before.
    From(u64),
    /// The seeds one by one.
    Each(Vec<u64>),
}

impl Seeds {
    /// The seed of `image`, counted from 0. Each image can be generated again alone with its seed.
    pub fn of(&self, image: usize) -> u64 {
        match self {
            Self::From(first) => first.wrapping_add(image as u64),
            Self::Each(seeds) => match seeds.get(image) {
                Some(seed) => *seed,
                // Further images go on from the last seed.
                None => {
                    let last = seeds.last().copied().unwrap_or_default();
                    last.wrapping_add((image - seeds.len().saturating_sub(1)) as u64)
                }
            },
        }
    }

    /// The seed of the first image.
    pub fn first(&self) -> u64 {
        self.of(0)
    }
}

impl From<u64> for Seeds {
    fn from(first: u64) -> Self {
        Self::From(first)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_image_has_a_seed() {
        let seeds = |seeds: &Seeds| [0, 1, 2, 3].map(|image| seeds.of(image));
        assert_eq!(seeds(&Seeds::From(u64::MAX)), [u64::MAX, 0, 1, 2]);
        assert_eq!(seeds(&Seeds::Each(vec![7, 3])), [7, 3, 4, 5]);
        assert_eq!(seeds(&Seeds::Each(Vec::new())), [0, 1, 2, 3]);
        for seeds in [Seeds::From(42), Seeds::Each(vec![1, 2])] {
            let text = serde_json::to_string(&seeds).unwrap();
            assert_eq!(serde_json::from_str::<Seeds>(&text).unwrap(), seeds);
        }
    }
}
