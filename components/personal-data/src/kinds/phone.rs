//! Phone numbers: E.164 with its `+`, the common national forms, and any other digits behind a word for phones.

use crate::reader::{Open, Reader, is_word};

pub const WORDS: &[&str] = &[
    "phone",
    "telephone",
    "tel",
    "mobile",
    "cell",
    "cellphone",
    "call",
    "fax",
    "whatsapp",
    "sms",
    "hotline",
    "dial",
    "phone number",
    "telefon",
    "handy",
];

/// Most groups of digits.
const MAX_GROUPS: usize = 8;
/// ITU-T E.164, digits of the country's code included.
const MOST_DIGITS: usize = 15;

struct Group<'a> {
    digits: &'a [u8],
    /// What stands between it and the group before; `(` for a group in brackets.
    separator: u8,
}

pub fn number(reader: &mut Reader<'_>, context: &[String]) -> Result<Option<usize>, Open> {
    if let [.., b'+' | b'.' | b'-' | b'$' | b'/' | b',' | b'#' | b':'] = reader.before()
        && !reader.before().ends_with(b"tel:")
    {
        return Ok(None);
    }
    // Digits and a blank before: the number would be the end of a longer one that is none.
    let tail = matches!(reader.before(), [.., b'0'..=b'9', b' ']);
    let plus = reader.literal(b"+")?;
    let mut groups: Vec<Group<'_>> = Vec::with_capacity(MAX_GROUPS);
    let mut end = None;
    let mut separator = 0;
    let mut total = 0;
    while groups.len() < MAX_GROUPS {
        let bracket = reader.literal(b"(")?;
        let digits = reader.run(MOST_DIGITS + 1, |b| b.is_ascii_digit())?;
        let closed = !bracket || reader.literal(b")")?;
        total += digits.len();
        if digits.is_empty() || !closed || total > MOST_DIGITS + 2 {
            break;
        }
        groups.push(Group { digits, separator: if bracket { b'(' } else { separator } });
        if !goes_on(reader)? && valid(plus, tail, &groups, || reader.follows_word(context)) {
            end = Some(reader.at());
        }
        separator = match reader.next_if(|b| b" .-/".contains(&b))? {
            Some(b' ') if reader.literal(b"- ")? || reader.literal(b"/ ")? => b'-',
            Some(separator) => separator,
            None if reader.peek()? == Some(b'(') || bracket => b'(',
            None => break,
        };
    }
    Ok(end)
}

/// Whether what was read is a part of a longer number or word.
fn goes_on(reader: &Reader<'_>) -> Result<bool, Open> {
    Ok(match reader.peek()? {
        Some(b'.' | b'-' | b'/' | b',' | b':') => reader.peek_second()?.is_some_and(|b| b.is_ascii_digit()),
        Some(b'%' | b'(') => true,
        next => next.is_some_and(is_word),
    })
}

fn valid(plus: bool, tail: bool, groups: &[Group<'_>], context: impl Fn() -> bool) -> bool {
    let lengths: Vec<usize> = groups.iter().map(|g| g.digits.len()).collect();
    let total: usize = lengths.iter().sum();
    let first = groups[0].digits;
    if plus {
        return international(first, groups, total);
    }
    if first.starts_with(b"00") && !tail && groups.len() > 1 && (10..=MOST_DIGITS + 2).contains(&total) {
        return first.get(2).is_none_or(|&b| b != b'0') && lengths[0] <= 5;
    }
    if date(&lengths, groups) {
        return false;
    }
    let told = |groups: &[Group<'_>]| {
        let quotient = groups.iter().any(|g| g.separator == b'/');
        (7..=MOST_DIGITS).contains(&total) && !sum(groups) && !quotient && context()
    };
    north_american(groups) || !tail && trunk(groups, &lengths, total) || told(groups)
}

/// A country's code, and 8 to 15 digits together.
fn international(first: &[u8], groups: &[Group<'_>], total: usize) -> bool {
    match first {
        [b'1', rest @ ..] if total == 11 => rest.first().or(groups.get(1).and_then(|g| g.digits.first())) > Some(&b'1'),
        [b'0' | b'1', ..] => false,
        _ => (8..=MOST_DIGITS).contains(&total),
    }
}

/// `(415) 555-2671`, `415-555-2671`, `1 415 555 2671`: area and exchange begin with 2 to 9, and something stands between.
fn north_american(groups: &[Group<'_>]) -> bool {
    let groups = match groups {
        [Group { digits: [b'1'], .. }, rest @ ..] => rest,
        all => all,
    };
    match groups {
        [area, exchange, line] => {
            (area.digits.len(), exchange.digits.len(), line.digits.len()) == (3, 3, 4)
                && area.digits[0] >= b'2'
                && exchange.digits[0] >= b'2'
                // Hundreds and thousands in a row are a list of sums.
                && !(area.digits.ends_with(b"00") && exchange.digits.ends_with(b"00"))
        }
        _ => false,
    }
}

/// National numbers with their trunk prefix 0: `030 1234567`, `020 7946 0958`, `06 12 34 56 78`, `(02) 9374 4000`.
fn trunk(groups: &[Group<'_>], lengths: &[usize], total: usize) -> bool {
    let written = groups[0].digits[0] == b'0' && groups[0].digits.get(1).is_some_and(|&b| b != b'0');
    written && (9..=12).contains(&total) && (2..=5).contains(&groups.len()) && lengths[0] <= 5 && !sum(groups)
}

/// Groups as dates have them.
fn date(lengths: &[usize], groups: &[Group<'_>]) -> bool {
    let dated = |at: usize| groups.get(at).is_some_and(|g| matches!(g.separator, b'.' | b'-' | b'/' | b' '));
    matches!(lengths, [2, 2, 4, ..] | [4, 2, 2, ..] | [1..=2, 1..=2, 4]) && dated(1) && dated(2)
}

/// Whether the number is a decimal one: two groups with a full stop between.
fn sum(groups: &[Group<'_>]) -> bool {
    groups.len() == 2 && groups[1].separator == b'.'
}
