//! Looking at the pressure between two pieces of work.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::judge::Judgement;
use super::{Pressure, Room, System};
use crate::Bytes;

/// Who asks more often is told what was seen last.
const INTERVAL: Duration = Duration::from_millis(100);

/// Says how short memory is, whenever it is asked: between two blocks of a network, say, from any thread.
///
/// It has no thread of its own: nobody could act between two pieces of work anyway. Asking takes well under a
/// millisecond ten times a second, and next to nothing in between.
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
    rooms: Vec<Room>,
    /// When it was last looked.
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
                rooms: Vec::new(),
                looked: None,
            }),
        }
    }

    /// How short memory is.
    pub fn pressure(&self) -> Pressure {
        self.look(|state| state.pressure)
    }

    /// What is to be given up for memory to be calm again: nothing where it is. What was given up a moment ago is not
    /// asked for again.
    pub fn shortfall(&self) -> Bytes {
        self.look(|state| match state.pressure {
            Pressure::Calm => Bytes(0),
            Pressure::Tight | Pressure::Critical => {
                let rooms = state.system.rooms();
                rooms.iter().map(Room::shortfall).max().unwrap_or_default()
            }
        })
    }

    /// What was seen: the machine first, then the control groups with a limit.
    pub fn rooms(&self) -> Vec<Room> {
        self.look(|state| state.rooms.clone())
    }

    fn look<T>(&self, tell: impl FnOnce(&mut State) -> T) -> T {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let now = self.start.elapsed();
        if state.looked.is_none_or(|looked| now - looked >= INTERVAL) {
            let rooms = state.system.rooms();
            state.pressure = state.judgement.observe(now, &rooms);
            state.rooms = rooms;
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
        let rooms = watcher.rooms();
        assert!(!rooms.is_empty());
        for room in &rooms {
            assert!(room.total > Bytes(0) && room.available <= room.total, "{room:?}");
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
        // What is given up counts at once, however soon it is asked for again.
        machine.meminfo(8 << 30, 500 << 20);
        assert_eq!(watcher.shortfall(), Bytes(140 << 20));
        // It is not believed at once that the neighbour is gone.
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
