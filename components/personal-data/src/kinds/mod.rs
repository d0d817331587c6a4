//! The kinds of personal data, a file for each family.

mod address;
mod bank;
mod date;
mod document;
mod key;
mod network;
mod phone;
mod wallet;

use crate::reader::{Open, Reader};
use crate::scan::{At, Matcher};
use stockade_guest::prelude::{Deserialize, Serialize, Violation, json};

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    PrivateKey,
    ApiKey,
    UrlCredentials,
    Email,
    CreditCard,
    Iban,
    CryptoAddress,
    UsSsn,
    Mac,
    Ipv6,
    Ipv4,
    DateOfBirth,
    Passport,
    DriverLicence,
    Phone,
}

/// Recognises a kind: `Some(end)` where it begins at the reader's start.
type Recognise = fn(&mut Reader<'_>, &[String]) -> Result<Option<usize>, Open>;

/// What is to know of a kind.
struct Facts {
    name: &'static str,
    label: &'static str,
    /// For the end user: `The text contains ...`.
    called: &'static str,
    window: usize,
    begins: fn(u8) -> bool,
    recognise: Recognise,
    /// Words of which one has to stand before, in lower case; see [`Kind::context`].
    context: &'static [&'static str],
}

const fn digit(byte: u8) -> bool {
    byte.is_ascii_digit()
}
const fn letter(byte: u8) -> bool {
    byte.is_ascii_alphabetic()
}
const fn alphanumeric(byte: u8) -> bool {
    byte.is_ascii_alphanumeric()
}

impl Kind {
    /// In order of precedence: a card number would also do as a phone number.
    pub const ALL: [Self; 15] = [
        Self::PrivateKey,
        Self::ApiKey,
        Self::UrlCredentials,
        Self::Email,
        Self::CreditCard,
        Self::Iban,
        Self::CryptoAddress,
        Self::UsSsn,
        Self::Mac,
        Self::Ipv6,
        Self::Ipv4,
        Self::DateOfBirth,
        Self::Passport,
        Self::DriverLicence,
        Self::Phone,
    ];

