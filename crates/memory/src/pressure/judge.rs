//! From readings to a pressure level: thresholds and hysteresis.

use std::time::Duration;

use super::{MemoryDomain, Pressure};
use crate::Bytes;

const MB: u64 = 1 << 20;

/// Tasks that are stalled for more than this share of the time, in percent, are short of memory.
const STALLED: f64 = 10.0;
/// A level is left when this factor of its threshold is available,
const MARGIN: f64 = 1.25;
/// and has been for this long.
const HOLD: Duration = Duration::from_secs(3);

impl MemoryDomain {
    /// Memory is tight when less than this is available: 5% of the total, at least 512 MB, but at most 25%.
    pub fn tight_below(&self) -> Bytes {
        Bytes((self.total.0 / 20).max(512 * MB).min(self.total.0 / 4))
    }

    /// Memory is critical when less than this is available: 2% of the total, at least 192 MB, but at most
    /// 10%.
    pub fn critical_below(&self) -> Bytes {
        Bytes((self.total.0 / 50).max(192 * MB).min(self.total.0 / 10))
    }

    /// The bytes that must become available for memory to be calm again, with the margin of hysteresis. Where
    /// the kernel itself reports pressure, the threshold of tight memory at a time.
    pub fn shortfall(&self) -> Bytes {
        match self.said {
            Some(Pressure::Calm) => Bytes(0),
            Some(Pressure::Tight | Pressure::Critical) => self.tight_below(),
            None => scaled(self.tight_below(), MARGIN).saturating_sub(self.available),
        }
    }

    /// The pressure when every threshold is multiplied by `margin`.
    ///
    /// Stalls count only when less than twice the threshold of tight memory is available. Otherwise they have
    /// a cause that this process cannot help, such as the limit of a control group that it is not in.
    fn pressure(&self, margin: f64) -> Pressure {
        if let Some(said) = self.said {
            return said;
        }
        let tight = scaled(self.tight_below(), margin);
        let near = self.available < scaled(tight, 2.0);
        let stalled = STALLED / margin;
        if self.available < scaled(self.critical_below(), margin) || near && self.all_stalled > stalled {
            Pressure::Critical
        } else if self.available < tight || near && self.some_stalled > stalled {
            Pressure::Tight
        } else {
            Pressure::Calm
        }
    }
}

fn scaled(bytes: Bytes, factor: f64) -> Bytes {
    Bytes((bytes.0 as f64 * factor) as u64)
}

/// The highest pressure of `domains` when every threshold is multiplied by `margin`.
fn worst(domains: &[MemoryDomain], margin: f64) -> Pressure {
    domains
        .iter()
        .map(|domain| domain.pressure(margin))
        .max()
        .unwrap_or_default()
}

/// The pressure over time: it rises at once, and falls only after it has been clearly lower for a while.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Judgement {
    pressure: Pressure,
    /// Since when the pressure has been clearly lower.
    better_since: Option<Duration>,
}

