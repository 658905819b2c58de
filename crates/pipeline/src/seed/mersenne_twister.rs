//! The generator MT19937.
//!
//! M. Matsumoto and T. Nishimura, "Mersenne Twister: A 623-dimensionally equidistributed uniform
//! pseudo-random number generator", 1998; initialised from a seed as in their revision of 2002.

const STATE: usize = 624;
const MIDDLE: usize = 397;
const UPPER_BIT: u32 = 0x8000_0000;
const LOWER_BITS: u32 = 0x7fff_ffff;
const TWIST: u32 = 0x9908_b0df;

/// A stream of uniformly distributed 32-bit numbers.
#[derive(Debug, Clone)]
pub struct MersenneTwister {
    state: [u32; STATE],
    next: usize,
}

impl MersenneTwister {
    /// The stream of `seed`. As in torch, only its lower 32 bits count.
    pub fn new(seed: u64) -> Self {
        let mut state = [0; STATE];
        state[0] = seed as u32;
        for index in 1..STATE {
            let previous = state[index - 1];
            state[index] = 1_812_433_253_u32
                .wrapping_mul(previous ^ (previous >> 30))
                .wrapping_add(index as u32);
        }
        Self { state, next: STATE }
    }

    /// The next number.
    pub fn next_u32(&mut self) -> u32 {
        if self.next == STATE {
            self.twist();
        }
        let mut value = self.state[self.next];
        self.next += 1;
        value ^= value >> 11;
        value ^= (value << 7) & 0x9d2c_5680;
        value ^= (value << 15) & 0xefc6_0000;
        value ^ (value >> 18)
    }

    /// The next two numbers as one, the first in the upper half.
    pub fn next_u64(&mut self) -> u64 {
        let upper = u64::from(self.next_u32());
        (upper << 32) | u64::from(self.next_u32())
    }

    fn twist(&mut self) {
        for index in 0..STATE {
            let joined = (self.state[index] & UPPER_BIT) | (self.state[(index + 1) % STATE] & LOWER_BITS);
            let twisted = if joined & 1 == 0 { 0 } else { TWIST };
            self.state[index] = self.state[(index + MIDDLE) % STATE] ^ (joined >> 1) ^ twisted;
        }
        self.next = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The 10,000th number of the default seed is a known check value (C++ standard, [rand.predef]).
    #[test]
    fn gives_the_published_check_value() {
        let mut generator = MersenneTwister::new(5489);
        let value = (0..10_000).map(|_| generator.next_u32()).last();
        assert_eq!(value, Some(4_123_659_995));
    }
}