    /// As configurations and violations spell it.
    pub fn name(self) -> &'static str {
        self.facts().name
    }

    /// What a mask calls it, without brackets.
    pub fn label(self) -> &'static str {
        self.facts().label
    }

    /// For the end user, with its article.
    pub fn called(self) -> &'static str {
        self.facts().called
    }

    /// Words that show what a number is where its shape does not; for some shapes of a kind one of them has to stand
    /// before. Empty: shape and check digits decide alone.
    pub fn context(self) -> &'static [&'static str] {
        self.facts().context
    }

    /// That a text has one. What was found is not in it.
    pub fn violation(self) -> Violation {
        let message = format!("The text contains {}.", self.called());
        Violation::new(format!("pii.{}", self.name()), message).with_metadata(&json!({ "kind": self.name() }))
    }

    fn facts(self) -> Facts {
        match self {
            Self::PrivateKey => Facts {
                name: "private-key",
                label: "PRIVATE KEY",
                called: "a private key",
                window: key::PEM_WINDOW,
                begins: |b| b == b'-',
                recognise: key::private_key,
                context: &[],
            },
            Self::ApiKey => Facts {
                name: "api-key",
                label: "API KEY",
                called: "an API key",
                window: key::WINDOW,
                begins: |b| alphanumeric(b) || b == b'/' || b == b'+',
                recognise: key::api_key,
                context: key::SECRET_WORDS,
            },
            Self::UrlCredentials => Facts {
                name: "url-credentials",
                label: "CREDENTIALS",
                called: "a name and password in an address",
                window: address::URL_WINDOW,
                begins: |b| b.is_ascii_graphic(),
                recognise: address::url_credentials,
                context: &[],
            },
            Self::Email => Facts {
                name: "email",
                label: "EMAIL",
                called: "an e-mail address",
                window: address::EMAIL_WINDOW,
                begins: address::local,
                recognise: address::email,
                context: &[],
            },
            Self::CreditCard => Facts {
                name: "credit-card",
                label: "CREDIT CARD",
                called: "a credit card number",
                window: 32,
                begins: digit,
                recognise: bank::card,
                context: &[],
            },
            Self::Iban => Facts {
                name: "iban",
                label: "IBAN",
                called: "a bank account number",
                window: 48,
                begins: letter,
                recognise: bank::iban,
                context: &[],
            },
            Self::CryptoAddress => Facts {
                name: "crypto-address",
                label: "CRYPTO ADDRESS",
                called: "a wallet address",
                window: 96,
                begins: |b| b"013bB".contains(&b),
                recognise: wallet::address,
                context: &[],
            },
            Self::UsSsn => Facts {
                name: "us-ssn",
                label: "SSN",
                called: "a social security number",
                window: 16,
                begins: digit,
                recognise: document::us_ssn,
                context: document::SSN_WORDS,
            },
            Self::Mac => Facts {
                name: "mac",
                label: "MAC ADDRESS",
                called: "a hardware address",
                window: 20,
                begins: |b| b.is_ascii_hexdigit(),
                recognise: network::mac,
                context: &[],
            },
            Self::Ipv6 => Facts {
                name: "ipv6",
                label: "IP ADDRESS",
                called: "an IP address",
                window: 48,
                begins: |b| b.is_ascii_hexdigit() || b == b':',
                recognise: network::ipv6,
                context: &[],
            },
            Self::Ipv4 => Facts {
                name: "ipv4",
                label: "IP ADDRESS",
                called: "an IP address",
                window: 20,
                begins: digit,
                recognise: network::ipv4,
                context: &[],
            },
            Self::DateOfBirth => Facts {
                name: "date-of-birth",
                label: "DATE OF BIRTH",
                called: "a date of birth",
                window: 32,
                begins: |b| digit(b) || b"JFMASOND".contains(&b.to_ascii_uppercase()),
                recognise: date::of_birth,
                context: date::WORDS,
            },
            Self::Passport => Facts {
                name: "passport",
                label: "PASSPORT",
                called: "a passport number",
                window: 24,
                begins: alphanumeric,
                recognise: document::passport,
                context: document::PASSPORT_WORDS,
            },
            Self::DriverLicence => Facts {
                name: "driver-licence",
                label: "DRIVER LICENCE",
                called: "a driving licence number",
                window: 32,
                begins: alphanumeric,
                recognise: document::driver_licence,
                context: document::DRIVER_WORDS,
            },
            Self::Phone => Facts {
                name: "phone",
                label: "PHONE",
                called: "a phone number",
                window: 40,
                begins: |b| digit(b) || b == b'+' || b == b'(',
                recognise: phone::number,
                context: phone::WORDS,
            },
        }
    }
}

/// Recognises one kind.
pub struct Detector {
    kind: Kind,
    facts: Facts,
    context: Vec<String>,
}

impl Detector {
    pub fn new(kind: Kind) -> Self {
        let facts = kind.facts();
        Self { kind, context: facts.context.iter().map(|&word| word.into()).collect(), facts }
    }

    /// Adds context words; their case does not matter. A kind without a context has no use for them.
    pub fn with_context(mut self, words: impl IntoIterator<Item = String>) -> Self {
        self.context.extend(words.into_iter().map(|word| word.to_ascii_lowercase()));
        self
    }

    pub fn kind(&self) -> Kind {
        self.kind
    }
}

impl Matcher for Detector {
    fn begins(&self, byte: u8) -> bool {
        (self.facts.begins)(byte)
    }
    fn begins_words(&self) -> bool {
        // A key may stand right behind `\n` or a quote in escaped text.
        self.kind != Kind::PrivateKey
    }
    fn window(&self) -> usize {
        self.facts.window
    }
    fn at(&mut self, text: &[u8], start: usize, complete: bool) -> At {
        let mut reader = Reader::new(text, start, self.facts.window, complete);
        match (self.facts.recognise)(&mut reader, &self.context) {
            Ok(Some(end)) => At::Match(end),
            Ok(None) => At::NoMatch,
            Err(Open) => At::Open,
        }
    }
}
