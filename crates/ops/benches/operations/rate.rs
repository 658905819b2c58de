//! Rates in criterion's output: operations or bytes per second, with their share of the machine's peak.

use std::time::Duration;

use criterion::measurement::{Measurement, ValueFormatter, WallTime};
use criterion::{Criterion, Throughput};

use crate::clock::Clock;

/// What is counted.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Unit {
    /// Operations on floating-point numbers.
    Gigaflops,
    /// Bytes that are read or written.
    Gigabytes,
}

/// A time, printed as a rate.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rate {
    unit: Unit,
    /// The most of a nanosecond that the machine can do.
    peak: f64,
}

impl Rate {
    /// What measures rates of `unit`, of which the machine does `peak` a second at most.
    pub(crate) fn criterion(unit: Unit, peak: f64) -> Criterion<Self> {
        Criterion::default()
            .configure_from_args()
            .warm_up_time(Duration::from_millis(200))
            .measurement_time(Duration::from_secs(1))
            .without_plots()
            .with_measurement(Self {
                unit,
                peak: peak / 1e9,
            })
    }
}

impl Measurement for Rate {
    type Intermediate = Clock;
    type Value = Duration;

    fn start(&self) -> Clock {
        Clock::start()
    }

    fn end(&self, start: Clock) -> Duration {
        start.elapsed()
    }

    fn add(&self, first: &Duration, second: &Duration) -> Duration {
        WallTime.add(first, second)
    }

    fn zero(&self) -> Duration {
        WallTime.zero()
    }

    fn to_f64(&self, value: &Duration) -> f64 {
        WallTime.to_f64(value)
    }

    fn formatter(&self) -> &dyn ValueFormatter {
        self
    }
}

impl ValueFormatter for Rate {
    fn format_throughput(&self, throughput: &Throughput, nanoseconds: f64) -> String {
        let (Throughput::Elements(count) | Throughput::Bytes(count)) = *throughput else {
            return WallTime.formatter().format_throughput(throughput, nanoseconds);
        };
        let rate = count as f64 / nanoseconds;
        let unit = match self.unit {
            Unit::Gigaflops => "GFLOP/s",
            Unit::Gigabytes => "GB/s",
        };
        format!("{rate:.1} {unit} ({:.0} % of peak)", 100.0 * rate / self.peak)
    }

    fn scale_values(&self, typical: f64, values: &mut [f64]) -> &'static str {
        WallTime.formatter().scale_values(typical, values)
    }

    fn scale_throughputs(&self, typical: f64, throughput: &Throughput, values: &mut [f64]) -> &'static str {
        WallTime
            .formatter()
            .scale_throughputs(typical, throughput, values)
    }

    fn scale_for_machines(&self, values: &mut [f64]) -> &'static str {
        WallTime.formatter().scale_for_machines(values)
    }
}
