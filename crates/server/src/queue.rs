//! Which job is next: by priority, then in fair turns between users, with jobs of the loaded model put together.

use std::collections::BTreeMap;

use crate::job::JobId;

/// The most jobs of one model that go before older jobs of another.
const MOST_TOGETHER: usize = 16;
/// The longest that a job waits for others of another model that came after it, in milliseconds.
const LONGEST_WAIT: i64 = 60_000;

/// A job that waits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Waiting {
    pub(crate) id: JobId,
    pub(crate) user: String,
    pub(crate) priority: i32,
    pub(crate) model: String,
    /// Milliseconds since 1970.
    pub(crate) created: i64,
}

/// Whose turns there were.
#[derive(Debug, Default)]
pub(crate) struct Turns {
    /// The number of the last turn of each user.
    last: BTreeMap<String, u64>,
    turn: u64,
    /// The model of the last job, and how many there were of it in a row.
    model: Option<String>,
    in_a_row: usize,
}

impl Turns {
    /// The next of `waiting`, which are in the order in which they came. Of the jobs of the highest priority it is one of
    /// the loaded model, unless that has had many or a job of another has waited long; of these, the first of the user
    /// whose last turn is the longest ago.
    pub(crate) fn next<'a>(&self, waiting: &'a [Waiting], now: i64) -> Option<&'a Waiting> {
        let priority = waiting.iter().map(|job| job.priority).max()?;
        let urgent = || waiting.iter().filter(|job| job.priority == priority);
        let has_waited = |job: &Waiting| now - job.created > LONGEST_WAIT;
        let is_of_loaded = |job: &Waiting| self.model.as_deref() == Some(job.model.as_str());
        let together = self.in_a_row < MOST_TOGETHER
            && urgent().any(is_of_loaded)
            && !urgent().any(|job| !is_of_loaded(job) && has_waited(job));
        urgent()
            .filter(|job| !together || is_of_loaded(job))
            .min_by_key(|job| self.last.get(&job.user).copied().unwrap_or(0))
    }

    /// Counts the turn of `job`.
    pub(crate) fn taken(&mut self, job: &Waiting) {
        self.turn += 1;
        self.last.insert(job.user.clone(), self.turn);
        if self.model.as_deref() == Some(job.model.as_str()) {
            self.in_a_row += 1;
        } else {
            self.model = Some(job.model.clone());
            self.in_a_row = 1;
        }
    }

    /// Forgets which model is loaded.
    pub(crate) fn unloaded(&mut self) {
        self.model = None;
        self.in_a_row = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn waiting(jobs: &[(&str, i32, &str)]) -> Vec<Waiting> {
        let jobs = jobs.iter().map(|&(user, priority, model)| Waiting {
            id: JobId::random().unwrap(),
            user: user.to_owned(),
            priority,
            model: model.to_owned(),
            created: 0,
        });
        jobs.collect()
    }

    fn order(mut jobs: Vec<Waiting>, now: i64) -> Vec<String> {
        let mut turns = Turns::default();
        let mut order = Vec::new();
        while let Some(next) = turns.next(&jobs, now).cloned() {
            turns.taken(&next);
            order.push(format!("{} {}", next.user, next.model));
            jobs.retain(|job| job.id != next.id);
        }
        order
    }

    #[test]
    fn users_take_turns() {
        let jobs = waiting(&[
            ("a", 0, "x"),
            ("a", 0, "x"),
            ("a", 0, "x"),
            ("b", 0, "x"),
            ("c", 1, "x"),
        ]);
        assert_eq!(order(jobs, 0), ["c x", "a x", "b x", "a x", "a x"]);
    }

    #[test]
    fn jobs_of_a_model_are_put_together_for_a_while() {
        let jobs = waiting(&[("a", 0, "x"), ("a", 0, "y"), ("b", 0, "x"), ("a", 0, "x")]);
        assert_eq!(order(jobs.clone(), 0), ["a x", "b x", "a x", "a y"]);
        // None waits for long.
        assert_eq!(order(jobs, LONGEST_WAIT + 1), ["a x", "b x", "a y", "a x"]);
        let many: Vec<(&str, i32, &str)> = [("a", 0, "y")]
            .into_iter()
            .chain(std::iter::repeat_n(("b", 0, "x"), 40))
            .collect();
        let order = order(waiting(&many), 0);
        assert_eq!(order[0], "a y");
    }
}
