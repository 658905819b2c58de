//! Names that a user may have meant.

/// The longest name that is compared.
const LONGEST: usize = 128;
/// The most names that are compared.
const MOST: usize = 1 << 14;

/// The one of `known` that `typed` was probably meant to be: a letter or a few are wrong, left out, added or
/// exchanged. None if nothing is that near, or if several are.
pub fn similar<'a>(typed: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let plain = letters(typed);
    let most = match plain.len() {
        0..=2 => return None,
        3..=5 => 1,
        6..=9 => 2,
        10..=LONGEST => 3,
        _ => return None,
    };
    let mut nearest: Option<(usize, &str)> = None;
    let mut is_alone = true;
    for name in known.take(MOST) {
        let with = letters(name);
        if with.len().abs_diff(plain.len()) > most || with.len() > LONGEST {
            continue;
        }
        let distance = distance(&plain, &with);
        match nearest {
            _ if distance > most => {}
            Some((least, _)) if distance > least => {}
            Some((least, other)) if distance == least => is_alone &= letters(other) == with,
            _ => {
                nearest = Some((distance, name));
                is_alone = true;
            }
        }
    }
    nearest.filter(|_| is_alone).map(|(_, name)| name)
}

/// The letters of `name` without case and separators.
fn letters(name: &str) -> Vec<char> {
    let letters = name.chars().flat_map(char::to_lowercase);
    letters
        .filter(|letter| !matches!(letter, ' ' | '_' | '-' | '.' | '/'))
        .take(LONGEST + 1)
        .collect()
}

/// The least number of letters to change, insert, delete or exchange with their neighbour (optimal string alignment).
fn distance(one: &[char], other: &[char]) -> usize {
    let width = other.len() + 1;
    let mut before = vec![0; width];
    let mut last: Vec<usize> = (0..width).collect();
    for (row, letter) in one.iter().enumerate() {
        let mut next = vec![row + 1; width];
        for (column, with) in other.iter().enumerate() {
            let changed = last[column] + usize::from(letter != with);
            let mut least = changed.min(last[column + 1] + 1).min(next[column] + 1);
            if row > 0 && column > 0 && one[row - 1] == *with && other[column - 1] == *letter {
                least = least.min(before[column - 1] + 1);
            }
            next[column + 1] = least;
        }
        before = std::mem::replace(&mut last, next);
    }
    last[width - 1]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_probably_meant_is_named() {
        let options = ["strength", "seed", "steps", "size", "sampler", "scheduler", "rng"];
        let near = |typed: &str| similar(typed, options.into_iter());
        for (typed, meant) in [
            ("sampelr", Some("sampler")),
            ("shceduler", Some("scheduler")),
            ("stpes", Some("steps")),
            ("Steps", Some("steps")),
            ("see", Some("seed")),
            ("strenght", Some("strength")),
            ("rgn", Some("rng")),
            // Nothing is near enough.
            ("xyz", None),
            ("string", None),
            ("lora", None),
            ("r", None),
            ("", None),
        ] {
            assert_eq!(near(typed), meant, "{typed}");
        }
        // Two are equally near.
        assert_eq!(similar("fasd", ["fast", "fass"].into_iter()), None);
        // One name in two spellings.
        assert_eq!(similar("clipp", ["clip_g", "clip-g"].into_iter()), Some("clip_g"));
        assert_eq!(similar(&"x".repeat(5000), ["x"].into_iter()), None);
    }

    #[test]
    fn neighbours_count_as_one_change() {
        let letters = |text: &str| text.chars().collect::<Vec<_>>();
        let distance = |one: &str, other: &str| distance(&letters(one), &letters(other));
        assert_eq!(distance("abcd", "abdc"), 1);
        assert_eq!(distance("abcd", ""), 4);
        assert_eq!(distance("", "ab"), 2);
        assert_eq!(distance("kitten", "sitting"), 3);
    }
}
