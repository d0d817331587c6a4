use super::*;
use proptest::prelude::*;
use stockade_guest::testing::{check, every_split, plugin, stream};

fn sent(config: Value, text: &str) -> String {
    every_split::<RegexShield>(config, text).sent
}

#[test]
fn personal_data_is_masked_and_what_only_looks_like_it_stays() {
    for (text, want) in [
        ("mail ann.b+c@mail.example.co.uk, now", "mail [EMAIL], now"),
        ("a@b is no address", "a@b is no address"),
        ("card 4111 1111 1111 1111 12", "card [CREDIT CARD] 12"),
        ("amex 3782-822463-10005.", "amex [CREDIT CARD]."),
        ("5555555555554444", "[CREDIT CARD]"),
        ("DE89 3704 0044 0532 0130 00 EUR", "[IBAN] EUR"),
        ("PL61109010140000071219812874", "[IBAN]"),
        ("PL61 1090 1014 0000 0712 1981 2874 PLN", "[IBAN] PLN"),
        ("ssn 123-45-6789", "ssn [SSN]"),
        ("000-45-6789", "000-45-6789"),
        ("ping 192.168.0.1:80", "ping [IP ADDRESS]:80"),
        ("256.1.1.1", "256.1.1.1"),
        ("key sk-abcdefghijklmnop1234 ok", "key [API KEY] ok"),
        ("AKIAIOSFODNN7EXAMPLE", "[API KEY]"),
        ("call +49 30 1234567 or (415) 555-2671", "call [PHONE] or [PHONE]"),
        ("415-555-2671", "[PHONE]"),
        ("on 2024-01-15, 1234567890 of them", "on 2024-01-15, 1234567890 of them"),
        ("héé 12 ünï 😀", "héé 12 ünï 😀"),
    ] {
        assert_eq!(sent(json!({}), text), want);
    }
}

#[test]
fn numbers_whose_check_digits_fail_stay() {
    for (kind, text) in [
        ("credit-card", "4111 1111 1111 1112"),
        ("credit-card", "1234567890123"),
        ("iban", "DE88 3704 0044 0532 0130 00"),
        ("us-ssn", "123-00-6789"),
        ("ipv4", "1.2.3.400"),
    ] {
        assert_eq!(sent(json!({"pii": [kind]}), text), text);
    }
}

#[test]
fn only_the_kinds_asked_for_are_masked() {
    assert_eq!(sent(json!({"pii": ["email"]}), "a@b.com 192.168.0.1"), "[EMAIL] 192.168.0.1");
}

#[test]
fn a_blocked_span_never_leaves_in_part() {
    let config = json!({"patterns": [{"name": "plan", "regex": r"(?i)project\s+x\b"}]});
    let reply = every_split::<RegexShield>(config.clone(), "about Project  X today");
    assert_eq!(reply.sent, "about ");
    let violation = reply.violation.unwrap();
    assert_eq!(violation.category, "plan");
    assert!(!violation.metadata.contains("Project"));
    let reply = every_split::<RegexShield>(config, "about project xy today");
    assert_eq!((reply.sent.as_str(), reply.violation), ("about project xy today", None));
}

#[test]
fn text_leaves_as_soon_as_no_match_can_begin_in_it() {
    let shield = plugin::<RegexShield>(json!({"pii": ["us-ssn"]})).unwrap();
    let mut session = shield.session(Channel::Text, Vec::new()).unwrap();
    assert_eq!(session.feed("no digits here ").unwrap().cleared, 15);
    assert_eq!(session.feed("12").unwrap().cleared, 15);
    assert_eq!(session.feed("3 apples").unwrap().cleared, 25);
}

#[test]
fn an_unbounded_pattern_is_cut_at_its_window() {
    let config = json!({"patterns": [{"name": "n", "regex": "a+", "action": "mask", "mask": "-", "window": 4}]});
    assert_eq!(sent(config, "aaaaaaaaaa b"), "--- b");
}

#[test]
fn the_first_of_two_patterns_wins_where_both_begin() {
    let config = json!({"patterns": [
        {"name": "long", "regex": "abcd", "action": "mask"},
        {"name": "short", "regex": "ab", "action": "mask"},
    ]});
    assert_eq!(sent(config, "abcd abc"), "[long] [short]c");
}

#[test]
fn text_anchors_hold_at_the_ends_of_the_whole_text_only() {
    let config = json!({"patterns": [
        {"name": "^", "regex": "^a", "action": "mask"},
        {"name": "$", "regex": "a$", "action": "mask"},
    ]});
    assert_eq!(sent(config, "a a a"), "[^] a [$]");
}

