//! A plan as people read it.

use std::fmt;

use sd_memory::Bytes;

use super::{Plan, StagePlan};

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
        let total: u64 = self.stages.iter().map(|stage| stage.read().0).sum();
        write!(
            formatter,
            "{} of {} blocks stay, {} read in all",
            self.resident_blocks,
            self.blocks,
            Bytes(total)
        )?;
        if self.pictures_a_pass > 1 {
            write!(formatter, ", {} pictures share a pass", self.pictures_a_pass)?;
        }
        Ok(())
    }
}
