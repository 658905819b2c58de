//! [`Rates`]: how often each address has asked.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use crate::lock::lock;

/// Addresses that are remembered.
const MOST: usize = 10_000;
const MINUTE: Duration = Duration::from_secs(60);

/// How often each address has asked in its current minute.
#[derive(Debug, Default)]
pub(crate) struct Rates(Mutex<HashMap<IpAddr, (Instant, u32)>>);

impl Rates {
    /// Counts a request of `address` at `now`. If it has asked more than `most` times in a minute, how long it has to wait.
    pub(crate) fn count(&self, address: IpAddr, most: u32, now: Instant) -> Result<(), Duration> {
        let mut addresses = lock(&self.0);
        if addresses.len() >= MOST {
            addresses.retain(|_, (begun, _)| now.duration_since(*begun) < MINUTE);
            if addresses.len() >= MOST {
                addresses.clear();
            }
        }
        let (begun, count) = addresses.entry(address).or_insert((now, 0));
        if now.duration_since(*begun) >= MINUTE {
            (*begun, *count) = (now, 0);
        }
        *count += 1;
        if *count > most {
            return Err(MINUTE.saturating_sub(now.duration_since(*begun)));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_minute_has_so_many() {
        let rates = Rates::default();
        let (one, other) = (IpAddr::from([10, 0, 0, 1]), IpAddr::from([10, 0, 0, 2]));
        let start = Instant::now();
        assert!(rates.count(one, 2, start).is_ok());
        assert!(rates.count(one, 2, start).is_ok());
        assert_eq!(rates.count(one, 2, start + MINUTE / 2), Err(MINUTE / 2));
        assert!(rates.count(other, 2, start).is_ok());
        assert!(rates.count(one, 2, start + MINUTE).is_ok());
    }
}
