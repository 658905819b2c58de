//! [`MacMemory`]: the machine's memory as macOS counts it, and the allowance of a program.

use crate::{Allowance, Bytes, Limit, Pressure, machine_margin};

/// What macOS says about the machine's memory at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct MacMemory {
    /// All memory (`hw.memsize`).
    pub(crate) total: Bytes,
    /// Free pages (`vm.page_free_count`).
    pub(crate) free: Bytes,
    /// Pages that their programs gave up (`vm.page_purgeable_count`).
    pub(crate) purgeable: Bytes,
    /// Pages of files (`vm.page_pageable_external_count`): the page cache, and the code of running programs.
    pub(crate) file_backed: Bytes,
    /// Memory that is neither wired nor compressed, in percent of the total (`kern.memorystatus_level`).
    pub(crate) pageable_percent: Option<u8>,
    /// The kernel's memory pressure level (`kern.memorystatus_vm_pressure_level`), the colour of Activity
    /// Monitor's graph.
    pub(crate) pressure: Pressure,
}

impl MacMemory {
    /// The memory that no running program uses: free and purgeable pages, and half of the pages of files. The
    /// kernel keeps about half of the pages on its list of active ones, so the other half is taken for the
    /// code and the files of running programs.
    pub(crate) fn available(&self) -> Bytes {
        let unused = self.free.0.saturating_add(self.purgeable.0);
        Bytes(unused.saturating_add(self.file_backed.0 / 2)).min(self.total)
    }

    /// The memory that macOS makes by compressing idle programs, without pressure on those in use: a quarter
    /// of what is neither wired nor compressed yet, an eighth under pressure, nothing when it is critical.
    fn compressible(&self) -> Bytes {
        let share = match self.pressure {
            Pressure::Calm => 4,
            Pressure::Tight => 8,
            Pressure::Critical => return Bytes(0),
        };
        let percent = u64::from(self.pageable_percent.unwrap_or(0).min(100));
        Bytes(self.total.0 / 100 * percent / share)
    }

