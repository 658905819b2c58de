//! The retry of a stage that ran out of device memory, under a smaller plan.

use sd_memory::Bytes;

use crate::Result;
use crate::plan::Plan;

/// How often a stage is tried.
const TRIES: usize = 4;

/// Runs `stage` on `run`. If the device is out of memory, everything that the stage held is dropped and
/// `tighten` may make a smaller plan; if it does, the stage runs again.
///
/// # Errors
/// The last error of `stage`, or that of `tighten`.
pub(crate) fn until_it_fits<R, T>(
    run: &mut R,
    mut stage: impl FnMut(&mut R) -> Result<T>,
    mut tighten: impl FnMut(&mut R) -> Result<bool>,
) -> Result<T> {
    let mut tries = 1;
    loop {
        match stage(run) {
            Err(error) if tries < TRIES && error.is_out_of_device_memory() => {
                if !tighten(run)? {
                    return Err(error);
                }
                tries += 1;
            }
            outcome => return outcome,
        }
    }
}

/// The budget of the next plan after `plan` did not fit: three quarters of its peak, or the `available`
/// memory of the device if that is less; None if the plan cannot be made smaller.
pub(crate) fn budget(plan: &Plan, available: Option<Bytes>) -> Option<Bytes> {
    let three_quarters = Bytes(plan.predicted_peak.0 / 4 * 3);
    let wanted = available.map_or(three_quarters, |available| available.min(three_quarters));
    let wanted = wanted.max(plan.smallest_budget);
    (wanted < plan.predicted_peak).then_some(wanted)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Error;
    use crate::plan::Groups;

    fn full() -> Error {
        Error::Tensor(candle_core::Error::msg("CUDA_ERROR_OUT_OF_MEMORY"))
    }

    /// A stage that needs `needs` bytes on a device that has `may_take`; the second result is what it may
    /// take at the end.
    fn run(needs: u64, mut may_take: u64, smallest: u64) -> (Result<u64>, u64) {
        let mut tried = 0;
        let outcome = until_it_fits(
            &mut may_take,
            |may_take| {
                tried += 1;
                if *may_take > needs {
                    Err(full())
                } else {
                    Ok(*may_take)
                }
            },
            |may_take| {
                let smaller = (*may_take / 2).max(smallest);
                let is_smaller = smaller < *may_take;
                *may_take = smaller;
                Ok(is_smaller)
            },
        );
        (outcome, tried)
    }

    #[test]
    fn a_stage_starts_again_until_it_fits() {
        assert!(matches!(run(100, 80, 10), (Ok(80), 1)));
        assert!(matches!(run(50, 80, 10), (Ok(40), 2)));
        assert!(matches!(run(20, 80, 10), (Ok(20), 3)));
        // But not forever, and not if nothing is left to free.
        assert!(matches!(run(5, 80, 1), (Err(Error::Tensor(_)), 4)));
        assert!(matches!(run(10, 80, 80), (Err(Error::Tensor(_)), 1)));
    }

    #[test]
    fn other_errors_are_not_tried_again() {
        let mut tried = 0;
        let outcome: Result<()> = until_it_fits(
            &mut tried,
            |tried| {
                *tried += 1;
                Err(Error::Interrupted)
            },
            |_| Ok(true),
        );
        assert!(matches!(outcome, Err(Error::Interrupted)));
        assert_eq!(tried, 1);
    }

    #[test]
    fn each_budget_is_smaller_until_the_smallest() {
        let plan = |predicted: u64| Plan {
            budget: Bytes(1000),
            budget_from: sd_memory::Limit::Requested,
            predicted_peak: Bytes(predicted),
            smallest_budget: Bytes(100),
            resident_budget: Bytes(900),
            blocks: 10,
            resident_blocks: 10,
            controls_stay: true,
            images_per_pass: 1,
            groups: Groups::new(1, 1, false, 20, 0, true),
            condition_bytes: Bytes(0),
            release_page_cache: false,
            duration: None,
            stages: Vec::new(),
            kept_encoders: Vec::new(),
        };
        assert_eq!(budget(&plan(800), None), Some(Bytes(600)));
        assert_eq!(budget(&plan(800), Some(Bytes(5000))), Some(Bytes(600)));
        assert_eq!(budget(&plan(800), Some(Bytes(300))), Some(Bytes(300)));
        assert_eq!(budget(&plan(800), Some(Bytes(3))), Some(Bytes(100)));
        assert_eq!(budget(&plan(120), None), Some(Bytes(100)));
        assert_eq!(budget(&plan(100), None), None);
    }
}
