//! Properties of the gate against a reference that sees the whole text at once.

use super::*;
use proptest::prelude::*;
use stockade_core::plugin::Violation;

fn edit(start: u64, end: u64, replacement: &str) -> Edit {
    Edit { start, end, replacement: replacement.into() }
}

fn clear(cleared: u64, edits: Vec<Edit>) -> Ruling {
    Ruling { cleared, edits, violation: None }
}

fn text(pieces: &[Piece]) -> String {
    pieces.iter().map(|p| p.text.as_str()).collect()
}

#[test]
fn broken_rulings_are_named() {
    let loose = Moment::Fed { hold_back: 100 };
    for (what, ruling, moment) in [
        ("beyond the text", clear(9, vec![]), loose),
        ("inside a character", clear(1, vec![]), loose),
        ("more held back than declared", clear(0, vec![]), Moment::Fed { hold_back: 7 }),
        ("not all at the end", clear(2, vec![]), Moment::Finished),
        ("edit not cleared", clear(2, vec![edit(2, 4, "")]), loose),
        ("edit turned round", clear(8, vec![edit(4, 2, "")]), loose),
        ("edit in a character", clear(8, vec![edit(1, 2, "")]), loose),
        ("edits overlap", clear(8, vec![edit(0, 4, ""), edit(2, 6, "")]), loose),
    ] {
        let mut gate = Gate::new(1);
        gate.push("éééé");
        assert!(gate.rule(0, ruling, moment).is_err(), "{what}");
    }
    let mut gate = Gate::new(1);
    gate.push("abc");
    gate.rule(0, clear(2, vec![]), loose).unwrap();
    assert!(gate.rule(0, clear(1, vec![]), loose).is_err(), "shrinks");
    let late = gate.rule(0, clear(3, vec![edit(0, 3, "")]), loose);
    assert!(late.is_err(), "edits what was cleared before");
}

#[test]
fn overlapping_edits_become_one_with_the_first_shields_text() {
    let loose = Moment::Fed { hold_back: 100 };
    let mut gate = Gate::new(2);
    gate.push("0123456789");
    gate.rule(0, clear(10, vec![edit(4, 7, "B")]), loose).unwrap();
    gate.rule(1, clear(6, vec![edit(2, 5, "A")]), loose).unwrap();
    // The first shield's edit crosses what the second has cleared, and drags the second's edit with it.
    assert_eq!(text(&gate.release()), "01");
    gate.rule(1, clear(10, vec![edit(9, 9, "!")]), loose).unwrap();
    assert_eq!(text(&gate.release()), "B78!9");
    assert!(gate.release().is_empty());
}

#[test]
fn an_ignored_shield_holds_nothing_back() {
    let mut gate = Gate::new(2);
    gate.push("abc");
    gate.rule(0, clear(3, vec![]), Moment::Finished).unwrap();
    assert!(gate.release().is_empty());
    gate.ignore(1);
    assert_eq!(text(&gate.release()), "abc");
}

/// A shield that masks or blocks a word, with a window of exactly the word's length.
struct Word {
    word: String,
    block: bool,
    seen: String,
    cleared: usize,
}

impl Word {
    fn new(word: &str, block: bool) -> Self {
        Self { word: word.into(), block, seen: String::new(), cleared: 0 }
    }
    fn hold_back(&self) -> u32 {
        self.word.len() as u32
    }
    fn feed(&mut self, piece: &str, end: bool) -> Ruling {
        self.seen.push_str(piece);
        let mut ruling = Ruling::default();
        while let Some(at) = self.seen[self.cleared..].find(&self.word) {
            let at = self.cleared + at;
            if self.block {
                ruling.cleared = at as u64;
                ruling.violation = Some(Violation {
                    category: "word".into(),
                    message: String::new(),
                    score: None,
                    metadata: serde_json::Value::Null,
                });
                self.cleared = at;
                return ruling;
            }
            let after = at + self.word.len();
            ruling.edits.push(edit(at as u64, after as u64, "#"));
            self.cleared = after;
        }
        let mut safe = self.seen.len();
        if !end {
            // The longest end of the text that could begin the word.
            let tail = (0..self.word.len())
                .rev()
                .find(|n| self.word.is_char_boundary(*n) && self.seen.ends_with(&self.word[..*n]));
            safe -= tail.unwrap_or(0);
        }
        self.cleared = self.cleared.max(safe);
        ruling.cleared = self.cleared as u64;
        ruling
    }
}

/// Feeds `text` in pieces cut at `cuts` through `shields`; what was sent, and whether a shield blocked.
fn run(text_in: &str, cuts: &[usize], shields: &mut [Word]) -> (String, bool) {
    let mut gate = Gate::new(shields.len());
    let mut sent = String::new();
    let mut cuts: Vec<usize> =
        cuts.iter().map(|c| c % (text_in.len() + 1)).filter(|c| text_in.is_char_boundary(*c)).collect();
    cuts.extend([0, text_in.len()]);
    cuts.sort_unstable();
    cuts.dedup();
    for (i, pair) in cuts.windows(2).enumerate() {
        let piece = &text_in[pair[0]..pair[1]];
        let end = i + 2 == cuts.len();
        gate.push(piece);
        let mut blocked = false;
        for (n, shield) in shields.iter_mut().enumerate() {
            let moment = if end { Moment::Finished } else { Moment::Fed { hold_back: shield.hold_back() } };
            let ruling = shield.feed(piece, end);
            blocked |= ruling.violation.is_some();
            gate.rule(n, ruling, moment).unwrap();
        }
        sent.extend(gate.release().into_iter().map(|p| p.text));
        if blocked {
            return (sent, true);
        }
    }
    (sent, false)
}

#[test]
fn a_blocked_word_never_leaves_whatever_the_split() {
    let text_in = "the pass word is sécret and more";
    for a in 0..=text_in.len() {
        for b in a..=text_in.len() {
            let mut shields = [Word::new("sécret", true), Word::new("xyz", false)];
            let (sent, blocked) = run(text_in, &[a, b], &mut shields);
            assert!(blocked);
            assert_eq!(sent, "the pass word is ", "split at {a} and {b}");
        }
    }
}

proptest! {
    /// The same text leaves however it was cut, and equals the mask over the whole text.
    #[test]
    fn masks_do_not_depend_on_the_pieces(
        text_in in "[abcé]{0,40}",
        cuts in prop::collection::vec(0usize..200, 0..20),
    ) {
        let mut shields = [Word::new("ab", false), Word::new("cé", false)];
        let (sent, blocked) = run(&text_in, &cuts, &mut shields);
        prop_assert!(!blocked);
        prop_assert_eq!(sent, text_in.replace("ab", "#").replace("cé", "#"));
    }

    /// With a blocking shield beside masking ones, nothing at or after the first forbidden word leaves.
    #[test]
    fn nothing_of_a_blocked_span_leaves(
        before in "[abc]{0,20}",
        after in "[abcX]{0,20}",
        cuts in prop::collection::vec(0usize..200, 0..20),
    ) {
        let text_in = format!("{before}XbX{after}");
        let mut shields = [Word::new("aab", false), Word::new("XbX", true), Word::new("c", false)];
        let (sent, blocked) = run(&text_in, &cuts, &mut shields);
        prop_assert!(blocked);
        prop_assert!(!sent.contains('X'), "{sent}");
        let whole = before.replace("aab", "#").replace('c', "#");
        prop_assert!(whole.starts_with(&sent), "{sent} of {whole}");
    }
}