    /// What a process may use that has `own` bytes: what is available, less a margin for others, or if that is
    /// more, what macOS makes room for.
    pub(crate) fn allowance(&self, own: Bytes) -> Allowance {
        let bytes = Bytes(self.available().0.saturating_add(own.0));
        let available = Allowance {
            bytes,
            margin: machine_margin(bytes),
            limit: Limit::Available,
        };
        let compressible = Allowance {
            bytes: self.compressible(),
            margin: Bytes(0),
            limit: Limit::Compressible,
        };
        if compressible.budget() > available.budget() {
            compressible
        } else {
            available
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shared_gpu_limit;

    /// A Mac at one moment. Sizes are in gigabytes, as `vm_stat` shows them on machines of this size.
    struct Case {
        name: &'static str,
        total: f64,
        free: f64,
        purgeable: f64,
        file_backed: f64,
        pageable_percent: u8,
        pressure: Pressure,
        /// The GPU's recommended working set, and the limit on wired memory that the user set.
        working_set: f64,
        wired_limit: Option<f64>,
        /// The default budget on the CPU and on the GPU.
        budgets: (f64, f64),
        /// What the budget on the GPU comes from.
        from: Limit,
    }

    fn gigabytes(number: f64) -> Bytes {
        Bytes((number * f64::from(1 << 30)) as u64)
    }

    fn cases() -> Vec<Case> {
        let idle = |name, total: f64, free, file_backed, percent, budget| Case {
            name,
            total,
            free,
            purgeable: 0.2,
            file_backed,
            pageable_percent: percent,
            pressure: Pressure::Calm,
            working_set: total * if total > 36.0 { 0.75 } else { 2.0 / 3.0 },
            wired_limit: None,
            budgets: (budget, budget),
            from: Limit::Available,
        };
        let busy = |name, total, percent, file_backed, budget| Case {
            purgeable: 0.05,
            from: Limit::Compressible,
            ..idle(name, total, 0.1, file_backed, percent, budget)
        };
        let wired = Limit::WiredByGpu {
            limit: gigabytes(4.0),
        };
        vec![
            idle("8 GB, idle", 8.0, 1.2, 2.4, 68, 1.9),
            busy("8 GB, busy", 8.0, 45, 1.3, 0.9),
            Case {
                pressure: Pressure::Tight,
                ..busy("8 GB, under pressure", 8.0, 30, 1.3, 0.3)
            },
            Case {
                pressure: Pressure::Critical,
                from: Limit::Available,
                ..busy("8 GB, nothing left", 8.0, 12, 1.3, 0.1)
            },
            idle("16 GB, idle", 16.0, 6.0, 4.0, 78, 7.4),
            busy("16 GB, busy", 16.0, 50, 3.0, 2.0),
            Case {
                wired_limit: Some(4.0),
                budgets: (7.4, 4.0),
                from: wired,
                ..idle("16 GB, idle, little for the GPU", 16.0, 6.0, 4.0, 78, 7.4)
            },
            Case {
                budgets: (11.7, 10.7),
                from: Limit::WorkingSet {
                    limit: gigabytes(32.0 / 3.0),
                },
                ..idle("16 GB, just started", 16.0, 11.0, 3.4, 88, 0.0)
            },
            idle("24 GB, idle", 24.0, 12.0, 5.0, 82, 13.3),
            busy("24 GB, busy", 24.0, 55, 5.0, 3.3),
            idle("64 GB, idle", 64.0, 44.0, 10.0, 90, 44.3),
            busy("64 GB, busy", 64.0, 60, 12.0, 9.6),
            Case {
                budgets: (52.4, 48.0),
                from: Limit::WorkingSet {
                    limit: gigabytes(48.0),
                },
                ..idle("64 GB, just started", 64.0, 55.0, 6.0, 95, 0.0)
            },
            Case {
                // Above what the program may use, and so of no effect.
                wired_limit: Some(56.0),
                working_set: 56.0,
                ..idle("64 GB, more for the GPU", 64.0, 44.0, 10.0, 90, 44.3)
            },
        ]
    }

    impl Case {
        fn memory(&self) -> MacMemory {
            MacMemory {
                total: gigabytes(self.total),
                free: gigabytes(self.free),
                purgeable: gigabytes(self.purgeable),
                file_backed: gigabytes(self.file_backed),
                pageable_percent: Some(self.pageable_percent),
                pressure: self.pressure,
            }
        }
    }

    #[test]
    fn budgets_fit_the_mac() {
        for case in cases() {
            let of_cpu = case.memory().allowance(gigabytes(0.04));
            let (working_set, wired) = (gigabytes(case.working_set), case.wired_limit.map(gigabytes));
            let of_gpu = of_cpu.clone().within_gpu(shared_gpu_limit(working_set, wired));
            let budgets = (of_cpu.budget().gigabytes(), of_gpu.budget().gigabytes());
            let near = |one: f64, other: f64| (one - other).abs() < 0.06;
            assert!(
                near(budgets.0, case.budgets.0) && near(budgets.1, case.budgets.1),
                "{}: {budgets:?}",
                case.name
            );
            assert_eq!(of_gpu.limit, case.from, "{}", case.name);
        }
    }

    #[test]
    fn pages_in_use_are_not_available() {
        for case in cases() {
            let memory = case.memory();
            let unused = case.free + case.purgeable + case.file_backed / 2.0;
            assert!(
                (memory.available().gigabytes() - unused).abs() < 0.01,
                "{}",
                case.name
            );
            // Nor are more than a quarter of all pages that could be taken.
            let pageable = case.total * f64::from(case.pageable_percent) / 100.0;
            let budget = memory.allowance(Bytes(0)).budget().gigabytes();
            assert!(
                budget <= unused.max(pageable / 4.0 + 0.01),
                "{}: {budget}",
                case.name
            );
        }
    }

    #[test]
    fn memory_that_the_process_has_is_its_own() {
        let idle = cases()[4].memory();
        let without = idle.allowance(Bytes(0)).bytes.0;
        assert_eq!(idle.allowance(Bytes(5 << 30)).bytes.0, without + (5 << 30));
    }

    #[test]
    fn odd_figures_do_no_harm() {
        let odd = MacMemory {
            total: Bytes(1 << 30),
            free: Bytes(u64::MAX),
            purgeable: Bytes(u64::MAX),
            file_backed: Bytes(u64::MAX),
            pageable_percent: Some(255),
            pressure: Pressure::Calm,
        };
        assert_eq!(odd.available(), Bytes(1 << 30));
        assert!(odd.allowance(Bytes(u64::MAX)).bytes >= Bytes(1 << 30));
        let unknown = MacMemory {
            total: Bytes(0),
            free: Bytes(0),
            purgeable: Bytes(0),
            file_backed: Bytes(0),
            pageable_percent: None,
            ..odd
        };
        assert_eq!(unknown.allowance(Bytes(0)).budget(), Bytes(0));
    }
}
