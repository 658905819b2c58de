//! Normally distributed numbers as torch draws them on NVIDIA GPUs.
//!
//! Philox4x32 with ten rounds (Salmon et al., "Parallel Random Numbers: As Easy as 1, 2, 3", 2011) gives the uniform
//! numbers, and the transformation of Box and Muller one normal number of each two. Counter and key are laid out as
//! in cuRAND: element `i` of draw `d` has the counter (d, 0, i, 0), and the seed is the key. So draws the generator
//! of stable-diffusion-webui (its setting `NV`), for tensors that torch fills with one thread an element. The
//! transformation is computed in 64 bits, as there, and rounded to 32.

/// The multipliers of a round.
const MULTIPLIERS: [u32; 2] = [0xD251_1F53, 0xCD9E_8D57];
/// What is added to the key after a round: the golden ratio and the square root of 3, less 1.
const KEY_STEPS: [u32; 2] = [0x9E37_79B9, 0xBB67_AE85];
const ROUNDS: usize = 10;
/// 2^-32, with the digits that cuRAND has.
const UNIT: f64 = 2.328_306_4e-10_f32 as f64;
/// 2 pi times 2^-32, with the digits that cuRAND has.
const TURN: f64 = (2.328_306_4e-10 * 6.283_185_5) as f32 as f64;

/// A stream of normally distributed numbers: that of `torch.Generator("cuda").manual_seed(seed)`.
#[derive(Debug, Clone)]
pub struct PhiloxStream {
    seed: u64,
    draws: u32,
}

impl PhiloxStream {
    /// The stream of `seed`.
    pub fn new(seed: u64) -> Self {
        Self { seed, draws: 0 }
    }

    /// The numbers that `torch.randn(count, device="cuda")` would draw next.
    pub fn normals(&mut self, count: usize) -> Vec<f32> {
        let key = [self.seed as u32, (self.seed >> 32) as u32];
        let draw = self.draws;
        self.draws = draw.wrapping_add(1);
        let number = |index: usize| {
            let [first, second, ..] = philox([draw, 0, index as u32, 0], key);
            normal(first, second)
        };
        (0..count).map(number).collect()
    }
}

/// Four random numbers of `counter` under `key`.
fn philox(mut counter: [u32; 4], mut key: [u32; 2]) -> [u32; 4] {
    for _ in 0..ROUNDS {
        let [first, second] = [0, 1].map(|index| {
            let product = u64::from(counter[2 * index]) * u64::from(MULTIPLIERS[index]);
            ((product >> 32) as u32, product as u32)
        });
        counter = [
            second.0 ^ counter[1] ^ key[0],
            second.1,
            first.0 ^ counter[3] ^ key[1],
            first.1,
        ];
        for (key, step) in key.iter_mut().zip(KEY_STEPS) {
            *key = key.wrapping_add(step);
        }
    }
    counter
}

/// The first of the two normal numbers of two uniform ones.
fn normal(first: u32, second: u32) -> f32 {
    let radius = f64::from(first) * UNIT + UNIT / 2.0;
    let angle = f64::from(second) * TURN + TURN / 2.0;
    ((-2.0 * radius.ln()).sqrt() * angle.sin()) as f32
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The known answers that the authors of Philox publish with their library, Random123.
    #[test]
    fn philox_gives_its_known_answers() {
        for (counter, key, expected) in [
            (
                [0; 4],
                [0; 2],
                [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8],
            ),
            (
                [u32::MAX; 4],
                [u32::MAX; 2],
                [0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd],
            ),
            (
                [0x243f_6a88, 0x85a3_08d3, 0x1319_8a2e, 0x0370_7344],
                [0xa409_3822, 0x299f_31d0],
                [0xd16c_fe09, 0x94fd_cceb, 0x5001_e420, 0x2412_6ea1],
            ),
        ] {
            assert_eq!(philox(counter, key), expected);
        }
    }

    /// What stable-diffusion-webui documents for `Generator(seed=0).randn(shape=(3, 4))`.
    #[test]
    fn the_first_numbers_are_those_of_webui() {
        let expected = [
            -0.924_662_6,
            -0.425_344_15,
            -2.643_845_7,
            0.145_183_88,
            -0.120_866_47,
            -0.579_725_6,
            -0.622_851_2,
            -0.328_387_1,
            -1.074_542_3,
            -0.363_144_07,
            -1.671_050_7,
            2.265_505,
        ];
        for (found, expected) in PhiloxStream::new(0).normals(12).into_iter().zip(expected) {
            assert!((found - expected).abs() < 1e-6_f32, "{found} {expected}");
        }
    }

    #[test]
    fn every_draw_and_both_halves_of_the_seed_count() {
        let mut stream = PhiloxStream::new(7);
        let first = stream.normals(4);
        assert_ne!(stream.normals(4), first);
        assert_ne!(PhiloxStream::new(7 + (1 << 32)).normals(4), first);
        // As in torch, a number does not depend on how many follow it.
        assert_eq!(PhiloxStream::new(7).normals(9)[..4], first);
    }
}
