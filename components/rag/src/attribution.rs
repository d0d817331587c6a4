//! Which source a reply that cites nothing is made of: the one that holds most of its words.
//!
//! A share of words is no proof that the source supports the statement; it says where to look.

use std::collections::HashSet;

/// Fewest letters of a word that counts; digits always do.
const LETTERS: usize = 4;
/// Fewest words that tell sources apart.
const MIN_WORDS: usize = 3;
/// Least share of a reply's words that its source holds.
const LEAST: f64 = 0.5;

/// A source and how much of the reply it holds.
#[derive(Debug, PartialEq)]
pub struct Attribution {
    /// Counts sources from 0.
    pub place: usize,
    /// Of the reply's words, 0.5 to 1.0.
    pub share: f64,
}

/// `None` where no source holds half of the reply's words, or it has too few to tell.
pub fn best<'a>(reply: &str, sources: impl Iterator<Item = &'a str>) -> Option<Attribution> {
    let said = words(reply);
    if said.len() < MIN_WORDS {
        return None;
    }
    let share = |source: &str| said.intersection(&words(source)).count() as f64 / said.len() as f64;
    let shares = sources.enumerate().map(|(place, source)| Attribution { place, share: share(source) });
    // Of equals the first, which was found to be closer.
    let best = shares.reduce(|best, next| if next.share > best.share { next } else { best })?;
    (best.share >= LEAST).then_some(best)
}

fn words(text: &str) -> HashSet<String> {
    let words = text.split(|c: char| !c.is_alphanumeric());
    let counts = |w: &&str| w.chars().count() >= LETTERS || w.chars().any(|c| c.is_ascii_digit());
    words.filter(counts).map(str::to_lowercase).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_source_that_holds_most_words_is_named_and_none_that_holds_few() {
        let sources = ["The kettle boils within 90 seconds.", "The kettle costs 49 euros in every store."];
        let best = |reply: &str| best(reply, sources.into_iter()).map(|b| b.place);
        assert_eq!(best("The kettle costs 49 euros."), Some(1));
        assert_eq!(best("It boils in 90 seconds, this kettle."), Some(0));
        assert_eq!(best("Napoleon was born on the island of Corsica in 1769."), None);
        assert_eq!(best("Yes."), None);
        assert_eq!(super::best("The kettle costs 49 euros.", std::iter::empty()), None);
    }
}
