//! Texts compared by their words, and the last number of a text.

use std::collections::BTreeMap;

/// Words that are compared; longer texts are compared by their beginning.
const MAX_WORDS: usize = 10_000;
/// Digits, signs and marks of a number.
const MAX_NUMBER_BYTES: usize = 64;

/// Words in small letters, without marks and articles.
///
/// Source: `normalize_answer` of Rajpurkar et al. 2016, "SQuAD", arXiv:1606.05250, which knows the marks of ASCII alone.
pub fn words(text: &str) -> Vec<String> {
    let word = |w: &str| w.chars().filter(|c| c.is_alphanumeric()).flat_map(char::to_lowercase).collect::<String>();
    let all = text.split_whitespace().map(word);
    all.filter(|w| !w.is_empty() && !["a", "an", "the"].contains(&w.as_str())).take(MAX_WORDS).collect()
}

/// Whether `wanted` stands in `given`, word after word. Nothing is in every text.
pub fn contains(given: &[String], wanted: &[String]) -> bool {
    wanted.is_empty() || given.windows(wanted.len()).any(|window| window == wanted)
}

/// Of the words that both share, each as often as in both. Two texts without words are the same.
pub fn f1(given: &[String], wanted: &[String]) -> f64 {
    if given.is_empty() || wanted.is_empty() {
        return if given.len() == wanted.len() { 1.0 } else { 0.0 };
    }
    let mut left: BTreeMap<&str, usize> = BTreeMap::new();
    wanted.iter().for_each(|word| *left.entry(word).or_default() += 1);
    let mut shared = 0.0;
    for word in given {
        if let Some(left) = left.get_mut(word.as_str()).filter(|left| **left > 0) {
            *left -= 1;
            shared += 1.0;
        }
    }
    2.0 * shared / (given.len() + wanted.len()) as f64
}

/// The last number that is written in digits: `-3`, `1,234.5`, `6e3`; digits inside a word are none.
pub fn last_number(text: &str) -> Option<f64> {
    let number = |token: &str| {
        let token = token.trim_start_matches(|c: char| !c.is_alphanumeric() && !matches!(c, '-' | '+' | '.'));
        let token = token.trim_end_matches(|c: char| !c.is_ascii_digit());
        let plain = token.replace(',', "");
        let fits = plain.len() <= MAX_NUMBER_BYTES && plain.bytes().any(|b| b.is_ascii_digit());
        plain.parse::<f64>().ok().filter(|value| fits && value.is_finite())
    };
    text.split(|c: char| c.is_whitespace() || matches!(c, '=' | '(' | ')' | '*' | '/' | '~' | '$' | '`'))
        .rev()
        .find_map(number)
}
