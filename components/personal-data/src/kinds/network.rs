//! Addresses of machines.

use crate::reader::{Open, Reader, is_word};
use std::net::{Ipv4Addr, Ipv6Addr};

/// Four numbers up to 255. Not a part of a longer dotted number, nor what a version is called.
pub fn ipv4(reader: &mut Reader<'_>, _: &[String]) -> Result<Option<usize>, Open> {
    if reader.before().ends_with(b".") {
        return Ok(None);
    }
    for group in 0..4 {
        if group > 0 && !reader.literal(b".")? || reader.run(3, |b| b.is_ascii_digit())?.is_empty() {
            return Ok(None);
        }
    }
    let longer = reader.peek()? == Some(b'.') && reader.peek_second()?.is_some_and(|b| b.is_ascii_digit());
    let valid = parses::<Ipv4Addr>(reader.read());
    let version = reader.follows_word(&["version", "release", "section"]);
    Ok((valid && !version && !longer && reader.at_word_end()?).then_some(reader.at()))
}

/// Any spelling of RFC 4291, but for the address of nothing and of the machine itself.
pub fn ipv6(reader: &mut Reader<'_>, _: &[String]) -> Result<Option<usize>, Open> {
    if reader.before().ends_with(b":") {
        return Ok(None);
    }
    // Most words end here, before the first colon.
    let group = reader.run(5, |b| b.is_ascii_hexdigit())?;
    if group.len() > 4 || reader.peek()? != Some(b':') {
        return Ok(None);
    }
    reader.run(45, |b| b.is_ascii_hexdigit() || b == b':' || b == b'.')?;
    if reader.peek()?.is_some_and(is_word) {
        return Ok(None);
    }
    let mut read = reader.read();
    // The colon or full stop of the sentence.
    if read.ends_with(b".") || read.ends_with(b":") && !read.ends_with(b"::") {
        read = &read[..read.len() - 1];
    }
    let end = reader.at() - (reader.read().len() - read.len());
    // Words of hexadecimal letters with `::` between them are names of a program's parts, and `1::2` is a slice.
    let numbered = read.iter().any(u8::is_ascii_digit) && read.split(|&b| b == b':').any(|group| group.len() > 2);
    Ok((numbered && parses::<Ipv6Addr>(read)).then_some(end))
}

/// Six pairs of hexadecimal digits, all with `:` or all with `-` between them.
pub fn mac(reader: &mut Reader<'_>, _: &[String]) -> Result<Option<usize>, Open> {
    if let [.., b':' | b'-'] = reader.before() {
        return Ok(None);
    }
    let mut separator = None;
    for pair in 0..6 {
        if pair > 0 {
            let next = reader.next_if(|b| matches!(b, b':' | b'-') && separator.is_none_or(|s| s == b))?;
            if next.is_none() {
                return Ok(None);
            }
            separator = next;
        }
        if reader.run(2, |b| b.is_ascii_hexdigit())?.len() < 2 {
            return Ok(None);
        }
    }
    let longer = reader.peek()? == separator && reader.peek_second()?.is_some_and(|b| b.is_ascii_hexdigit());
    Ok((!longer && reader.at_word_end()?).then_some(reader.at()))
}

fn parses<T: std::str::FromStr>(text: &[u8]) -> bool {
    std::str::from_utf8(text).is_ok_and(|text| text.parse::<T>().is_ok())
}
