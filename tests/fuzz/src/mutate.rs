//! A small mutator: the same bytes for the same seed number, on every machine.

use crate::Target;

/// Numbers that sit on the edges of sizes and signs.
const EDGES: [u64; 12] =
    [0, 1, 2, 0x7f, 0x80, 0xff, 0x7fff_ffff, 0x8000_0000, 0xffff_ffff, 1 << 40, i64::MAX as u64, u64::MAX];
/// Formats tell most in their first bytes, so half of the changes are made here.
const HEAD_BYTES: usize = 2048;
/// Inputs do not grow without end.
const MAX_BYTES: usize = 4 << 20;

/// Numbers that look random.
#[derive(Debug, Clone)]
pub struct Draw(u64);

impl Draw {
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub fn draw(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    /// Below `n`; 0 when that is 0.
    pub fn below(&mut self, n: usize) -> usize {
        if n == 0 { 0 } else { (self.draw() % n as u64) as usize }
    }

    fn place(&mut self, len: usize) -> usize {
        let within = if self.below(2) == 0 { len.min(HEAD_BYTES) } else { len };
        self.below(within + 1)
    }
}

/// One of `seeds`, changed in one to eight places.
pub fn mutate(target: &Target, seeds: &[Vec<u8>], draw: &mut Draw) -> Vec<u8> {
    let mut bytes = seeds.get(draw.below(seeds.len())).cloned().unwrap_or_default();
    for _ in 0..=draw.below(8) {
        change(&mut bytes, target, seeds, draw);
    }
    bytes.truncate(MAX_BYTES);
    bytes
}

fn change(bytes: &mut Vec<u8>, target: &Target, seeds: &[Vec<u8>], draw: &mut Draw) {
    let at = draw.place(bytes.len());
    let length = match draw.below(3) {
        0 => 1 + draw.below(8),
        1 => 1 + draw.below(64),
        _ => 1 + draw.below(bytes.len()),
    };
    let end = at.saturating_add(length).min(bytes.len());
    match draw.below(9) {
        0 => {
            if let Some(byte) = bytes.get_mut(at) {
                *byte ^= 1 << draw.below(8);
            }
        }
        1 => {
            if let Some(byte) = bytes.get_mut(at) {
                *byte = draw.draw() as u8;
            }
        }
        2 => {
            bytes.drain(at..end);
        }
        3 => {
            let again = bytes[at..end].to_vec();
            bytes.splice(at..at, again);
        }
        4 => bytes.truncate(at),
        5 => {
            let edge = EDGES[draw.below(EDGES.len())].to_le_bytes();
            let width = [1, 2, 4, 8][draw.below(4)];
            let end = (at + width).min(bytes.len());
            bytes.splice(at..end, edge[..width].iter().copied());
        }
        6 => {
            if let Some(other) = seeds.get(draw.below(seeds.len())) {
                let from = draw.place(other.len());
                let to = from.saturating_add(length).min(other.len());
                bytes.splice(at..end, other[from..to].iter().copied());
            }
        }
        7 => {
            let edge = EDGES[draw.below(EDGES.len())];
            let sign = if draw.below(2) == 0 { "" } else { "-" };
            number(bytes, at, &format!("{sign}{edge}"));
        }
        _ => {
            if let Some(word) = target.words.get(draw.below(target.words.len())) {
                let end = if draw.below(2) == 0 { at } else { end };
                bytes.splice(at..end, word.bytes());
            }
        }
    }
}

/// Replaces the next number in digits after `at`, as texts have them.
fn number(bytes: &mut Vec<u8>, at: usize, by: &str) {
    let Some(start) = bytes[at..].iter().position(u8::is_ascii_digit).map(|i| at + i) else { return };
    let end = bytes[start..].iter().position(|b| !b.is_ascii_digit()).map_or(bytes.len(), |i| start + i);
    bytes.splice(start..end, by.bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_gives_the_same_inputs_and_another_gives_others() {
        let target = crate::target("url").expect("it is in the list");
        let seeds = (target.seeds)();
        let inputs = |seed| {
            let mut draw = Draw::new(seed);
            (0..200).map(|_| mutate(target, &seeds, &mut draw)).collect::<Vec<_>>()
        };
        assert_eq!(inputs(1), inputs(1));
        assert_ne!(inputs(1), inputs(2));
        let changed = inputs(3).iter().filter(|input| !seeds.contains(input)).count();
        assert!(changed > 150, "{changed} of 200 were changed");
    }
}
