use super::*;
use proptest::prelude::*;
use stockade_guest::prelude::*;
use stockade_guest::testing::{check, every_split, stream};

/// All kinds, masked with their names.
#[derive(Deserialize)]
#[serde(from = "Value")]
struct All(Rules<Named>);

struct Named(Detector);

impl From<Value> for All {
    fn from(_: Value) -> Self {
        Self(Rules::new(Scanner::new(Kind::ALL.map(|kind| Named(Detector::new(kind))).into()).unwrap()))
    }
}
impl Matcher for Named {
    fn begins(&self, byte: u8) -> bool {
        self.0.begins(byte)
    }
    fn begins_words(&self) -> bool {
        self.0.begins_words()
    }
    fn window(&self) -> usize {
        self.0.window()
    }
    fn at(&mut self, text: &[u8], start: usize, complete: bool) -> At {
        self.0.at(text, start, complete)
    }
}
impl Rule for Named {
    fn treatment(&self, _: &str) -> Treatment {
        Treatment::Mask(format!("<{}>", self.0.kind().name()))
    }
}
impl Shield for All {
    fn hold_back(&self) -> u32 {
        self.0.hold_back()
    }
    fn check(&self, _: Direction, messages: Vec<Message>) -> Result<Verdict> {
        self.0.check(messages)
    }
    fn session(self: std::rc::Rc<Self>, _: Channel, _: Vec<Message>) -> Result<Box<dyn Session>> {
        Ok(Rules::session(self, |all| &all.0))
    }
}

fn masked(text: &str) -> String {
    every_split::<All>(json!({}), text).sent
}

/// Each text with its personal data between `<<` and `>>` and nothing else in it that may be found.
const FOUND: &[(&str, &str)] = &[
    ("email", "write to <<ann.b+c@mail.example.co.uk>>, now"),
    ("email", "(<<a_b@x-y.org>>)."),
    ("credit-card", "card <<4111 1111 1111 1111>> 12"),
    ("credit-card", "amex <<3782-822463-10005>>."),
    ("credit-card", "<<5555555555554444>>"),
    ("credit-card", "<<6011 0009 9013 9424>>, <<30569309025904>>"),
    ("iban", "<<DE89 3704 0044 0532 0130 00>> EUR"),
    ("iban", "<<GB82WEST12345698765432>>"),
    ("iban", "<<NO93 8601 1117 947>>"),
    ("iban", "<<MT84 MALT 0110 0001 2345 MTLC AST0 01S>>"),
    ("crypto-address", "<<1A1zP1eP5QGefi2DMPTfTL5SLmv7DivfNa>>"),
    ("crypto-address", "to <<3J98t1WpEZ73CNmQviecrnyiWrnqRhWNLy>>!"),
    ("crypto-address", "<<bc1qw508d6qejxtdg4y5r3zarvary0c5xw7kv8f3t4>>"),
    ("crypto-address", "<<bc1p0xlxvlhemja6c4dqv22uapctqupfhlxm9h8z3k2e72q4k9hcz7vqzk5jj0>>"),
    ("crypto-address", "<<0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed>>"),
    ("us-ssn", "it is <<123-45-6789>>."),
    ("us-ssn", "SSN: <<123456789>>, social security number <<123 45 6789>>"),
    ("mac", "at <<00:1A:2b:3c:4d:5e>> or <<00-1a-2b-3c-4d-5e>>"),
    ("ipv6", "from <<2001:db8::8a2e:370:7334>>."),
    ("ipv6", "<<fe80::1>> and <<2001:0db8:85a3:0000:0000:8a2e:0370:7334>>"),
    ("ipv4", "ping <<192.168.0.1>>:80 and <<8.8.8.8>>."),
    ("date-of-birth", "born on <<12 March 1985>>"),
    ("date-of-birth", "DOB: <<1985-03-12>>; date of birth <<03/12/1985>>; birthday: <<March 12th, 1985>>"),
    ("passport", "passport no. <<X1234567>>"),
    ("passport", "My passport number is <<533401372>>"),
    ("driver-licence", "driver's license: <<D1234567>>"),
    ("driver-licence", "Driving licence <<MORGA657054SM9IJ>>"),
    ("phone", "call <<+49 30 1234567>> or <<(415) 555-2671>>"),
    ("phone", "<<415-555-2671>>, <<1 415 555 2671>>, <<+14155552671>>"),
    ("phone", "<<+44 20 7946 0958>>, <<020 7946 0958>>, <<06 12 34 56 78>>, <<0049 30 1234567>>"),
    ("phone", "my phone is <<4155552671>>, tel:<<5552671>>"),
    ("phone", "<<+33 (0)6 12 34 56 78>>, <<(02) 9374 4000>>, <<0151/23456789>>"),
    ("api-key", "key <<sk-abcdefghijklmnop1234>> ok"),
    ("api-key", "<<AKIAIOSFODNN7EXAMPLE>>"),
    ("api-key", "aws_secret_access_key = <<wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY0>>"),
    ("api-key", "{\"password\": \"<<hunter2hunter2hunter2>>\"}"),
    ("api-key", "<<eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.dozjgNryP4J3jVmNHl0w5N_XgL0n3I9P>>."),
    ("url-credentials", "postgres://<<admin:p@ss>>@db.example.com/x"),
    ("url-credentials", "https://<<user:pass>>@example.com"),
    ("private-key", "<<-----BEGIN RSA PRIVATE KEY-----\nMIIEpAIBAAKCAQEA\n-----END RSA PRIVATE KEY----->>\n"),
    ("private-key", "{\"k\": \"<<-----BEGIN PRIVATE KEY-----\\nMIIEvQIBADANBg==\\n-----END PRIVATE KEY----->>\\n\"}"),
];

