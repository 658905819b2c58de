//! The seeds that a user asks for: one, a random one, or a list.

use sd_pipeline::seed::Seeds;

use crate::error::{Error, Result};

/// The seed, if the user does not say.
const DEFAULT: u64 = 42;

/// The seeds that a user asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SeedChoice {
    /// A seed that nobody knows before.
    Random,
    /// The seed of the first image; each other one has the seed after that of the image before.
    First(u64),
    /// One image for each of these.
    Each(Vec<u64>),
}

/// The number of images and their seeds, for the settings `seed` and `n`.
///
/// # Errors
/// `n` contradicts a list of seeds.
pub(crate) fn seeds(seed: Option<SeedChoice>, n: Option<u64>) -> Result<(usize, Seeds)> {
    let images = n.unwrap_or(1) as usize;
    match seed {
        None => Ok((images, Seeds::From(DEFAULT))),
        Some(SeedChoice::First(first)) => Ok((images, Seeds::From(first))),
        Some(SeedChoice::Random) => Ok((images, Seeds::From(random()))),
        Some(SeedChoice::Each(seeds)) => match n {
            Some(images) if images != seeds.len() as u64 => Err(Error::SeedsAndImages {
                seeds: seeds.len(),
                images,
            }),
            _ => Ok((seeds.len(), Seeds::Each(seeds))),
        },
    }
}

/// A random seed. It has 32 bits, so that every other program takes it too.
fn random() -> u64 {
    // Without the system's random numbers the time tells runs apart.
    let random = getrandom::u32().ok();
    let clock = || {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        now.map_or(0, |time| time.subsec_nanos())
    };
    u64::from(random.unwrap_or_else(clock))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_sets_the_number_of_images() {
        let list = || Some(SeedChoice::Each(vec![3, 1]));
        assert_eq!(seeds(list(), None).unwrap(), (2, Seeds::Each(vec![3, 1])));
        assert_eq!(seeds(list(), Some(2)).unwrap().0, 2);
        assert!(seeds(list(), Some(1)).is_err());
        assert_eq!(seeds(None, Some(3)).unwrap(), (3, Seeds::From(42)));
        let (_, one) = seeds(Some(SeedChoice::Random), None).unwrap();
        let (_, other) = seeds(Some(SeedChoice::Random), None).unwrap();
        let (_, third) = seeds(Some(SeedChoice::Random), None).unwrap();
        assert!(one != other || one != third);
    }
}
