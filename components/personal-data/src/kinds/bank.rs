//! Card numbers (ISO/IEC 7812) and account numbers (ISO 13616).

use crate::reader::{Open, Reader, is_word};

/// Lengths of the account numbers of each country, its two letters included. Source: SWIFT's IBAN registry, release 99.
const IBAN_LENGTHS: &[(&[u8; 2], usize)] = &[
    (b"AD", 24),
    (b"AE", 23),
    (b"AL", 28),
    (b"AT", 20),
    (b"AZ", 28),
    (b"BA", 20),
    (b"BE", 16),
    (b"BG", 22),
    (b"BH", 22),
    (b"BI", 27),
    (b"BR", 29),
    (b"BY", 28),
    (b"CH", 21),
    (b"CR", 22),
    (b"CY", 28),
    (b"CZ", 24),
    (b"DE", 22),
    (b"DJ", 27),
    (b"DK", 18),
    (b"DO", 28),
    (b"EE", 20),
    (b"EG", 29),
    (b"ES", 24),
    (b"FI", 18),
    (b"FK", 18),
    (b"FO", 18),
    (b"FR", 27),
    (b"GB", 22),
    (b"GE", 22),
    (b"GI", 23),
    (b"GL", 18),
    (b"GR", 27),
    (b"GT", 28),
    (b"HN", 28),
    (b"HR", 21),
    (b"HU", 28),
    (b"IE", 22),
    (b"IL", 23),
    (b"IQ", 23),
    (b"IS", 26),
    (b"IT", 27),
    (b"JO", 30),
    (b"KW", 30),
    (b"KZ", 20),
    (b"LB", 28),
    (b"LC", 32),
    (b"LI", 21),
    (b"LT", 20),
    (b"LU", 20),
    (b"LV", 21),
    (b"LY", 25),
    (b"MC", 27),
    (b"MD", 24),
    (b"ME", 22),
    (b"MK", 19),
    (b"MN", 20),
    (b"MR", 27),
    (b"MT", 31),
    (b"MU", 30),
    (b"NI", 28),
    (b"NL", 18),
    (b"NO", 15),
    (b"OM", 23),
    (b"PK", 24),
    (b"PL", 28),
    (b"PS", 29),
    (b"PT", 25),
    (b"QA", 29),
    (b"RO", 24),
    (b"RS", 22),
    (b"RU", 33),
    (b"SA", 24),
    (b"SC", 31),
    (b"SD", 18),
    (b"SE", 24),
    (b"SI", 19),
    (b"SK", 24),
    (b"SM", 27),
    (b"SO", 23),
    (b"ST", 25),
    (b"SV", 28),
    (b"TL", 23),
    (b"TN", 24),
    (b"TR", 26),
    (b"UA", 29),
    (b"VA", 22),
    (b"VG", 24),
    (b"XK", 20),
    (b"YE", 30),
];

/// Digits in a row or in the groups that cards are printed in, of a network's prefix and length, with Luhn's check.
pub fn card(reader: &mut Reader<'_>, _: &[String]) -> Result<Option<usize>, Open> {
    if let [.., b'0'..=b'9', b'.' | b','] | [.., b'0'..=b'9', b'-'] = reader.before() {
        return Ok(None);
    }
    let mut digits: Vec<u8> = Vec::with_capacity(19);
    let mut groups: Vec<usize> = Vec::with_capacity(5);
    let mut separator = None;
    let mut end = None;
    loop {
        let group = reader.run(20, |b| b.is_ascii_digit())?;
        digits.extend(group.iter().map(|b| b - b'0'));
        groups.push(group.len());
        if group.is_empty() || digits.len() > 19 {
            break;
        }
        if !reader.peek()?.is_some_and(is_word) && printed(&groups) && network(&digits) && luhn(&digits) {
            end = Some(reader.at());
        }
        let next = reader.next_if(|b| matches!(b, b' ' | b'-') && separator.is_none_or(|s| s == b))?;
        if next.is_none() {
            break;
        }
        separator = next;
    }
    Ok(end)
}

/// Whether cards are printed in these groups.
fn printed(groups: &[usize]) -> bool {
    match groups {
        [_] | [4, 6, 5] | [4, 6, 4] => true,
        [head @ .., last] => head.len() <= 4 && head.iter().all(|&g| g == 4) && (3..=4).contains(last),
        [] => false,
    }
}

/// Prefixes and lengths that card networks give out.
fn network(digits: &[u8]) -> bool {
    let prefix = |length: usize| digits.iter().take(length).fold(0, |n, &d| n * 10 + u32::from(d));
    let length = digits.len();
    match prefix(4) {
        4000..=4999 => matches!(length, 16 | 19),
        3400..=3499 | 3700..=3799 => length == 15,
        3000..=3059 | 3600..=3699 | 3800..=3999 => matches!(length, 14 | 16),
        3528..=3589 => matches!(length, 16..=19),
        5100..=5599 | 2221..=2720 | 2200..=2204 => length == 16,
        6011 | 6440..=6599 | 6200..=6299 => matches!(length, 16..=19),
        5018 | 5020 | 5038 | 5893 | 6304 | 6759 | 6761..=6763 => matches!(length, 13..=19),
        _ => false,
    }
}

fn luhn(digits: &[u8]) -> bool {
    let sum = |(i, &digit): (usize, &u8)| match i % 2 {
        0 => u32::from(digit),
        _ => u32::from(digit * 2 / 10 + digit * 2 % 10),
    };
    let total: u32 = digits.iter().rev().enumerate().map(sum).sum();
    total.is_multiple_of(10)
}

/// As many letters and digits as the country's numbers have, in a row or in fours, with remainder 1 by 97.
pub fn iban(reader: &mut Reader<'_>, _: &[String]) -> Result<Option<usize>, Open> {
    let country = reader.run(2, |b| b.is_ascii_alphabetic())?.to_ascii_uppercase();
    let known = IBAN_LENGTHS.iter().find(|(code, _)| code.as_slice() == country);
    let Some(&(_, length)) = known else { return Ok(None) };
    let mut symbols = country;
    let mut spaced = None;
    while symbols.len() < length {
        let count = symbols.len();
        if count % 4 == 0 && spaced != Some(false) {
            let blank = reader.literal(b" ")?;
            if *spaced.get_or_insert(blank) && !blank {
                return Ok(None);
            }
        }
        let belongs = |b: u8| if count < 4 { b.is_ascii_digit() } else { b.is_ascii_alphanumeric() };
        let Some(symbol) = reader.next_if(belongs)? else { return Ok(None) };
        symbols.push(symbol.to_ascii_uppercase());
    }
    let (head, tail) = symbols.split_at(4);
    let remainder = tail.iter().chain(head).fold(0u32, |r, &b| match b {
        b'0'..=b'9' => (r * 10 + u32::from(b - b'0')) % 97,
        _ => (r * 100 + u32::from(b - b'A') + 10) % 97,
    });
    Ok((remainder == 1 && reader.at_word_end()?).then_some(reader.at()))
}
