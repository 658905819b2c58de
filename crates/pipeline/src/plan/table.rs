//! The plan as a table for people.

use std::fmt;
use std::time::Duration;

use sd_memory::{Bytes, Limit};

use super::{GroupReason, Groups, Plan, StagePlan};

/// The columns of the table, without the time.
const HEADING: [&str; 6] = ["stage", "resident", "streamed", "peak", "read/pass", "passes"];

/// The cells of a stage, the last one of which is empty if its time is not known.
fn cells(stage: &StagePlan) -> [String; 7] {
    let StagePlan {
        name,
        resident,
        streamed,
        predicted_peak,
        streaming_saves: _,
        read_each_pass,
        passes,
        loads: _,
        arithmetic: _,
        duration,
    } = stage;
    [
        name.clone(),
        resident.to_string(),
        streamed.to_string(),
        predicted_peak.to_string(),
        read_each_pass.to_string(),
        passes.to_string(),
        duration.map(rounded).unwrap_or_default(),
    ]
}

impl fmt::Display for Plan {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let time = if self.duration.is_some() { "time" } else { "" };
        let heading = HEADING.into_iter().chain([time]).map(str::to_owned);
        let rows = self.stages.iter().map(|stage| cells(stage).to_vec());
        let rows: Vec<Vec<String>> = std::iter::once(heading.collect()).chain(rows).collect();
        // As narrow as the cells allow, so that a plan with a refiner fits into 80 columns.
        let width = |column: usize| rows.iter().map(|row| row[column].len()).max().unwrap_or_default();
        let widths: Vec<usize> = (0..=HEADING.len()).map(width).collect();
        for row in &rows {
            let mut line = format!("{:<1$}", row[0], widths[0]);
            for (cell, width) in row.iter().zip(&widths).skip(1) {
                line.push_str(&format!("  {cell:>width$}"));
            }
            writeln!(formatter, "{}", line.trim_end())?;
        }
        writeln!(formatter)?;
        writeln!(
            formatter,
            "budget {}, predicted peak {}, smallest possible {}",
            self.budget, self.predicted_peak, self.smallest_budget
        )?;
        if self.budget_from != Limit::Requested {
            writeln!(formatter, "the budget comes from {}", self.budget_from)?;
        }
        let total: u64 = self.stages.iter().map(|stage| stage.read().0).sum();
        write!(
            formatter,
            "{} of {} blocks stay, {} read in all",
            self.resident_blocks,
            self.blocks,
            Bytes(total)
        )?;
        if self.images_per_pass > 1 {
            write!(formatter, ", {} images share a pass", self.images_per_pass)?;
        }
        if self.groups.images > 1 {
            write!(formatter, "\n{}", self.groups)?;
        }
        if let Some(duration) = self.duration {
            write!(
                formatter,
                "\nabout {} (estimated from this machine's rate), and the time to read files",
                rounded(duration)
            )?;
        }
        Ok(())
    }
}

/// A predicted time, in the precision that a prediction has.
fn rounded(duration: Duration) -> String {
    let seconds = duration.as_secs_f64();
    let (minutes, hours) = (seconds / 60.0, seconds / 3600.0);
    if seconds < 9.95 {
        format!("{seconds:.1} s")
    } else if seconds < 89.5 {
        format!("{seconds:.0} s")
    } else if minutes < 89.5 {
        format!("{minutes:.0} min")
    } else if hours < 9.95 {
        format!("{hours:.1} h")
    } else {
        format!("{hours:.0} h")
    }
}

/// One line that says when images are finished.
impl fmt::Display for Groups {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let images = self.images;
        let groups = match (self.groups, self.images_a_group) {
            (1, _) => format!("{images} images in one group"),
            (_, 1) => format!("{images} images one by one"),
            (groups, of) => format!("{images} images in {groups} groups of {of}"),
        };
        let reason = match self.reason {
            GroupReason::OneByOne => "",
            GroupReason::SharedPasses => " that share passes over streamed weights",
            GroupReason::Reloading => {
                ", since to read the networks again for fewer would take longer than to wait"
            }
        };
        write!(
            formatter,
            "{groups}{reason}: the first is saved after {} of {} steps",
            self.first_image_after_steps,
            self.steps()
        )
    }
}

#[cfg(test)]
mod tests {
    use sd_ops::Rates;

    use super::super::{Arithmetic, DENOISE};
    use super::*;

    fn plan(budget_from: Limit) -> Plan {
        Plan {
            budget: Bytes(2 << 30),
            budget_from,
            predicted_peak: Bytes(1 << 30),
            smallest_budget: Bytes(1 << 29),
            resident_budget: Bytes(1 << 31),
            blocks: 10,
            resident_blocks: 5,
            controls_stay: true,
            images_per_pass: 1,
            groups: Groups::new(1, 1, false, 20, 0, true),
            condition_bytes: Bytes(0),
            release_page_cache: false,
            duration: None,
            stages: vec![StagePlan {
                name: DENOISE.to_owned(),
                resident: Bytes(1 << 29),
                streamed: Bytes(0),
                predicted_peak: Bytes(1 << 30),
                streaming_saves: Bytes(0),
                read_each_pass: Bytes(0),
                passes: 20,
                loads: 1,
                arithmetic: Arithmetic {
                    multiply_adds: 240_000_000_000,
                    moved: Bytes(1000),
                },
                duration: None,
            }],
            kept_encoders: Vec::new(),
        }
    }

    #[test]
    fn a_budget_says_what_it_comes_from() {
        assert!(!plan(Limit::Requested).to_string().contains("comes from"));
        let limit = Bytes(1 << 31);
        let group = Limit::ControlGroup {
            path: "/sys/fs/cgroup/job".into(),
            limit,
        };
        let found = plan(group).to_string();
        assert!(
            found.contains("the budget comes from the control group /sys/fs/cgroup/job of 2.0GB\n"),
            "{found}"
        );
    }

    #[test]
    fn a_plan_says_how_long_it_takes_where_rates_are_known() {
        let plan = plan(Limit::Requested);
        assert!(!plan.to_string().contains("about"));
        let rates = Rates {
            multiply_adds: 1e9,
            bytes: 1e9,
        };
        let timed = plan.timed(&rates);
        let table = timed.to_string();
        let denoise = table.lines().nth(1).unwrap();
        assert!(denoise.ends_with("20  4 min"), "{table}");
        assert!(
            table.ends_with("\nabout 4 min (estimated from this machine's rate), and the time to read files")
        );
        let json = serde_json::json!(timed);
        assert_eq!(json["seconds"], 240.0);
        assert_eq!(json["stages"][0]["seconds"], 240.0);
        assert_eq!(json["stages"][0]["multiply_adds"], 240_000_000_000_u64);
    }

    #[test]
    fn predicted_times_are_rounded() {
        let of = |seconds| rounded(Duration::from_secs_f64(seconds));
        let found = [0.0, 0.34, 9.94, 9.96, 89.0, 90.0, 5000.0, 5400.0, 36_000.0].map(of);
        let wanted = [
            "0.0 s", "0.3 s", "9.9 s", "10 s", "89 s", "2 min", "83 min", "1.5 h", "10 h",
        ];
        assert_eq!(found, wanted);
        assert!(!rounded(Duration::MAX).is_empty());
    }
}
