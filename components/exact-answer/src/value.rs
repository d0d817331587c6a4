//! Answers compared: as numbers where both are, else word by word.

/// An answer in the forms that are compared.
#[derive(Debug, Clone, PartialEq)]
pub struct Value {
    number: Option<f64>,
    words: Vec<String>,
}

impl Value {
    pub fn new(text: &str) -> Self {
        let text = without_sums(text);
        let text = text.trim().trim_matches(['*', '`', '"', '$']).trim();
        Self { number: alone(text), words: words(text) }
    }

    pub fn number(&self) -> Option<f64> {
        self.number
    }

    /// `tolerance` is relative to the larger of two numbers.
    pub fn equals(&self, given: &Self, tolerance: f64) -> bool {
        match (self.number, given.number) {
            (Some(a), Some(b)) => (a - b).abs() <= tolerance * a.abs().max(b.abs()),
            (Some(_), None) | (None, Some(_)) => false,
            (None, None) => !self.words.is_empty() && self.words == given.words,
        }
    }
}

/// Leaves the sums out that GSM8K's solutions carry for a calculator: `<<8+1=9>>9` is `9`.
fn without_sums(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("<<") {
        let Some((_, after)) = after.split_once(">>") else { break };
        out.push_str(before);
        rest = after;
    }
    out + rest
}

/// The number of a text that holds exactly one: units and currency signs stand beside it.
fn alone(text: &str) -> Option<f64> {
    let mut found = numbers(text);
    let first = found.next()?;
    found.next().is_none().then(|| parse(first)).flatten()
}

/// Words in small letters, without marks; articles tell nothing.
fn words(text: &str) -> Vec<String> {
    let word = |w: &str| w.chars().filter(|c| c.is_alphanumeric()).flat_map(char::to_lowercase).collect::<String>();
    let all = text.split(|c: char| c.is_whitespace() || c == '-' || c == '/').map(word);
    all.filter(|w| !w.is_empty() && !["a", "an", "the"].contains(&w.as_str())).collect()
}

/// The numbers of a text as they are written: `-3`, `1,234.5`, `2/3`, `6e3`. A digit inside of a word begins none.
pub fn numbers(text: &str) -> impl Iterator<Item = &str> {
    let mut at = 0;
    std::iter::from_fn(move || {
        let bytes = text.as_bytes();
        while at < bytes.len() {
            let digit =
                bytes[at].is_ascii_digit() || bytes[at] == b'.' && bytes.get(at + 1).is_some_and(u8::is_ascii_digit);
            let in_word =
                at > 0 && (bytes[at - 1].is_ascii_alphanumeric() || bytes[at - 1] == b'_' || bytes[at - 1] >= 0x80);
            if digit && !in_word {
                let begin = sign(bytes, at);
                at = end(bytes, at);
                return Some(&text[begin..at]);
            }
            at += 1;
        }
        None
    })
}

/// Where a number begins whose first digit is at `at`: at its sign, unless that takes something away.
fn sign(bytes: &[u8], at: usize) -> usize {
    let Some(b'-') = at.checked_sub(1).map(|i| bytes[i]) else { return at };
    let operand = |b: u8| b.is_ascii_alphanumeric() || b == b')';
    let takes_away = at >= 2 && operand(bytes[at - 2]);
    if takes_away { at } else { at - 1 }
}

/// One past the number's last byte.
fn end(bytes: &[u8], mut at: usize) -> usize {
    let digit = |i: usize| bytes.get(i).is_some_and(u8::is_ascii_digit);
    let digits = |mut i: usize| {
        while digit(i) {
            i += 1;
        }
        i
    };
    at = digits(at);
    // Thousands: exactly three digits after each comma.
    while bytes.get(at) == Some(&b',') && digits(at + 1) == at + 4 {
        at += 4;
    }
    if bytes.get(at) == Some(&b'.') && digit(at + 1) {
        at = digits(at + 1);
    }
    if matches!(bytes.get(at), Some(b'e' | b'E')) {
        let signed = at + 1 + usize::from(matches!(bytes.get(at + 1), Some(b'-' | b'+')));
        if digit(signed) {
            at = digits(signed);
        }
    }
    if bytes.get(at) == Some(&b'/') && digit(at + 1) {
        at = digits(at + 1);
    }
    at
}

fn parse(text: &str) -> Option<f64> {
    let plain = text.replace(',', "");
    let number = match plain.split_once('/') {
        Some((above, below)) => above.parse::<f64>().ok()? / below.parse::<f64>().ok()?,
        None => plain.parse().ok()?,
    };
    number.is_finite().then_some(number)
}
