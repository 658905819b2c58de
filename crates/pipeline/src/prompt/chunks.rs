//! Splits the tokens of a prompt into chunks of a text encoder's context length.

/// A token with its weight.
pub(super) type Token = (u32, f32);

/// A part of a prompt for the chunking.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Run {
    /// Consecutive tokens.
    Tokens(Vec<Token>),
    /// Consecutive tokens that stay in one chunk if it can hold them: the vectors of an embedding.
    Together(Vec<Token>),
    /// The end of a chunk.
    Break,
}

/// A full chunk ends after its last comma if at most this many tokens follow it, so that phrases are not
/// split.
const BACKTRACK: usize = 20;

/// Fills chunks of `capacity` tokens with `runs`, as stable-diffusion-webui does. There is always at least one.
pub(super) fn group(runs: &[Run], capacity: usize, comma: Option<u32>) -> Vec<Vec<Token>> {
    let mut groups = Vec::new();
    let mut group: Vec<Token> = Vec::new();
    // The number of tokens in the chunk up to its last comma.
    let mut up_to_comma = None;
    for run in runs {
        let tokens = match run {
            Run::Tokens(tokens) => tokens,
            Run::Together(tokens) => {
                if group.len() + tokens.len() > capacity && tokens.len() <= capacity {
                    groups.push(std::mem::take(&mut group));
                    up_to_comma = None;
                }
                tokens
            }
            Run::Break => {
                groups.push(std::mem::take(&mut group));
                up_to_comma = None;
                continue;
            }
        };
        for &token in tokens {
            let is_comma = comma == Some(token.0);
            if group.len() == capacity {
                let kept = up_to_comma.filter(|kept| !is_comma && capacity - kept < BACKTRACK);
                let moved = group.split_off(kept.unwrap_or(capacity));
                groups.push(std::mem::replace(&mut group, moved));
                up_to_comma = None;
            }
            group.push(token);
            if is_comma {
                up_to_comma = Some(group.len());
            }
        }
    }
    if !group.is_empty() || groups.is_empty() {
        groups.push(group);
    }
    groups
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const COMMA: u32 = 0;

    fn lengths(runs: &[Run]) -> Vec<usize> {
        group(runs, 75, Some(COMMA)).iter().map(Vec::len).collect()
    }

    fn words(count: usize) -> Vec<Token> {
        vec![(7, 1.0); count]
    }

    /// A run of `before` words, a comma, and `after` words.
    fn with_comma(before: usize, after: usize) -> [Run; 1] {
        [Run::Tokens(
            [words(before), vec![(COMMA, 1.0)], words(after)].concat(),
        )]
    }

    #[test]
    fn groups_are_filled_up() {
        assert_eq!(lengths(&[]), [0]);
        assert_eq!(lengths(&[Run::Tokens(words(75))]), [75]);
        assert_eq!(lengths(&[Run::Tokens(words(76))]), [75, 1]);
        assert_eq!(lengths(&[Run::Tokens(words(200))]), [75, 75, 50]);
    }

    #[test]
    fn a_full_group_ends_at_a_near_comma() {
        // The comma is the 60th token; 15 words follow it in the group.
        assert_eq!(lengths(&with_comma(59, 20)), [60, 20]);
        assert_eq!(lengths(&with_comma(55, 30)), [56, 30]);
        // Twenty-one words after the comma are too many.
        assert_eq!(lengths(&with_comma(54, 30)), [75, 10]);
        assert_eq!(lengths(&with_comma(74, 30)), [75, 30]);
        // The comma is the first token of the next chunk.
        assert_eq!(lengths(&with_comma(75, 30)), [75, 31]);
        // Nothing is moved if nothing follows.
        assert_eq!(lengths(&with_comma(59, 15)), [75]);
    }

    #[test]
    fn a_break_ends_a_group() {
        let runs = |runs: &[usize]| -> Vec<Run> {
            let between = runs.iter().map(|&count| Run::Tokens(words(count)));
            between.flat_map(|run| [run, Run::Break]).collect()
        };
        assert_eq!(lengths(&runs(&[3, 4])), [3, 4]);
        assert_eq!(lengths(&runs(&[75, 4])), [75, 4]);
        assert_eq!(lengths(&runs(&[0, 4])), [0, 4]);
        assert_eq!(lengths(&[Run::Break, Run::Break]), [0, 0]);
    }

    #[test]
    fn an_embedding_stays_in_one_group() {
        let runs =
            |before: usize, together: usize| [Run::Tokens(words(before)), Run::Together(words(together))];
        assert_eq!(lengths(&runs(70, 5)), [75]);
        assert_eq!(lengths(&runs(70, 6)), [70, 6]);
        assert_eq!(lengths(&runs(0, 75)), [75]);
        assert_eq!(lengths(&runs(1, 75)), [1, 75]);
        // More than a group holds.
        assert_eq!(lengths(&runs(1, 80)), [75, 6]);
    }

    proptest! {
        #[test]
        fn no_token_is_lost(ids in proptest::collection::vec(0_u32..6, 0..300), capacity in 1_usize..80) {
            let tokens: Vec<Token> = ids.iter().map(|&id| (id, id as f32)).collect();
            let groups = group(&[Run::Tokens(tokens.clone())], capacity, Some(COMMA));
            prop_assert!(groups.iter().all(|group| group.len() <= capacity));
            prop_assert_eq!(groups.concat(), tokens);
        }
    }
}
