//! Stop strings, matched across tokens.
//!
//! Invariant: what is handed out is never part of a stop string, and no more is held than the longest suffix that could
//! still become one. The stop that is complete first wins, of two that end together the longer.

#[derive(Debug, Default)]
pub struct StopMatcher {
    stops: Vec<String>,
    held: String,
}

impl StopMatcher {
    /// Empty stop strings are left out.
    pub fn new(stops: &[String]) -> Self {
        let stops = stops.iter().filter(|s| !s.is_empty()).cloned().collect();
        Self { stops, held: String::new() }
    }

    /// Appends `text`, moves what is certain to `out`, and tells whether a stop string is complete; nothing may be
    /// pushed after that.
    pub fn push(&mut self, text: &str, out: &mut String) -> bool {
        if self.stops.is_empty() {
            out.push_str(text);
            return false;
        }
        self.held.push_str(text);
        let found =
            self.stops.iter().filter_map(|stop| self.held.find(stop.as_str()).map(|start| (start + stop.len(), start)));
        if let Some((_, start)) = found.min() {
            out.push_str(&self.held[..start]);
            self.held.clear();
            return true;
        }
        let keep = held_back(&self.held, self.stops.iter().map(String::as_str));
        let done = self.held.len() - keep;
        out.push_str(&self.held[..done]);
        self.held.drain(..done);
        false
    }

    /// The end: what was held is text after all.
    pub fn finish(&mut self, out: &mut String) {
        out.push_str(&self.held);
        self.held.clear();
    }
}

/// Bytes of the longest suffix of `text` that is a proper prefix of one of `words`.
pub(crate) fn held_back<'a>(text: &str, words: impl Iterator<Item = &'a str>) -> usize {
    words
        .map(|word| {
            let longest = word.len().saturating_sub(1).min(text.len());
            (1..=longest).rev().find(|&n| text.as_bytes()[text.len() - n..] == word.as_bytes()[..n]).unwrap_or(0)
        })
        .max()
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn run<'a>(stops: &[&str], pieces: impl IntoIterator<Item = &'a str>) -> (String, bool) {
        let stops: Vec<String> = stops.iter().map(|s| s.to_string()).collect();
        let mut matcher = StopMatcher::new(&stops);
        let mut out = String::new();
        for piece in pieces {
            if matcher.push(piece, &mut out) {
                return (out, true);
            }
        }
        matcher.finish(&mut out);
        (out, false)
    }

    #[test]
    fn only_a_possible_stop_is_held() {
        let mut matcher = StopMatcher::new(&["\n\nUser:".into()]);
        let mut out = String::new();
        for (piece, seen) in [
            ("abc", "abc"),
            ("\n", "abc"),
            ("x", "abc\nx"),
            ("\n\nUs", "abc\nx"),
            ("e", "abc\nx"),
            (" ", "abc\nx\n\nUse "),
        ] {
            assert!(!matcher.push(piece, &mut out));
            assert_eq!(out, seen);
        }
    }

    proptest! {
        #[test]
        fn every_split_gives_the_same_text(text in "[abé]{0,24}", stops in proptest::collection::vec("[abé]{1,4}", 0..4), cuts in proptest::collection::vec(0usize..5, 24)) {
            let stops: Vec<&str> = stops.iter().map(String::as_str).collect();
            let whole = run(&stops, text.split_inclusive(|_| true));
            let mut pieces = Vec::new();
            let chars: Vec<(usize, char)> = text.char_indices().collect();
            let mut at = 0;
            for cut in cuts {
                let end = (at + cut).min(chars.len());
                let byte = |i: usize| chars.get(i).map_or(text.len(), |c| c.0);
                pieces.push(&text[byte(at)..byte(end)]);
                at = end;
            }
            pieces.push(&text[chars.get(at).map_or(text.len(), |c| c.0)..]);
            prop_assert_eq!(&run(&stops, pieces), &whole);
            // The oracle: cut at the stop that ends first.
            let ends = stops.iter().filter_map(|s| text.find(s).map(|i| (i + s.len(), i)));
            let want = ends.min().map_or((text.clone(), false), |(_, i)| (text[..i].to_string(), true));
            prop_assert_eq!(whole, want);
        }
    }
}
