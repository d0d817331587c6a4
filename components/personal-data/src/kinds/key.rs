//! Secrets of programs: keys with a provider's prefix, values that are called a secret, private keys in PEM.

use crate::reader::{Open, Reader};

/// Longest key that is recognised, in bytes: a JSON Web Token with many claims.
pub const WINDOW: usize = 4096;
/// Longest private key in bytes: RSA with 8192 bits has 6.4 KiB.
pub const PEM_WINDOW: usize = 8192;

pub const SECRET_WORDS: &[&str] = &[
    "secret",
    "token",
    "password",
    "passwd",
    "pwd",
    "api key",
    "api_key",
    "apikey",
    "api-key",
    "access key",
    "access_key",
    "secret_key",
    "secret key",
    "client_secret",
    "auth_token",
    "access_token",
    "bearer",
    "secret_access_key",
];

struct Provider {
    prefix: &'static [u8],
    /// Bytes behind the prefix.
    least: usize,
    most: usize,
    alphabet: fn(u8) -> bool,
}

const fn provider(prefix: &'static [u8], least: usize, most: usize, alphabet: fn(u8) -> bool) -> Provider {
    Provider { prefix, least, most, alphabet }
}
fn url_safe(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_'
}
fn capital(byte: u8) -> bool {
    byte.is_ascii_uppercase() || byte.is_ascii_digit()
}
fn plain(byte: u8) -> bool {
    byte.is_ascii_alphanumeric()
}
fn word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_'
}
fn dashed(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'-'
}
fn dotted(byte: u8) -> bool {
    url_safe(byte) || byte == b'.'
}
fn hexadecimal(byte: u8) -> bool {
    byte.is_ascii_hexdigit()
}

/// Prefixes by which providers make their keys easy to find.
const PROVIDERS: &[Provider] = &[
    provider(b"sk-", 16, 256, url_safe),
    provider(b"AKIA", 16, 16, capital),
    provider(b"ASIA", 16, 16, capital),
    provider(b"ghp_", 30, 255, plain),
    provider(b"gho_", 30, 255, plain),
    provider(b"ghu_", 30, 255, plain),
    provider(b"ghs_", 30, 255, plain),
    provider(b"ghr_", 30, 255, plain),
    provider(b"github_pat_", 22, 255, word),
    provider(b"glpat-", 20, 64, url_safe),
    provider(b"xoxa-", 10, 255, dashed),
    provider(b"xoxb-", 10, 255, dashed),
    provider(b"xoxo-", 10, 255, dashed),
    provider(b"xoxp-", 10, 255, dashed),
    provider(b"xoxr-", 10, 255, dashed),
    provider(b"xoxs-", 10, 255, dashed),
    provider(b"AIza", 35, 35, url_safe),
    provider(b"ya29.", 30, 255, url_safe),
    provider(b"hf_", 30, 64, plain),
    provider(b"sk_live_", 16, 128, plain),
    provider(b"sk_test_", 16, 128, plain),
    provider(b"rk_live_", 16, 128, plain),
    provider(b"npm_", 36, 36, plain),
    provider(b"pypi-", 50, 255, url_safe),
    provider(b"SG.", 40, 96, dotted),
    provider(b"dop_v1_", 64, 64, hexadecimal),
    provider(b"shpat_", 32, 32, hexadecimal),
    provider(b"eyJ", 40, WINDOW - 4, dotted),
];

/// A provider's key, or the value of something that is called a secret.
pub fn api_key(reader: &mut Reader<'_>, context: &[String]) -> Result<Option<usize>, Open> {
    let Some(first) = reader.peek()? else { return Ok(None) };
    for provider in PROVIDERS.iter().filter(|p| p.prefix[0] == first) {
        let mut key = reader.clone();
        // The middle of something longer that was no key from its start on.
        let inside = reader.before().last().is_some_and(|&b| b".-".contains(&b) && (provider.alphabet)(b));
        if inside || !key.literal(provider.prefix)? {
            continue;
        }
        let body = key.run(provider.most, provider.alphabet)?;
        // A JSON Web Token is three parts with full stops between; other keys have a digit, words with hyphens do not.
        let token = provider.prefix != b"eyJ" || body.split(|&b| b == b'.').filter(|p| p.len() >= 8).count() >= 3;
        let dots = body.iter().rev().take_while(|&&b| b == b'.').count();
        if body.len() - dots >= provider.least && body.iter().any(u8::is_ascii_digit) && token && key.at_word_end()? {
            return Ok(Some(key.at() - dots));
        }
    }
    assigned(reader, context)
}

/// `secret_key = "..."`: at least 16 letters and digits behind a word for secrets and a sign of assignment.
fn assigned(reader: &mut Reader<'_>, context: &[String]) -> Result<Option<usize>, Open> {
    let assigns = |text: &[u8]| {
        let name = text.trim_ascii_end();
        let name = name.strip_suffix(b"\"").or(name.strip_suffix(b"'")).unwrap_or(name);
        let name = name.strip_suffix(b"\\").unwrap_or(name).trim_ascii_end();
        matches!(name.last(), Some(b'=' | b':')) || name.to_ascii_lowercase().ends_with(b"bearer")
    };
    if !assigns(reader.before()) {
        return Ok(None);
    }
    let value = reader.run(512, |b| b.is_ascii_alphanumeric() || b"+/_-".contains(&b))?;
    // What base64 pads with.
    reader.run(2, |b| b == b'=')?;
    let mixed = value.iter().any(u8::is_ascii_digit) && value.iter().any(u8::is_ascii_alphabetic);
    let ends = reader.peek()?.is_none_or(|b| b.is_ascii_whitespace() || b"\"'`,;)]}<&\\.".contains(&b));
    Ok((value.len() >= 16 && mixed && ends && reader.follows_word(context)).then_some(reader.at()))
}

/// From `-----BEGIN ... PRIVATE KEY-----` to its end line; without one as far as lines of base64 go.
pub fn private_key(reader: &mut Reader<'_>, _: &[String]) -> Result<Option<usize>, Open> {
    if !reader.literal(b"-----BEGIN ")? {
        return Ok(None);
    }
    let sort = reader.run(40, |b| b.is_ascii_uppercase() || b.is_ascii_digit() || b == b' ')?;
    if !sort.ends_with(b"PRIVATE KEY") && !sort.ends_with(b"PRIVATE KEY BLOCK") || !reader.literal(b"-----")? {
        return Ok(None);
    }
    // Where the body could end, should no end line come.
    let mut body_end = reader.at();
    loop {
        if reader.literal(b"-----END ")? {
            reader.run(40, |b| b.is_ascii_uppercase() || b.is_ascii_digit() || b == b' ')?;
            reader.literal(b"-----")?;
            return Ok(Some(reader.at()));
        }
        if reader.literal(b"-----BEGIN ")? {
            return Ok(Some(body_end));
        }
        let line = reader.run(PEM_WINDOW, |b| b.is_ascii_alphanumeric() || b"+/=".contains(&b))?;
        if line.len() >= 16 {
            body_end = reader.at();
        }
        // Line feeds, those of escaped text too, and headers such as `Proc-Type: 4,ENCRYPTED`.
        if line.is_empty() && reader.next_if(|b| b == b'_' || b" \t\r\n\\:,-.".contains(&b))?.is_none() {
            return Ok(Some(body_end));
        }
    }
}
