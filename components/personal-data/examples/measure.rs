//! How much of a generated corpus is found, and how often texts without personal data are taken for some.
//!
//! ```text
//! cargo run --release --manifest-path components/Cargo.toml -p personal-data --example measure -- DATA [--show]
//! ```
//!
//! The corpus is made here, with check digits of its own and in forms that the detectors are known to miss too. DATA is the
//! folder of public data sets; of each, texts are counted in which anything is found. `--show` prints what.

use personal_data::{Detector, Kind, Scanner};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::path::Path;
use stockade_guest::prelude::{Value, serde_json};

/// Values of each kind.
const EACH: usize = 400;

fn main() {
    let mut args = std::env::args().skip(1);
    let data = args.next().expect("the folder of data sets");
    let show = args.any(|a| a == "--show");
    let mut scanner = Scanner::new(Kind::ALL.map(Detector::new).into()).expect("few matchers");
    generated(&mut scanner);
    for (name, texts) in harmless(Path::new(&data)) {
        let mut kinds: BTreeMap<&str, usize> = BTreeMap::new();
        let mut alarmed = 0;
        for text in &texts {
            let found = scan(&mut scanner, text);
            alarmed += usize::from(!found.is_empty());
            for (kind, start, end) in found {
                *kinds.entry(kind.name()).or_default() += 1;
                if show {
                    let before = text.floor_char_boundary(start.saturating_sub(40));
                    println!("  {} {:?} after {:?}", kind.name(), &text[start..end], &text[before..start]);
                }
            }
        }
        let per_thousand = alarmed as f64 * 1000.0 / texts.len() as f64;
        println!("{name:28} n={:6} texts with a hit per 1000: {per_thousand:.2} {kinds:?}", texts.len());
    }
}

fn scan(scanner: &mut Scanner<Detector>, text: &str) -> Vec<(Kind, usize, usize)> {
    let (mut at, mut found) = (0, Vec::new());
    while let (_, Some(hit)) = scanner.next(text, at, true) {
        found.push((scanner.matcher(&hit).kind(), hit.start, hit.end));
        at = hit.end;
    }
    found
}

/// Precision and recall over spans: right is what has the kind and both ends.
fn generated(scanner: &mut Scanner<Detector>) {
    let mut random = Random(7);
    let (mut all_right, mut all_found, mut all_true) = (0, 0, 0);
    for kind in Kind::ALL {
        let (mut right, mut found_of_kind, mut wrong_kind) = (0, 0, 0);
        for _ in 0..EACH {
            let (before, value, after) = sample(kind, &mut random);
            let text = format!("{before}{value}{after}");
            let truth = (kind, before.len(), before.len() + value.len());
            let found = scan(scanner, &text);
            right += usize::from(found.contains(&truth));
            found_of_kind += found.len();
            wrong_kind += found.iter().filter(|hit| hit.0 != kind).count();
        }
        let (precision, recall) = (right as f64 / found_of_kind.max(1) as f64, right as f64 / EACH as f64);
        println!(
            "{:16} n={EACH} precision {precision:.3} recall {recall:.3}, as another kind {wrong_kind}",
            kind.name()
        );
        (all_right, all_found, all_true) = (all_right + right, all_found + found_of_kind, all_true + EACH);
    }
    let (p, r) = (all_right as f64 / all_found as f64, all_right as f64 / all_true as f64);
    println!(
        "all              n={all_true} precision {p:.3} {} recall {r:.3} {}",
        wilson(all_right, all_found),
        wilson(all_right, all_true)
    );
}

/// Wilson's 95 % interval of a share.
fn wilson(hits: usize, count: usize) -> String {
    let (n, z) = (count as f64, 1.96);
    let p = hits as f64 / n;
    let (centre, half) = (p + z * z / (2.0 * n), z * (p * (1.0 - p) / n + z * z / (4.0 * n * n)).sqrt());
    let scale = 1.0 + z * z / n;
    format!("[{:.3}, {:.3}]", (centre - half) / scale, (centre + half) / scale)
}

struct Random(u64);

