//! Repeatable chance: one seed, printed, replays a run.

/// SplitMix64, by Guy Steele, Doug Lea and Christine Flood.
#[derive(Debug, Clone)]
pub struct Dice(u64);

impl Dice {
    /// From `LEVADA_E2E_SEED`, or the given seed. Printed, so that a failure can be replayed.
    pub fn new(seed: u64) -> Self {
        let seed = std::env::var("LEVADA_E2E_SEED").ok().and_then(|s| s.parse().ok()).unwrap_or(seed);
        println!("LEVADA_E2E_SEED={seed}");
        Self(seed)
    }

    pub fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// A number in `0..bound`.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.roll() % bound
    }
}
