//! E-mail addresses, and names with passwords in URLs.

use crate::reader::{Open, Reader, is_word};

/// Longest address in bytes: RFC 5321 allows 64 before and 255 behind the `@`.
pub const EMAIL_WINDOW: usize = 330;
pub const URL_WINDOW: usize = 260;
/// Longest name and longest password, in bytes.
const CREDENTIAL: usize = 128;
const LONGEST_TOP_LEVEL: usize = 24;

pub fn local(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"._%+-".contains(&byte)
}

/// A local part, `@`, and a domain of at least two labels, the last of letters.
pub fn email(reader: &mut Reader<'_>, _: &[String]) -> Result<Option<usize>, Open> {
    let local = reader.run(64, local)?;
    if b".%+-".contains(&local[0]) || local.ends_with(b".") || !reader.literal(b"@")? {
        return Ok(None);
    }
    let mut end = None;
    for labels in 1.. {
        let label = reader.run(63, |b| b.is_ascii_alphanumeric() || b == b'-')?;
        let top_level = (2..=LONGEST_TOP_LEVEL).contains(&label.len()) && label.iter().all(u8::is_ascii_alphabetic);
        if labels > 1 && top_level && reader.at_word_end()? {
            end = Some(reader.at());
        }
        if label.is_empty() || label.starts_with(b"-") || !reader.literal(b".")? {
            break;
        }
    }
    Ok(end)
}

/// `NAME:PASSWORD` between `://` and `@`.
pub fn url_credentials(reader: &mut Reader<'_>, _: &[String]) -> Result<Option<usize>, Open> {
    if !reader.before().ends_with(b"://") {
        return Ok(None);
    }
    let plain = |b: u8| b.is_ascii_graphic() && !b"/:@?#\"'<>".contains(&b);
    reader.run(CREDENTIAL, plain)?;
    if !reader.literal(b":")? {
        return Ok(None);
    }
    // A password may hold an `@` or a `:` that somebody forgot to escape: the last `@` before the path counts.
    let mut end = None;
    let from = reader.at();
    while reader.at() - from < CREDENTIAL {
        match reader.peek()? {
            Some(b'@') if reader.at() > from => {
                end = Some(reader.at());
                reader.literal(b"@")?;
            }
            Some(byte) if plain(byte) || byte == b':' => {
                reader.next_if(|_| true)?;
            }
            _ => break,
        }
    }
    Ok(end.filter(|_| reader.peek().is_ok_and(|next| next.is_none_or(|b| !is_word(b)))))
}
