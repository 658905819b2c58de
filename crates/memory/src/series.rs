//! The memory curve of a run: samples at regular intervals, in bounded memory however long the run is.

use serde::Serialize;

use crate::Bytes;

/// The memory over a short interval of a run.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize)]
pub struct Sample {
    /// Start of the interval, in seconds since the start of the run.
    pub seconds: f64,
    /// The highest resident size that was seen, or on macOS the highest footprint.
    pub resident: Bytes,
    /// The peak of allocated bytes, also between two readings. 0 without a counting allocator.
    pub allocated: Bytes,
    /// The lowest available memory of the machine.
    pub available: Bytes,
    /// The highest memory in use on the GPU; 0 if it has no memory of its own.
    pub device: Bytes,
    /// Bytes of weights that the run had read by the end of the interval.
    pub weights_read: Bytes,
}

impl Sample {
    /// Merges this interval with the next.
    fn joined(self, later: Self) -> Self {
        Self {
            seconds: self.seconds,
            resident: self.resident.max(later.resident),
            allocated: self.allocated.max(later.allocated),
            available: self.available.min(later.available),
            device: self.device.max(later.device),
            weights_read: later.weights_read,
        }
    }
}

/// Samples in order. At capacity every two are merged into one: a long run has a coarser curve with the same
/// peaks.
#[derive(Debug)]
pub(crate) struct Series {
    samples: Vec<Sample>,
    capacity: usize,
    /// Readings per sample.
    looks: u32,
    /// The unfinished sample, and the number of its readings so far.
    unfinished: Option<(Sample, u32)>,
}

impl Series {
    /// A series of at most `capacity` samples and an unfinished one.
    pub(crate) fn new(capacity: usize) -> Self {
        Self {
            samples: Vec::new(),
            capacity: capacity.max(2),
            looks: 1,
            unfinished: None,
        }
    }

    pub(crate) fn push(&mut self, look: Sample) {
        let (sample, looks) = match self.unfinished.take() {
            Some((sample, looks)) => (sample.joined(look), looks + 1),
            None => (look, 1),
        };
        if looks < self.looks {
            self.unfinished = Some((sample, looks));
            return;
        }
        if self.samples.len() == self.capacity {
            self.halve();
            // With half of the readings that a sample has from now on.
            self.unfinished = Some((sample, looks));
        } else {
            self.samples.push(sample);
        }
    }

    fn halve(&mut self) {
        self.samples = self
            .samples
            .chunks(2)
            .map(|pair| pair.iter().copied().reduce(Sample::joined).unwrap_or_default())
            .collect();
        self.looks = self.looks.saturating_mul(2);
    }

    /// The samples so far, oldest first.
    pub(crate) fn samples(&self) -> impl Iterator<Item = Sample> + '_ {
        let unfinished = self.unfinished.map(|(sample, _)| sample);
        self.samples.iter().copied().chain(unfinished)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn look(index: u64, resident: u64, available: u64) -> Sample {
        Sample {
            seconds: index as f64,
            resident: Bytes(resident),
            allocated: Bytes(2 * resident),
            available: Bytes(available),
            device: Bytes(3 * resident),
            weights_read: Bytes(10 * index),
        }
    }

    /// Numbers without order, the same in every run of the test.
    fn noise() -> impl Iterator<Item = u64> {
        std::iter::successors(Some(88_172_645_463_325_252_u64), |&state| {
            let state = state ^ (state << 13);
            let state = state ^ (state >> 7);
            Some(state ^ (state << 17))
        })
        .map(|state| state >> 40)
    }

    #[test]
    fn a_long_run_keeps_its_peaks_and_its_order_in_bounded_memory() {
        for capacity in [2, 3, 8, 64] {
            let mut series = Series::new(capacity);
            let mut most = 0;
            let mut least = u64::MAX;
            for (index, (resident, available)) in noise().zip(noise().skip(7)).take(1000).enumerate() {
                let index = index as u64;
                series.push(look(index, resident, available));
                (most, least) = (most.max(resident), least.min(available));
                let samples: Vec<Sample> = series.samples().collect();
                assert!(samples.len() <= capacity + 1, "{} samples", samples.len());
                assert!(samples.is_sorted_by(|a, b| a.seconds < b.seconds), "{samples:?}");
                assert_eq!(samples[0].seconds, 0.0);
                assert_eq!(samples.iter().map(|sample| sample.resident.0).max(), Some(most));
                assert_eq!(
                    samples.iter().map(|sample| sample.allocated.0).max(),
                    Some(2 * most)
                );
                assert_eq!(samples.iter().map(|sample| sample.device.0).max(), Some(3 * most));
                assert_eq!(samples.iter().map(|sample| sample.available.0).min(), Some(least));
                assert_eq!(samples[samples.len() - 1].weights_read, Bytes(10 * index));
            }
        }
    }

    #[test]
    fn samples_stand_for_equal_stretches() {
        let mut series = Series::new(8);
        for index in 0..100 {
            series.push(look(index, 1, 1));
        }
        let starts: Vec<f64> = series.samples().map(|sample| sample.seconds).collect();
        let stretches: Vec<f64> = starts.windows(2).map(|pair| pair[1] - pair[0]).collect();
        assert!(stretches.iter().all(|&stretch| stretch == 16.0), "{starts:?}");
        assert_eq!(starts.len(), 7);
    }
}
