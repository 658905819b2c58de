//! Quantiles of the symmetric beta distribution, for the beta schedule.

/// The distribution with a density proportional to `(x (1 - x))^(shape - 1)` on 0 to 1.
#[derive(Debug, Clone, Copy)]
pub(crate) struct BetaDistribution {
    shape: f64,
    /// The integral of that density.
    norm: f64,
}

impl BetaDistribution {
    /// `shape` must be above 0.
    pub(crate) fn new(shape: f64) -> Self {
        // By symmetry the integral up to one half is half of the whole.
        let norm = 2.0 * integral_to(0.5, shape);
        Self { shape, norm }
    }

    /// The quantile of `share`: `ppf` of `scipy.stats.beta`.
    pub(crate) fn quantile(self, share: f64) -> f64 {
        if share > 0.5 {
            return 1.0 - self.quantile(1.0 - share);
        }
        let (mut low, mut high) = (0.0, 0.5);
        // One bisection for each bit of the result.
        for _ in 0..64 {
            let middle = 0.5 * (low + high);
            if integral_to(middle, self.shape) / self.norm < share {
                low = middle;
            } else {
                high = middle;
            }
        }
        0.5 * (low + high)
    }
}

/// The integral of `(t (1 - t))^(shape - 1)` from 0 to `x`, at most one half. The second factor is expanded
/// into its binomial series; at most one half, each term is at most half of the one before.
fn integral_to(x: f64, shape: f64) -> f64 {
    let mut power = x.powf(shape);
    let mut sum = 0.0;
    for term in 0..64 {
        let index = f64::from(term);
        sum += power / (shape + index);
        power *= x * (index + 1.0 - shape) / (index + 1.0);
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_those_of_known_distributions() {
        // The uniform one, and the arcsine one, whose quantiles are squared sines.
        let (uniform, arcsine) = (BetaDistribution::new(1.0), BetaDistribution::new(0.5));
        for share in [0.0, 1e-3, 0.1, 0.25, 0.5, 0.7, 0.999, 1.0] {
            let angle = share * std::f64::consts::FRAC_PI_2;
            assert!((uniform.quantile(share) - share).abs() < 1e-14, "{share}");
            assert!(
                (arcsine.quantile(share) - angle.sin().powi(2)).abs() < 1e-13,
                "{share}"
            );
        }
    }
}
