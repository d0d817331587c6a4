//! Dates of birth: a date behind a word that says so.

use crate::reader::{Open, Reader};

pub const WORDS: &[&str] =
    &["born", "birth", "date of birth", "birthdate", "birthday", "dob", "d.o.b", "geboren", "geburtsdatum"];

const MONTHS: [&str; 12] = [
    "january",
    "february",
    "march",
    "april",
    "may",
    "june",
    "july",
    "august",
    "september",
    "october",
    "november",
    "december",
];

/// `1985-03-12`, `12/03/1985`, `12.3.85`, `12 March 1985`, `March 12th, 1985`.
pub fn of_birth(reader: &mut Reader<'_>, context: &[String]) -> Result<Option<usize>, Open> {
    let date = match reader.peek()? {
        Some(b'0'..=b'9') => match number(reader, 4)? {
            Some((year, 4)) => year_first(reader, year)?,
            Some((first, _)) => day_or_month_first(reader, first)?,
            None => false,
        },
        _ => month_first(reader)?,
    };
    Ok((date && reader.at_word_end()? && reader.follows_word(context)).then_some(reader.at()))
}

fn year_first(reader: &mut Reader<'_>, year: u32) -> Result<bool, Open> {
    let Some(separator) = reader.next_if(|b| b"-/.".contains(&b))? else { return Ok(false) };
    let Some((month, _)) = number(reader, 2)? else { return Ok(false) };
    if !reader.literal(&[separator])? {
        return Ok(false);
    }
    let day = number(reader, 2)?;
    Ok(possible(year) && (1..=12).contains(&month) && day.is_some_and(|(day, _)| (1..=31).contains(&day)))
}

fn day_or_month_first(reader: &mut Reader<'_>, first: u32) -> Result<bool, Open> {
    if let Some(separator) = reader.next_if(|b| b"-/.".contains(&b))? {
        let spaced = reader.literal(b" ")?;
        if let Some((second, _)) = number(reader, 2)? {
            let between = reader.literal(&[separator])? && (!spaced || reader.literal(b" ")?);
            let year = if between { number(reader, 4)? } else { None };
            let in_range = (1..=31).contains(&first) && (1..=31).contains(&second) && first.min(second) <= 12;
            return Ok(in_range && year.is_some_and(|(year, digits)| digits == 2 || possible(year)));
        }
        // `12. March 1985` has read its full stop and blank.
    } else {
        ordinal(reader)?;
        reader.run(1, |b| b == b' ')?;
    }
    reader.literal(b"of ")?;
    let month = month(reader)?;
    reader.run(2, |b| b" ,".contains(&b))?;
    let year = number(reader, 4)?;
    Ok((1..=31).contains(&first) && month && year.is_some_and(|(year, _)| possible(year)))
}

fn month_first(reader: &mut Reader<'_>) -> Result<bool, Open> {
    if !month(reader)? || reader.run(1, |b| b == b' ')?.is_empty() {
        return Ok(false);
    }
    let Some((day, _)) = number(reader, 2)? else { return Ok(false) };
    ordinal(reader)?;
    if reader.run(2, |b| b" ,".contains(&b))?.is_empty() {
        return Ok(false);
    }
    let year = number(reader, 4)?;
    Ok((1..=31).contains(&day) && year.is_some_and(|(year, _)| possible(year)))
}

fn ordinal(reader: &mut Reader<'_>) -> Result<(), Open> {
    for ending in [b"st", b"nd", b"rd", b"th"] {
        if reader.literal(ending)? {
            break;
        }
    }
    Ok(())
}

/// A month's name, whole or its first three letters with or without a full stop.
fn month(reader: &mut Reader<'_>) -> Result<bool, Open> {
    let name = reader.run(9, |b| b.is_ascii_alphabetic())?.to_ascii_lowercase();
    let known = MONTHS.iter().any(|m| m.as_bytes() == name || name.len() >= 3 && name == m.as_bytes()[..3]);
    if known && name.len() == 3 {
        reader.run(1, |b| b == b'.')?;
    }
    Ok(known)
}

/// A number and how many digits it has, at most `most`; `None` without one or with more.
fn number(reader: &mut Reader<'_>, most: usize) -> Result<Option<(u32, usize)>, Open> {
    let digits = reader.run(most + 1, |b| b.is_ascii_digit())?;
    let value = digits.iter().fold(0, |n, b| n * 10 + u32::from(b - b'0'));
    Ok(((1..=most).contains(&digits.len())).then_some((value, digits.len())))
}

/// Whether somebody alive may be born in the year.
fn possible(year: u32) -> bool {
    (1900..=2099).contains(&year)
}