impl Judgement {
    /// Updates the pressure with the figures of `domains` at `now`, counted from any start.
    pub(super) fn observe(&mut self, now: Duration, domains: &[MemoryDomain]) -> Pressure {
        let (entered, kept) = (worst(domains, 1.0), worst(domains, MARGIN));
        if entered >= self.pressure || kept >= self.pressure {
            self.pressure = self.pressure.max(entered);
            self.better_since = None;
        } else {
            let since = *self.better_since.get_or_insert(now);
            if now.saturating_sub(since) >= HOLD {
                self.pressure = kept;
                self.better_since = None;
            }
        }
        self.pressure
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GB: u64 = 1 << 30;

    fn domain(total: u64, available: u64) -> MemoryDomain {
        MemoryDomain {
            total: Bytes(total),
            available: Bytes(available),
            some_stalled: 0.0,
            all_stalled: 0.0,
            said: None,
        }
    }

    #[test]
    fn thresholds_fit_the_size() {
        let of = |total| {
            (
                domain(total, 0).tight_below().0,
                domain(total, 0).critical_below().0,
            )
        };
        assert_eq!(of(64 * GB), (64 * GB / 20, 64 * GB / 50));
        assert_eq!(of(8 * GB), (512 * MB, 192 * MB));
        assert_eq!(of(GB), (256 * MB, GB / 10));
        for (available, pressure) in [
            (4 * GB, Pressure::Calm),
            (512 * MB, Pressure::Calm),
            (512 * MB - 1, Pressure::Tight),
            (192 * MB, Pressure::Tight),
            (192 * MB - 1, Pressure::Critical),
            (0, Pressure::Critical),
        ] {
            assert_eq!(domain(8 * GB, available).pressure(1.0), pressure, "{available}");
        }
        assert_eq!(
            worst(&[domain(8 * GB, 4 * GB), domain(2 * GB, 300 * MB)], 1.0),
            Pressure::Tight
        );
        assert_eq!(worst(&[], 1.0), Pressure::Calm);
    }

    #[test]
    fn work_that_stands_still_counts_where_little_is_left() {
        let stalled = |available, some_stalled, all_stalled| MemoryDomain {
            some_stalled,
            all_stalled,
            ..domain(8 * GB, available)
        };
        assert_eq!(stalled(900 * MB, 30.0, 2.0).pressure(1.0), Pressure::Tight);
        assert_eq!(stalled(900 * MB, 30.0, 20.0).pressure(1.0), Pressure::Critical);
        assert_eq!(stalled(900 * MB, 9.0, 9.0).pressure(1.0), Pressure::Calm);
        assert_eq!(stalled(5 * GB, 90.0, 90.0).pressure(1.0), Pressure::Calm);
    }

    #[test]
    fn what_is_missing_is_what_makes_it_calm() {
        let short = domain(8 * GB, 100 * MB);
        let relieved = domain(8 * GB, short.available.0 + short.shortfall().0);
        assert!(short.shortfall() > Bytes(0));
        assert_eq!(relieved.pressure(MARGIN), Pressure::Calm);
        assert_eq!(domain(8 * GB, 4 * GB).shortfall(), Bytes(0));
    }

    #[test]
    fn what_the_kernel_says_decides() {
        let said = |said, available| MemoryDomain {
            said: Some(said),
            ..domain(8 * GB, available)
        };
        for available in [100 * MB, 4 * GB] {
            for (pressure, shortfall) in [
                (Pressure::Calm, 0),
                (Pressure::Tight, 512 * MB),
                (Pressure::Critical, 512 * MB),
            ] {
                let domain = said(pressure, available);
                assert_eq!(domain.pressure(1.0), pressure);
                assert_eq!(domain.pressure(MARGIN), pressure);
                assert_eq!(domain.shortfall(), Bytes(shortfall));
            }
        }
    }

    /// Observes `readings` (milliseconds, MB available of 8 GB) and gives the judgement after each.
    fn judged(readings: &[(u64, u64)]) -> Vec<Pressure> {
        let mut judgement = Judgement::default();
        readings
            .iter()
            .map(|&(milliseconds, available)| {
                judgement.observe(
                    Duration::from_millis(milliseconds),
                    &[domain(8 * GB, available * MB)],
                )
            })
            .collect()
    }

    #[test]
    fn it_gets_worse_at_once_and_better_after_a_while() {
        use Pressure::{Calm, Critical, Tight};
        let readings = [
            (0, 4000),
            (100, 400),
            (200, 100),
            (300, 400),
            (3200, 400),
            (3300, 400),
            (3400, 700),
            (6399, 700),
        ];
        let expected = [Calm, Tight, Critical, Critical, Critical, Tight, Tight, Tight];
        assert_eq!(judged(&readings), expected);
        assert_eq!(
            judged(&[&readings[..], &[(6400, 700)]].concat()).last(),
            Some(&Calm)
        );
    }

    #[test]
    fn it_does_not_flap() {
        // Available memory swings around the threshold of 512 MB: one change, not one a swing.
        let around: Vec<(u64, u64)> = (0..200)
            .map(|index| (100 * index, 512 + 60 * (index % 3) - 60))
            .collect();
        let judged_around = judged(&around);
        assert_eq!(
            judged_around.windows(2).filter(|pair| pair[0] != pair[1]).count(),
            0
        );
        assert_eq!(judged_around[0], Pressure::Tight);
        // And where a relapse comes within the time that it must hold, nothing is given back early.
        let relapses: Vec<(u64, u64)> = (0..100)
            .map(|index| (500 * index, if index % 5 == 0 { 300 } else { 2000 }))
            .collect();
        assert!(
            judged(&relapses)
                .iter()
                .all(|&pressure| pressure == Pressure::Tight)
        );
    }
}