#[test]
fn every_kind_is_found_whole_in_every_split() {
    for (kind, text) in FOUND {
        let plain = text.replace("<<", "").replace(">>", "");
        let mut want = String::new();
        for (i, piece) in text.split("<<").enumerate() {
            match piece.split_once(">>") {
                Some((_, after)) if i > 0 => want.extend(["<", kind, ">", after]),
                _ => want.push_str(piece),
            }
        }
        assert_eq!(masked(&plain), want);
    }
    let missing = Kind::ALL.iter().find(|kind| !FOUND.iter().any(|(name, _)| *name == kind.name()));
    assert_eq!(missing, None);
}

#[test]
fn what_only_looks_like_personal_data_stays() {
    for text in [
        "a@b is no address, nor is @ann or a@b.c1",
        "4111 1111 1111 1112",
        "1234567890123 and 9999999999999995",
        "DE88 3704 0044 0532 0130 00",
        "ZZ89370400440532013000",
        "000-45-6789 666-45-6789 900-45-6789 123-00-6789 123-45-0000",
        "123 45 6789 and 123456789",
        "1A1zP1eP5QGefi2DMPTfTL5SLmv7DivfNb",
        "bc1qw508d6qejxtdg4y5r3zarvary0c5xw7kv8f3t5",
        "0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAeD",
        "256.1.1.1 1.2.3.4.5 version 1.2.3.4",
        "x[1::2] and $1000 / 200 phones = 5000/2000",
        "abc::def and std::vec and 12:30:45 and ::1",
        "00:1A:2b:3c:4d and 00:1A:2b:3c:4d:5e:6f",
        "on 12 March 1985 the shop opened; 2024-01-15",
        "the number X1234567 and D1234567",
        "on 2024-01-15, 1234567890 of them",
        "01.02.2024 12:00 and 01-02-2024 and 2024 01 15",
        "$415 555 2671, 3,000,000 and 1.234.567.890",
        "3.14159265358979 and 0.0123456789",
        "sk-learn-is-a-library-of-python and AKIA",
        "git diff --word-diff a..b://c",
        "http://example.com:8080/@user",
        "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----",
        "the secret of 12345678901234567890 is token_for_everybody_in_here",
        "héé 12 ünï 😀",
    ] {
        assert_eq!(masked(text), text);
    }
}

#[test]
fn a_private_key_without_an_end_is_masked_as_far_as_it_goes() {
    let body = "MIIEpAIBAAKCAQEAx0123456789abcdefghij\n".repeat(5);
    let text = format!("-----BEGIN RSA PRIVATE KEY-----\n{body}\nThat was it.");
    assert_eq!(stream::<All>(json!({}), &[&text]).unwrap().sent, "<private-key>\n\nThat was it.");
}

#[test]
fn escaped_text_stays_valid_json() {
    let text = r#"{"to": "x\nann@b.com\t+49 30 1234567"}"#;
    assert_eq!(masked(text), r#"{"to": "x\n<email>\t<phone>"}"#);
}

#[test]
fn what_is_made_to_take_long_does_not() {
    let began = std::time::Instant::now();
    for piece in
        ["eyJ.", "-----BEGIN PRIVATE KEY-----", "a=", "a.", "1.", "sk-1", "://a:b", "12345678 ", "DE89 ", "passport 1"]
    {
        let mut scanner = Scanner::new(Kind::ALL.map(Detector::new).into()).unwrap();
        let text = piece.repeat(100_000 / piece.len());
        let mut at = 0;
        while let (_, Some(found)) = scanner.next(&text, at, true) {
            at = found.end;
        }
    }
    // On a busy machine; something quadratic takes minutes.
    assert!(began.elapsed().as_secs() < 60, "{:?}", began.elapsed());
}

/// Pieces that begin, continue and end matches, so that random texts are full of near misses.
fn text() -> impl Strategy<Value = String> {
    let known = FOUND.iter().map(|(_, text)| text.replace("<<", "").replace(">>", ""));
    let mut pieces: Vec<String> = known.collect();
    for piece in [
        "4111",
        "1111",
        "-",
        " ",
        ".",
        "@",
        ":",
        "://",
        "ann",
        "12",
        "+49",
        "(",
        ")",
        "AB",
        "sk-",
        "é",
        "\n",
        "\\n",
        "passport ",
        "born ",
        "0x",
        "DE89 ",
        "secret=",
        "-----BEGIN PRIVATE KEY-----",
        "-----END ",
    ] {
        pieces.push(piece.into());
    }
    let piece = prop::sample::select(pieces);
    let cut = (piece, any::<prop::sample::Index>(), any::<bool>()).prop_map(|(piece, at, whole)| {
        let end = if whole { piece.len() } else { piece.floor_char_boundary(at.index(piece.len() + 1)) };
        piece[..end].to_string()
    });
    prop::collection::vec(cut, 0..8).prop_map(|pieces| pieces.concat())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn every_chunking_gives_what_the_whole_text_gives(text in text(), cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..8)) {
        let whole = stream::<All>(json!({}), &[&text]).unwrap();
        let mut cuts: Vec<usize> = cuts.iter().map(|c| text.floor_char_boundary(c.index(text.len() + 1))).collect();
        cuts.extend([0, text.len()]);
        cuts.sort_unstable();
        let pieces: Vec<&str> = cuts.windows(2).map(|w| &text[w[0]..w[1]]).collect();
        prop_assert_eq!(&stream::<All>(json!({}), &pieces).unwrap(), &whole);
        match check::<All>(json!({}), &text).unwrap() {
            Verdict::Edit(messages) => prop_assert_eq!(&whole.sent, &messages[0].joined_text()),
            _ => prop_assert_eq!(&whole.sent, &text),
        }
    }
}