#[test]
fn messages_are_edited_or_blocked_as_a_whole() {
    let verdict = check::<RegexShield>(json!({}), "I am a@b.com").unwrap();
    assert_eq!(verdict, Verdict::Edit(vec![Message::user("I am [EMAIL]")]));
    assert_eq!(check::<RegexShield>(json!({}), "hello").unwrap(), Verdict::Pass);
    let verdict = check::<RegexShield>(json!({"pii_action": "block"}), "I am a@b.com").unwrap();
    assert!(matches!(verdict, Verdict::Block(v) if v.category == "pii.email"));
}

#[test]
fn a_configuration_that_cannot_work_is_refused_with_the_patterns_name() {
    for config in [
        json!({"patterns": [{"name": "p", "regex": "("}]}),
        json!({"patterns": [{"name": "p", "regex": "a*"}]}),
        json!({"patterns": [{"name": "p", "regex": r"\b"}]}),
        json!({"patterns": [{"name": "p", "regex": "a", "window": 0}]}),
        json!({"patterns": [{"name": "p", "regex": r"(\w{1000}){1000}"}]}),
    ] {
        match check::<RegexShield>(config.clone(), "x") {
            Err(Error::Invalid(why)) => assert!(why.contains("`p`"), "{why}"),
            other => panic!("{config}: {other:?}"),
        }
    }
    assert!(check::<RegexShield>(json!({"pi": []}), "x").is_err());
}

/// Fragments that begin, continue and end matches, so that random texts are full of near misses.
fn text() -> impl Strategy<Value = String> {
    let fragment = prop::sample::select(vec![
        "4111 1111 1111 1111",
        "4111",
        "1111",
        "-",
        " ",
        ".",
        "a@b.com",
        "@",
        "ann",
        "x.y",
        "123-45-6789",
        "12",
        "192.168.0.1",
        "+49 30",
        "1234567",
        "(415)",
        "DE89 3704 0044 0532 0130 00",
        "AB",
        "sk-",
        "abcdefghijklmnop",
        "ab",
        "abab",
        "foo",
        "bar",
        "é",
        "😀",
        "\n",
    ]);
    prop::collection::vec(fragment, 0..12).prop_map(|f| f.concat())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn every_chunking_gives_what_the_whole_text_gives(text in text(), cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..8)) {
        let config = json!({"pii": ["email", "credit-card", "iban", "us-ssn", "ipv4", "api-key", "phone"], "patterns": [
            {"name": "ab", "regex": "(?:ab)+", "action": "mask", "window": 5},
            {"name": "foo", "regex": r"\bfoo\s*bar\b", "action": "block"},
        ]});
        let whole = stream::<RegexShield>(config.clone(), &[&text]).unwrap();
        let mut cuts: Vec<usize> = cuts.iter().map(|c| text.floor_char_boundary(c.index(text.len() + 1))).collect();
        cuts.extend([0, text.len()]);
        cuts.sort_unstable();
        let pieces: Vec<&str> = cuts.windows(2).map(|w| &text[w[0]..w[1]]).collect();
        prop_assert_eq!(&stream::<RegexShield>(config.clone(), &pieces).unwrap(), &whole);
        match check::<RegexShield>(config, &text).unwrap() {
            Verdict::Pass => prop_assert_eq!(&whole.sent, &text),
            Verdict::Edit(messages) => prop_assert_eq!(&whole.sent, &messages[0].joined_text()),
            Verdict::Block(violation) => prop_assert_eq!(whole.violation, Some(violation)),
        }
    }

    #[test]
    fn matches_are_those_of_the_regex_crate(text in text(), regex in prop::sample::select(vec![
        "ab|abab", "(?:ab){1,3}", "[0-9]{2,4}", r"\b1{1,4}\b", "foo|foobar|bar", "é?😀", r"(?m)^a\w{1,3}$",
    ])) {
        let config = json!({"patterns": [{"name": "p", "regex": regex, "action": "mask", "mask": "<>"}]});
        let oracle = regex::Regex::new(&regex.replace(r"\b", r"(?-u:\b)")).unwrap();
        let reply = stream::<RegexShield>(config, &[&text]).unwrap();
        prop_assert_eq!(reply.sent, oracle.replace_all(&text, "<>"));
    }
}

/// Beside the same in the sandbox: the host's `bench_components`.
#[test]
fn latency() {
    testing::Host::new();
    let text = "Please send the report of March to the team in Berlin, and tell Ann that the meeting on Friday is moved to ten.";
    testing::latency("regex-shield", || assert_eq!(testing::check::<RegexShield>(json!({}), text), Ok(Verdict::Pass)));
}
