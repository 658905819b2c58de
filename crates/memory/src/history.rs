//! The events of a run in bounded memory: the first and the last ones of a long run.

use std::collections::VecDeque;

/// Number of first entries that are kept, and as many last ones.
const KEPT: usize = 256;
/// Number of first and last entries that are shown for one group of images.
const SHOWN: usize = 32;

/// Entries in order, each with its number.
#[derive(Debug)]
pub(crate) struct History<T> {
    /// The first ones.
    first: Vec<T>,
    /// The latest entries, after the first ones are full.
    last: VecDeque<T>,
    /// Number of all entries, including dropped ones.
    count: usize,
    /// The number of the first entry of the first group, and of the first entry of the current group.
    groups: Option<(usize, usize)>,
}

impl<T> Default for History<T> {
    fn default() -> Self {
        Self {
            first: Vec::new(),
            last: VecDeque::new(),
            count: 0,
            groups: None,
        }
    }
}

impl<T: Clone> History<T> {
    /// Adds an entry, and drops the oldest of the last ones if there are too many.
    pub(crate) fn push(&mut self, entry: T) {
        self.count += 1;
        if self.first.len() < KEPT {
            self.first.push(entry);
            return;
        }
        if self.last.len() == KEPT {
            self.last.pop_front();
        }
        self.last.push_back(entry);
    }

    /// The entry that was added last.
    pub(crate) fn last_mut(&mut self) -> Option<&mut T> {
        match self.last.back_mut() {
            None => self.first.last_mut(),
            last => last,
        }
    }

    /// Starts a new group of entries.
    pub(crate) fn begin_group(&mut self) {
        let first = self.groups.map_or(self.count, |(first, _)| first);
        self.groups = Some((first, self.count));
    }

    /// All entries that are kept, oldest first.
    pub(crate) fn all(&self) -> Vec<T> {
        self.first.iter().chain(&self.last).cloned().collect()
    }

    /// The entries before the first group and those of the current one, oldest first: the first and last ones
    /// of both.
    pub(crate) fn of_group(&self) -> Vec<T> {
        let (first, present) = self.groups.unwrap_or((self.count, self.count));
        let before_last = self.count - self.last.len();
        let numbered = (0..).zip(&self.first).chain((before_last..).zip(&self.last));
        let (mut opening, mut group) = (Vec::new(), Vec::new());
        for (number, entry) in numbered {
            if number < first {
                opening.push(entry);
            } else if number >= present {
                group.push(entry);
            }
        }
        [ends(&opening), ends(&group)].concat()
    }
}

/// The first and last of `entries`.
fn ends<T: Clone>(entries: &[&T]) -> Vec<T> {
    let begin = entries.len().min(SHOWN);
    let end = (entries.len() - begin).min(SHOWN);
    let shown = entries[..begin].iter().chain(&entries[entries.len() - end..]);
    shown.copied().cloned().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_has_the_opening_and_its_own() {
        let mut history = History::default();
        (0..2).for_each(|entry| history.push(entry));
        assert_eq!(history.of_group(), [0, 1]);
        history.begin_group();
        (2..4).for_each(|entry| history.push(entry));
        assert_eq!(history.of_group(), [0, 1, 2, 3]);
        history.begin_group();
        history.push(4);
        assert_eq!(history.of_group(), [0, 1, 4]);
        assert_eq!(history.all(), [0, 1, 2, 3, 4]);
        assert_eq!(history.last_mut(), Some(&mut 4));
    }

    #[test]
    fn a_long_run_takes_bounded_memory() {
        let mut history = History::default();
        history.push(0);
        for group in 0..10_000 {
            history.begin_group();
            for entry in 1..=3 {
                history.push(10 * group + entry);
            }
            assert_eq!(history.of_group()[..1], [0]);
            let of_group: Vec<i32> = (1..=3).map(|entry| 10 * group + entry).collect();
            assert_eq!(history.of_group()[1..], of_group);
            assert!(history.all().len() <= 2 * KEPT);
            assert!(history.all().is_sorted());
        }
        // One group with more entries than are shown.
        history.begin_group();
        (100_000..110_000).for_each(|entry| history.push(entry));
        let shown = history.of_group();
        assert!(
            shown.len() <= 1 + 2 * SHOWN && shown.ends_with(&[109_999]),
            "{shown:?}"
        );
        assert_eq!(history.last_mut(), Some(&mut 109_999));
    }
}
