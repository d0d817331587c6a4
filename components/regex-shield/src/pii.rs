//! Built-in kinds of personal data. Each is a pattern for the shape and, where the data has one, a check of its digits.

use crate::pattern::{Accept, Action, Config, Pattern, Refused};
use std::net::Ipv4Addr;
use stockade_guest::prelude::Deserialize;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    Email,
    CreditCard,
    Iban,
    UsSsn,
    Ipv4,
    ApiKey,
    Phone,
}

/// Longest e-mail address in bytes (RFC 5321: 254 and a little).
const EMAIL_WINDOW: usize = 320;
/// Longest key that is masked whole, in bytes.
const KEY_WINDOW: usize = 512;

impl Kind {
    /// In order of precedence: a card number would also do as a phone number.
    pub const ALL: [Self; 7] =
        [Self::Email, Self::CreditCard, Self::Iban, Self::UsSsn, Self::Ipv4, Self::ApiKey, Self::Phone];

    pub fn pattern(self, action: Action) -> Result<Pattern, Refused> {
        let any: Accept = |_, _, end| Some(end);
        let (name, mask, called, window, regex, accept) = match self {
            Self::Email => (
                "pii.email",
                "[EMAIL]",
                "an e-mail address",
                EMAIL_WINDOW,
                r"\b[A-Za-z0-9._%+\-]+@[A-Za-z0-9\-]+(?:\.[A-Za-z0-9\-]+)*\.[A-Za-z]{2,}\b",
                any,
            ),
            Self::CreditCard => (
                "pii.credit-card",
                "[CREDIT CARD]",
                "a credit card number",
                32,
                r"\b(?:(?:[0-9]{4}[ \-]){3}[0-9]{4}|[0-9]{4}[ \-][0-9]{6}[ \-][0-9]{5}|[0-9]{13,19})\b",
                card as Accept,
            ),
            Self::Iban => (
                "pii.iban",
                "[IBAN]",
                "a bank account number",
                48,
                r"\b[A-Z]{2}[0-9]{2}(?: ?[A-Z0-9]{4}){2,7}(?: ?[A-Z0-9]{1,3})?\b",
                iban as Accept,
            ),
            Self::UsSsn => (
                "pii.us-ssn",
                "[SSN]",
                "a social security number",
                16,
                r"\b[0-9]{3}[ \-][0-9]{2}[ \-][0-9]{4}\b",
                ssn as Accept,
            ),
            Self::Ipv4 => {
                ("pii.ipv4", "[IP ADDRESS]", "an IP address", 16, r"\b[0-9]{1,3}(?:\.[0-9]{1,3}){3}\b", ipv4 as Accept)
            }
            Self::ApiKey => (
                "pii.api-key",
                "[API KEY]",
                "an API key",
                KEY_WINDOW,
                concat!(
                    r"\b(?:sk-[A-Za-z0-9_\-]{16,}|AKIA[0-9A-Z]{16}\b|gh[pousr]_[A-Za-z0-9]{30,}",
                    r"|github_pat_[A-Za-z0-9_]{22,}|glpat-[A-Za-z0-9_\-]{20,}|xox[abposr]-[A-Za-z0-9\-]{10,}",
                    r"|AIza[0-9A-Za-z_\-]{35}|hf_[A-Za-z0-9]{30,})",
                ),
                any,
            ),
            Self::Phone => (
                "pii.phone",
                "[PHONE]",
                "a phone number",
                40,
                r"(?:\+[0-9]{1,3}[ .\-]?)?(?:\([0-9]{1,4}\)[ .\-]?)?[0-9]{2,5}(?:[ .\-][0-9]{2,8}){0,5}\b",
                phone as Accept,
            ),
        };
        let config = Config {
            name: name.into(),
            regex: regex.into(),
            action,
            mask: Some(mask.into()),
            window,
            message: Some(format!("The text contains {called}.")),
        };
        Ok(Pattern::new(&config)?.accept(accept))
    }
}

fn digits(text: &[u8]) -> impl DoubleEndedIterator<Item = u32> {
    let digits = text.iter().filter(|b| b.is_ascii_digit());
    digits.map(|b| u32::from(b - b'0'))
}

/// Luhn's check, and a first digit that card networks use.
fn card(text: &[u8], start: usize, end: usize) -> Option<usize> {
    let sum = |(i, digit): (usize, u32)| match i % 2 {
        0 => digit,
        _ => digit * 2 / 10 + digit * 2 % 10,
    };
    let number = &text[start..end];
    let total: u32 = digits(number).rev().enumerate().map(sum).sum();
    (total.is_multiple_of(10) && (b'2'..=b'6').contains(&number[0])).then_some(end)
}

/// The remainder by 97 (ISO 13616). A last group that does not belong is left off.
fn iban(text: &[u8], start: usize, end: usize) -> Option<usize> {
    const SHORTEST: usize = 15;
    let valid = |end: usize| {
        let symbols: Vec<u8> = text[start..end].iter().copied().filter(|&b| b != b' ').collect();
        if symbols.len() < SHORTEST {
            return false;
        }
        let (head, tail) = symbols.split_at(4);
        let remainder = tail.iter().chain(head).fold(0u32, |r, &b| match b {
            b'0'..=b'9' => (r * 10 + u32::from(b - b'0')) % 97,
            _ => (r * 100 + u32::from(b - b'A') + 10) % 97,
        });
        remainder == 1
    };
    let spaces = (start..end).rev().filter(|&at| text[at] == b' ');
    std::iter::once(end).chain(spaces).find(|&end| valid(end))
}

/// Areas 000, 666 and from 900 on, group 00 and serial 0000 are never given out.
fn ssn(text: &[u8], start: usize, end: usize) -> Option<usize> {
    let number = &text[start..end];
    let never = number.starts_with(b"000")
        || number.starts_with(b"666")
        || number[0] == b'9'
        || &number[4..6] == b"00"
        || number.ends_with(b"0000")
        || number[3] != number[6];
    (!never).then_some(end)
}

fn ipv4(text: &[u8], start: usize, end: usize) -> Option<usize> {
    let address = std::str::from_utf8(&text[start..end]).ok()?;
    let part_of_more = start > 0 && text[start - 1] == b'.';
    (!part_of_more && address.parse::<Ipv4Addr>().is_ok()).then_some(end)
}

/// Tells phone numbers from other numbers: 10 to 15 digits (8 after a `+`), written as a phone number, no date, no
/// IP address.
fn phone(text: &[u8], start: usize, end: usize) -> Option<usize> {
    let number = &text[start..end];
    if start > 0 && (text[start - 1].is_ascii_alphanumeric() || b"_+.-".contains(&text[start - 1])) {
        return None;
    }
    let international = number[0] == b'+';
    let groups = number.split(|b| !b.is_ascii_digit()).filter(|g| !g.is_empty()).count();
    let count = digits(number).count();
    let least = if international { 8 } else { 10 };
    let written = international || number[0] == b'(' || groups > 1;
    (written && (least..=15).contains(&count) && ipv4(text, start, end).is_none()).then_some(end)
}