impl Random {
    /// Knuth's MMIX generator.
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % bound
    }
    fn of<'a, T: ?Sized>(&mut self, list: &[&'a T]) -> &'a T {
        list[self.below(list.len())]
    }
    fn text(&mut self, alphabet: &str, length: usize) -> String {
        (0..length).map(|_| alphabet.as_bytes()[self.below(alphabet.len())] as char).collect()
    }
    fn digits(&mut self, length: usize) -> String {
        self.text("0123456789", length)
    }
}

const UPPER: &str = "ABCDEFGHIJKLMNOPQRSTUVWXYZ";
const LETTERS: &str = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789";
const HEX: &str = "0123456789abcdef";
const NEUTRAL: &[&str] = &[
    "Please use ",
    "It says ",
    "We have on file: ",
    "I got (",
    "Send it to ",
    "The second one is ",
    "\"",
    "value=",
    "- ",
];
const AFTER: &[&str] = &[".", ", thanks", " as discussed", "\n", ") now", "\"", "; 12 more", " - ok?"];

/// What stands before a value, the value, and what stands behind it.
fn sample(kind: Kind, r: &mut Random) -> (String, String, String) {
    let mut before = r.of(NEUTRAL).to_string();
    let value = match kind {
        Kind::Email => {
            let local = [r.text("abcdefghijklmnop", 5), r.text("qrstuvw", 3)].join(r.of(&[".", "_", "+", "-", ""]));
            let domain = r.of(&["example.com", "mail.example.co.uk", "a-b.org", "x.museum", "firma.de"]);
            format!("{local}@{domain}")
        }
        Kind::CreditCard => card(r),
        Kind::Iban => iban(r),
        Kind::CryptoAddress => match r.below(2) {
            0 => base58(r),
            _ => format!("0x{}", r.text(HEX, 40)),
        },
        Kind::UsSsn => {
            let (area, group, serial) = (100 + r.below(565), 1 + r.below(99), 1 + r.below(9999));
            // One in eight without hyphens and without a word that says what it is: not to be told.
            match r.below(8) {
                0 => format!("{area:03} {group:02} {serial:04}"),
                1 => {
                    before = "My SSN is ".into();
                    format!("{area:03}{group:02}{serial:04}")
                }
                _ => format!("{area:03}-{group:02}-{serial:04}"),
            }
        }
        Kind::Mac => {
            let separator = r.of(&[":", "-"]);
            (0..6).map(|_| r.text(HEX, 2)).collect::<Vec<_>>().join(separator)
        }
        Kind::Ipv4 => (0..4).map(|i| (usize::from(i == 0) + r.below(255)).to_string()).collect::<Vec<_>>().join("."),
        Kind::Ipv6 => match r.below(3) {
            0 => (0..8).map(|_| r.text(HEX, 4)).collect::<Vec<_>>().join(":"),
            1 => format!("2001:db8::{:x}:{:x}", 1 + r.below(65_535), 1 + r.below(65_535)),
            _ => format!("fe80::{:x}:1", 1 + r.below(65_535)),
        },
        Kind::DateOfBirth => {
            before = r.of(&["born on ", "DOB: ", "date of birth ", "Her birthday is ", "He was born "]).into();
            let (d, m, y) = (1 + r.below(28), 1 + r.below(12), 1930 + r.below(80));
            let month = [
                "January",
                "February",
                "March",
                "April",
                "May",
                "June",
                "July",
                "August",
                "September",
                "October",
                "November",
                "December",
            ][m - 1];
            match r.below(5) {
                0 => format!("{y}-{m:02}-{d:02}"),
                1 => format!("{d:02}/{m:02}/{y}"),
                2 => format!("{d} {month} {y}"),
                3 => format!("{month} {d}, {y}"),
                _ => format!("{d}.{m}.{y}"),
            }
        }
        Kind::Passport => {
            before =
                r.of(&["passport number ", "Passport no. ", "passport: ", "my passport is ", "Passport (US) "]).into();
            match r.below(3) {
                0 => r.digits(9),
                1 => r.text(UPPER, 1) + &r.digits(8),
                _ => r.text(UPPER, 2) + &r.digits(7),
            }
        }
        Kind::DriverLicence => {
            before = r
                .of(&["driver's license ", "Driving licence: ", "drivers license no. ", "driver licence number "])
                .into();
            match r.below(3) {
                0 => r.text(UPPER, 1) + &r.digits(7),
                1 => format!("{}{}-{}-{}-{}", r.text(UPPER, 1), r.digits(3), r.digits(3), r.digits(2), r.digits(3)),
                _ => r.text(UPPER, 5) + &r.digits(6) + &r.text(UPPER, 2) + &r.digits(1),
            }
        }
        Kind::Phone => phone(r, &mut before),
        Kind::ApiKey => match r.below(6) {
            0 => format!("sk-{}1", r.text(LETTERS, 40)),
            1 => "AKIA".to_string() + &r.text("ABCDEFGHIJKLMNOPQRSTUVWXYZ234567", 14) + "2A",
            2 => format!("ghp_{}7", r.text(LETTERS, 35)),
            3 => format!("AIza{}9", r.text(LETTERS, 34)),
            4 => format!("xoxb-{}-{}", r.digits(12), r.text(LETTERS, 24)),
            _ => {
                before = r.of(&["api_key = \"", "password: ", "SECRET_KEY=", "token='"]).into();
                format!("{}7a", r.text(LETTERS, 22))
            }
        },
        Kind::UrlCredentials => {
            before = r.of(&["https://", "see postgres://", "redis://"]).into();
            format!("{}:{}", r.text("abcdefgh", 6), r.text(LETTERS, 10))
        }
        Kind::PrivateKey => {
            let body: String = (0..12).map(|_| r.text(LETTERS, 64) + "\n").collect();
            let sort = r.of(&["RSA ", "EC ", "OPENSSH ", ""]);
            format!("-----BEGIN {sort}PRIVATE KEY-----\n{body}-----END {sort}PRIVATE KEY-----")
        }
    };
    let after = if kind == Kind::UrlCredentials { "@db.example.com/x" } else { r.of(AFTER) };
    (before, value, after.into())
}

