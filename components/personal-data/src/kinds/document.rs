//! Numbers that a state gives to people. Their shapes say little: all but a hyphenated SSN need a word before them.

use crate::reader::{Open, Reader, is_word};

pub const SSN_WORDS: &[&str] = &["ssn", "social security", "social security number"];
pub const PASSPORT_WORDS: &[&str] = &["passport", "passport no", "passport number"];
pub const DRIVER_WORDS: &[&str] = &[
    "driver's license",
    "driver's licence",
    "drivers license",
    "drivers licence",
    "driver license",
    "driver licence",
    "driver’s license",
    "driver’s licence",
    "driving licence",
    "driving license",
    "dl no",
    "dl number",
    "dl#",
];

/// `123-45-6789`; with blanks or in a row where the context says what it is.
pub fn us_ssn(reader: &mut Reader<'_>, context: &[String]) -> Result<Option<usize>, Open> {
    if let [.., b'-' | b'.' | b'+'] = reader.before() {
        return Ok(None);
    }
    let digit = |b: u8| b.is_ascii_digit();
    let area = reader.run(3, digit)?;
    let separator = reader.next_if(|b| matches!(b, b'-' | b' '))?;
    let group = reader.run(2, digit)?;
    if reader.next_if(|b| Some(b) == separator)? != separator {
        return Ok(None);
    }
    let serial = reader.run(4, digit)?;
    if (area.len(), group.len(), serial.len()) != (3, 2, 4) || goes_on(reader)? {
        return Ok(None);
    }
    // Areas 000, 666 and from 900 on, group 00 and serial 0000 are never given out.
    let given_out = area != b"000" && area != b"666" && area[0] != b'9' && group != b"00" && serial != b"0000";
    let told = separator == Some(b'-') || reader.follows_word(context);
    Ok((given_out && told).then_some(reader.at()))
}

/// Six to nine capitals and digits behind the word.
pub fn passport(reader: &mut Reader<'_>, context: &[String]) -> Result<Option<usize>, Open> {
    let number = reader.run(10, |b| b.is_ascii_digit() || b.is_ascii_uppercase())?;
    let digits = number.iter().filter(|b| b.is_ascii_digit()).count();
    let shaped = (6..=9).contains(&number.len()) && digits >= 5;
    Ok((shaped && !goes_on(reader)? && reader.follows_word(context)).then_some(reader.at()))
}

/// Five to twenty capitals, digits and hyphens behind the words.
pub fn driver_licence(reader: &mut Reader<'_>, context: &[String]) -> Result<Option<usize>, Open> {
    let number = reader.run(21, |b| b.is_ascii_digit() || b.is_ascii_uppercase() || b == b'-')?;
    let digits = number.iter().filter(|b| b.is_ascii_digit()).count();
    let shaped = (5..=20).contains(&number.len()) && digits >= 4 && !number.ends_with(b"-");
    Ok((shaped && reader.at_word_end()? && reader.follows_word(context)).then_some(reader.at()))
}

/// Whether the number is a part of a longer one.
fn goes_on(reader: &Reader<'_>) -> Result<bool, Open> {
    Ok(match reader.peek()? {
        Some(b'-' | b'.') => reader.peek_second()?.is_some_and(|b| b.is_ascii_digit()),
        next => next.is_some_and(is_word),
    })
}
