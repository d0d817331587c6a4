//! Takes citations of sources that do not exist out of a reply, as it streams.
//!
//! A citation is `[n]` or `[n, m]`. Invariants: the outcome does not depend on how the text was cut; nothing but unknown
//! numbers, a citation that they leave empty and the spaces before it is taken out; no more than [`MAX_HELD`] bytes are
//! held back.

use std::collections::BTreeSet;

/// Longest citation in bytes; a longer bracket is no citation.
const MAX_CITATION: usize = 40;
/// Most spaces that wait for what follows.
const MAX_SPACES: usize = 8;
/// Most bytes that are held back.
#[cfg(test)]
const MAX_HELD: usize = MAX_CITATION + MAX_SPACES;

#[derive(Debug)]
pub struct Checker {
    sources: usize,
    held: String,
    cited: BTreeSet<usize>,
}

impl Checker {
    /// Sources are numbered from 1.
    pub fn new(sources: usize) -> Self {
        Self { sources, held: String::new(), cited: BTreeSet::new() }
    }

    /// The text that is decided.
    pub fn push(&mut self, text: &str) -> String {
        let mut ready = String::new();
        for character in text.chars() {
            self.take(character, &mut ready);
        }
        ready
    }

    /// The end: what is held is text.
    pub fn finish(&mut self) -> String {
        std::mem::take(&mut self.held)
    }

    /// The sources that the reply cites, in order.
    pub fn cited(&self) -> Vec<usize> {
        self.cited.iter().copied().collect()
    }

    /// `held` is spaces, or spaces and the beginning of a citation.
    fn take(&mut self, character: char, ready: &mut String) {
        let in_bracket = self.held.contains('[');
        match character {
            ']' if in_bracket => {
                self.held.push(']');
                let citation = self.checked();
                ready.push_str(&citation);
            }
            '0'..='9' | ',' | ' ' if in_bracket && self.held.trim_start().len() < MAX_CITATION => {
                self.held.push(character);
            }
            '[' | ' ' => {
                if in_bracket || self.held.len() >= MAX_SPACES {
                    ready.push_str(&std::mem::take(&mut self.held));
                }
                self.held.push(character);
            }
            _ => {
                ready.push_str(&std::mem::take(&mut self.held));
                ready.push(character);
            }
        }
    }

    /// The held citation without unknown numbers; nothing when none is left.
    fn checked(&mut self) -> String {
        let held = std::mem::take(&mut self.held);
        let numbers = held.trim_start().trim_matches(['[', ']']);
        let parsed: Option<Vec<usize>> = numbers.split(',').map(|n| n.trim().parse().ok()).collect();
        let Some(numbers) = parsed else { return held };
        let known: Vec<usize> = numbers.iter().copied().filter(|n| (1..=self.sources).contains(n)).collect();
        self.cited.extend(&known);
        if known.len() == numbers.len() {
            return held;
        }
        if known.is_empty() {
            return String::new();
        }
        let spaces = &held[..held.len() - held.trim_start().len()];
        let known: Vec<String> = known.iter().map(usize::to_string).collect();
        format!("{spaces}[{}]", known.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(sources: usize, pieces: &[&str]) -> (String, Vec<usize>) {
        let mut checker = Checker::new(sources);
        let mut out = String::new();
        for piece in pieces {
            out += &checker.push(piece);
            assert!(checker.held.len() <= MAX_HELD, "{:?}", checker.held);
        }
        out += &checker.finish();
        (out, checker.cited())
    }

    #[test]
    fn unknown_numbers_go_and_all_else_stays_at_every_cut() {
        let long = format!("[{}]", "1".repeat(60));
        for (text, want, cited) in [
            ("Paris [1]. Rome [2].", "Paris [1]. Rome [2].", &[1, 2][..]),
            ("Paris [3]. Rome [9]", "Paris. Rome", &[]),
            ("A [1, 7] b [7,8] c [2,1]", "A [1] b c [2,1]", &[1, 2]),
            ("[0][1][3] x", "[1] x", &[1]),
            ("a [b] [] [1 [2", "a [b] [] [1 [2", &[]),
            ("array[i] = [1.5] é", "array[i] = [1.5] é", &[]),
            ("see [link](x) [ 2 ]", "see [link](x) [ 2 ]", &[2]),
            ("a          b [5]", "a          b", &[]),
            ("trailing  ", "trailing  ", &[]),
            (&long, &long, &[]),
        ] {
            assert_eq!(check(2, &[text]), (want.into(), cited.to_vec()), "{text}");
            for (at, _) in text.char_indices() {
                assert_eq!(check(2, &[&text[..at], &text[at..]]), (want.into(), cited.to_vec()), "{text} at {at}");
            }
            let characters: Vec<&str> = text.split_inclusive(|_| true).collect();
            assert_eq!(check(2, &characters).0, want, "{text}");
        }
    }

    /// Replies of words and citations, of which those over the number of sources are wrong, in pieces as models make them.
    #[test]
    fn of_generated_replies_every_wrong_citation_goes_and_every_right_one_stays() {
        let mut state = 1u64;
        let mut next = |n: usize| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) as usize % n
        };
        let (mut right, mut wrong) = (0, 0);
        for _ in 0..2_000 {
            let sources = next(8);
            let (mut reply, mut want) = (String::from("It"), String::from("It"));
            for _ in 0..12 {
                match next(3) {
                    0 => {
                        let number = 1 + next(12);
                        reply += &format!(" [{number}]");
                        if number <= sources {
                            want += &format!(" [{number}]");
                            right += 1;
                        } else {
                            wrong += 1;
                        }
                    }
                    kind => {
                        let word = [" é, a[i]", " is 1.5"][kind - 1];
                        reply += word;
                        want += word;
                    }
                }
            }
            let mut pieces = Vec::new();
            let mut rest = &reply[..];
            while !rest.is_empty() {
                let (piece, more) = rest.split_at(rest.ceil_char_boundary(1 + next(6)));
                pieces.push(piece);
                rest = more;
            }
            assert_eq!(check(sources, &pieces).0, want, "{reply}");
        }
        assert_eq!((right, wrong), (2_364, 5_576));
    }
}