fn card(r: &mut Random) -> String {
    let (prefix, length, groups): (_, _, &[usize]) = match r.below(5) {
        0 | 1 => ("4", 16, &[4, 4, 4, 4]),
        2 => ("53", 16, &[4, 4, 4, 4]),
        3 => ("37", 15, &[4, 6, 5]),
        _ => ("6011", 16, &[4, 4, 4, 4]),
    };
    let mut digits: Vec<usize> = prefix.bytes().map(|b| usize::from(b - b'0')).collect();
    while digits.len() < length - 1 {
        digits.push(r.below(10));
    }
    let doubled = |d: usize| if d > 4 { 2 * d - 9 } else { 2 * d };
    let sum: usize = digits.iter().rev().enumerate().map(|(i, &d)| if i % 2 == 0 { doubled(d) } else { d }).sum();
    digits.push((10 - sum % 10) % 10);
    let plain: String = digits.iter().map(usize::to_string).collect();
    let separator = r.of(&["", " ", "-"]);
    let (mut at, mut parts) = (0, Vec::new());
    for group in groups {
        parts.push(&plain[at..at + group]);
        at += group;
    }
    parts.join(separator)
}

fn iban(r: &mut Random) -> String {
    let (country, digits, letters) =
        [("DE", 18, 0), ("NO", 11, 0), ("GB", 14, 4), ("ES", 20, 0), ("NL", 10, 4)][r.below(5)];
    let body = r.text(UPPER, letters) + &r.digits(digits);
    let numeric: String = format!("{body}{country}00")
        .bytes()
        .map(|b| if b.is_ascii_digit() { (b - b'0').to_string() } else { (b - b'A' + 10).to_string() })
        .collect();
    let remainder = numeric.bytes().fold(0, |n, b| (n * 10 + u32::from(b - b'0')) % 97);
    let plain = format!("{country}{:02}{body}", 98 - remainder);
    match r.below(2) {
        0 => plain,
        _ => plain.as_bytes().chunks(4).map(|c| String::from_utf8_lossy(c).into_owned()).collect::<Vec<_>>().join(" "),
    }
}

