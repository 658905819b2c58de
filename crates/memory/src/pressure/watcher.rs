//! Polls memory pressure between two pieces of work.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::judge::Judgement;
use super::{MemoryDomain, Pressure, System};
use crate::Bytes;

/// Calls within this interval return the last result.
const INTERVAL: Duration = Duration::from_millis(100);

/// Reports memory pressure to any thread, such as between two blocks of a network.
///
/// It has no thread of its own: nothing could react between two pieces of work. A call takes well under a
/// millisecond ten times a second, and almost nothing in between.
#[derive(Debug)]
pub struct Watcher {
    start: Instant,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    system: System,
    judgement: Judgement,
    pressure: Pressure,
    domains: Vec<MemoryDomain>,
    /// Time of the last reading.
    looked: Option<Duration>,
}

impl Watcher {
    /// A watcher of this machine and of the control groups that this process is in now.
    pub fn start() -> Self {
        Self::of(System::open())
    }

    fn of(system: System) -> Self {
        Self {
            start: Instant::now(),
            state: Mutex::new(State {
                system,
                judgement: Judgement::default(),
                pressure: Pressure::default(),
                domains: Vec::new(),
                looked: None,
            }),
        }
    }

    /// The current memory pressure.
    pub fn pressure(&self) -> Pressure {
        self.look(|state| state.pressure)
    }

    /// Bytes to free for memory to be calm again; 0 when it is. Bytes freed a moment ago are not requested
    /// again.
    pub fn shortfall(&self) -> Bytes {
        self.look(|state| match state.pressure {
            Pressure::Calm => Bytes(0),
            Pressure::Tight | Pressure::Critical => {
                let domains = state.system.domains();
                domains
                    .iter()
                    .map(MemoryDomain::shortfall)
                    .max()
                    .unwrap_or_default()
            }
        })
    }

    /// The last readings: the machine first, then the control groups with a limit.
    pub fn domains(&self) -> Vec<MemoryDomain> {
        self.look(|state| state.domains.clone())
    }

    fn look<T>(&self, tell: impl FnOnce(&mut State) -> T) -> T {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let now = self.start.elapsed();
        if state.looked.is_none_or(|looked| now - looked >= INTERVAL) {
            let domains = state.system.domains();
            state.pressure = state.judgement.observe(now, &domains);
            state.domains = domains;
            state.looked = Some(now);
        }
        tell(&mut state)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sees_this_machine() {
        let watcher = Watcher::start();
        let domains = watcher.domains();
        assert!(!domains.is_empty());
        for domain in &domains {
            assert!(
                domain.total > Bytes(0) && domain.available <= domain.total,
                "{domain:?}"
            );
        }
        assert_eq!(
            watcher.pressure() == Pressure::Calm,
            watcher.shortfall() == Bytes(0)
        );
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn says_what_a_neighbour_does_to_it() {
        let machine = crate::pressure::linux::tests::Machine::new();
        machine.meminfo(8 << 30, 4 << 30);
        let watcher = Watcher::of(machine.system());
        assert_eq!(watcher.pressure(), Pressure::Calm);
        machine.meminfo(8 << 30, 100 << 20);
        std::thread::sleep(INTERVAL);
        assert_eq!(watcher.pressure(), Pressure::Critical);
        assert_eq!(watcher.shortfall(), Bytes((640 << 20) - (100 << 20)));
        // Released bytes count at once, even if the next call follows at once.
        machine.meminfo(8 << 30, 500 << 20);
        assert_eq!(watcher.shortfall(), Bytes(140 << 20));
        // The neighbour's memory is not trusted to stay free at once.
        machine.meminfo(8 << 30, 4 << 30);
        std::thread::sleep(INTERVAL);
        assert_eq!(watcher.pressure(), Pressure::Critical);
        assert_eq!(watcher.shortfall(), Bytes(0));
    }

    #[test]
    fn asking_costs_next_to_nothing() {
        let watcher = Watcher::start();
        watcher.pressure();
        let start = Instant::now();
        const TIMES: u32 = 10_000;
        for _ in 0..TIMES {
            std::hint::black_box(watcher.pressure());
        }
        let each = start.elapsed() / TIMES;
        assert!(each < Duration::from_micros(100), "{each:?} each");
    }
}
