//! The plan as a table for people.

use std::fmt;

use sd_memory::{Bytes, Limit};

use super::{GroupReason, Groups, Plan, StagePlan};

impl fmt::Display for Plan {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            formatter,
            "{:<16} {:>10} {:>10} {:>14} {:>12} {:>7}",
            "stage", "resident", "streamed", "predicted peak", "read a pass", "passes"
        )?;
        for StagePlan {
            name,
            resident,
            streamed,
            predicted_peak,
            read_each_pass,
            passes,
            loads: _,
        } in &self.stages
        {
            writeln!(
                formatter,
                "{name:<16} {:>10} {:>10} {:>14} {:>12} {passes:>7}",
                resident.to_string(),
                streamed.to_string(),
                predicted_peak.to_string(),
                read_each_pass.to_string(),
            )?;
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
        Ok(())
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
    use super::*;

    fn plan(budget_from: Limit) -> String {
        let plan = Plan {
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
            stages: Vec::new(),
        };
        plan.to_string()
    }

    #[test]
    fn a_budget_says_what_it_comes_from() {
        assert!(!plan(Limit::Requested).contains("comes from"));
        let limit = Bytes(1 << 31);
        let group = Limit::ControlGroup {
            path: "/sys/fs/cgroup/job".into(),
            limit,
        };
        let found = plan(group);
        assert!(
            found.contains("the budget comes from the control group /sys/fs/cgroup/job of 2.0GB\n"),
            "{found}"
        );
    }
}