fn base58(r: &mut Random) -> String {
    const SYMBOLS: &[u8] = b"123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz";
    let mut bytes = vec![[0u8, 5][r.below(2)]];
    bytes.extend((0..20).map(|_| r.below(256) as u8));
    let checksum = Sha256::digest(Sha256::digest(&bytes));
    bytes.extend(&checksum[..4]);
    let zeros = bytes.iter().take_while(|&&b| b == 0).count();
    let mut symbols = Vec::new();
    while bytes.iter().any(|&b| b != 0) {
        let mut remainder = 0u32;
        for byte in &mut bytes {
            let value = remainder << 8 | u32::from(*byte);
            (*byte, remainder) = ((value / 58) as u8, value % 58);
        }
        symbols.push(SYMBOLS[remainder as usize]);
    }
    symbols.extend(std::iter::repeat_n(b'1', zeros));
    symbols.iter().rev().map(|&b| b as char).collect()
}

fn phone(r: &mut Random, before: &mut String) -> String {
    let area = format!("{}{}", 2 + r.below(8), r.digits(2));
    let exchange = format!("{}{}", 2 + r.below(8), r.digits(2));
    match r.below(9) {
        0 => format!("({area}) {exchange}-{}", r.digits(4)),
        1 => format!("{area}-{exchange}-{}", r.digits(4)),
        2 => format!("+1{area}{exchange}{}", r.digits(4)),
        3 => format!("+44 20 {} {}", r.digits(4), r.digits(4)),
        4 => format!("+49 {}{} {}", 1 + r.below(9), r.digits(2), r.digits(7)),
        5 => format!("0{}{} {}", 1 + r.below(9), r.digits(2), r.digits(7)),
        6 => format!("0{} {} {} {} {}", 1 + r.below(9), r.digits(2), r.digits(2), r.digits(2), r.digits(2)),
        7 => {
            *before = "call me at ".into();
            format!("{area}{exchange}{}", r.digits(4))
        }
        // Seven digits and nothing that says what they are: not to be told.
        _ => format!("{exchange}-{}", r.digits(4)),
    }
}

/// Texts that have no personal data, or hardly any, and many numbers.
fn harmless(data: &Path) -> Vec<(&'static str, Vec<String>)> {
    let lines = |file: &str| -> Vec<String> {
        let text = std::fs::read_to_string(data.join(file)).unwrap_or_else(|e| panic!("{file}: {e}"));
        text.lines().map(String::from).collect()
    };
    let fields = |file: &str, names: &[&str]| -> Vec<String> {
        let rows = lines(file).into_iter().map(|line| serde_json::from_str::<Value>(&line).expect("JSON lines"));
        rows.flat_map(|row| names.iter().filter_map(|n| row[*n].as_str().map(String::from)).collect::<Vec<_>>())
            .collect()
    };
    vec![
        ("gsm8k questions, answers", fields("gsm8k/train_first_3000.jsonl", &["question", "answer"])),
        ("humaneval", fields("humaneval/HumanEval.jsonl", &["prompt", "canonical_solution", "test"])),
        ("mbpp", fields("mbpp/mbpp_prompt_and_train.jsonl", &["text", "code"])),
        ("clinc150", lines("clinc150/intents.tsv")),
        (
            "notinject",
            [
                fields("notinject/NotInject_one.jsonl", &["prompt"]),
                fields("notinject/NotInject_two.jsonl", &["prompt"]),
            ]
            .concat(),
        ),
        ("bipia tables", fields("bipia-indirect-injection/table_train_first100.jsonl", &["context"])),
        ("xstest", fields("xstest/xstest.jsonl", &["prompt"])),
        ("hh-rlhf dialogues", fields("hh-rlhf-harmless/harmless_base_test_part.jsonl", &["chosen", "rejected"])),
        ("tiny-shakespeare lines", lines("tiny-shakespeare/input.txt")),
        ("tldr commands", fields("tldr-tasks/tasks.jsonl", &["task", "line"])),
    ]
}
