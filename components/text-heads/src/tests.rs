use super::*;
use crate::window::{segment_end, windows};
use proptest::prelude::*;
use std::rc::Rc;
use stockade_guest::prelude::*;
use stockade_guest::testing::{check, check_messages, every_split, stream};

/// Dimensions of the fake embedder's vectors.
const DIMENSIONS: usize = 32;

/// One head that knows one word and nothing else.
fn file(word: &str) -> &'static [u8] {
    let header = json!({"dimensions": DIMENSIONS, "buckets": BUCKETS, "heads": [
        {"label": "word", "bias": -2.0, "gram_scale": 1.0},
    ]});
    let header = header.to_string();
    let mut file = b"STKHEAD1".to_vec();
    file.extend((header.len() as u32).to_le_bytes());
    file.extend(header.as_bytes());
    file.extend([0; DIMENSIONS * 4]);
    let mut grams = [0u8; BUCKETS];
    grams[grams::buckets(word)[0]] = 127;
    file.extend(grams);
    Vec::leak(file)
}

#[derive(Deserialize)]
#[serde(from = "Value")]
struct Word(Heads);

impl From<Value> for Word {
    fn from(_: Value) -> Self {
        Self(Heads::new(file("xyzzy")))
    }
}
impl Judge for Word {
    fn heads(&self) -> &Heads {
        &self.0
    }
    fn model(&self) -> &str {
        "minilm"
    }
    fn judges(&self, source: Source) -> bool {
        source != Source::Role(Role::System)
    }
    fn rule(&self, hits: &[Hit]) -> Option<Violation> {
        let hit = hits.iter().find(|hit| hit.scores[0] > 0.5)?;
        Some(Violation::new("word", "").with_metadata(&json!([hit.message, hit.span.start, hit.span.end])))
    }
}
impl Shield for Word {
    fn hold_back(&self) -> u32 {
        shield::hold_back()
    }
    fn check(&self, _: Direction, messages: Vec<Message>) -> Result<Verdict> {
        shield::check(self, &messages)
    }
    fn session(self: Rc<Self>, _: Channel, _: Vec<Message>) -> Result<Box<dyn Session>> {
        Ok(shield::session(self))
    }
}

fn sentences(count: usize) -> String {
    (0..count)
        .map(|i| format!("This is the sentence with the number {i}, and it is as long as most sentences are here. "))
        .collect()
}

#[test]
fn segments_end_with_sentences_and_windows_overlap() {
    let text = sentences(6).trim_end().to_string();
    let found = windows(&text);
    assert_eq!(found[0].start, 0);
    assert_eq!(found.last().unwrap().end, text.len());
    for (a, b) in found.iter().zip(&found[1..]) {
        assert!(b.start < a.end && a.end < b.end && text[..a.end].ends_with('.'), "{a:?} {b:?}");
    }
    assert_eq!(windows("Short."), vec![0..6; 1]);
    assert_eq!(windows(" \n "), []);
    assert_eq!(windows(""), []);
}

#[test]
fn what_has_no_sentences_is_cut_at_blanks_and_characters() {
    let long = "word ".repeat(100);
    let ends: Vec<usize> = windows(&long).iter().map(|w| w.end).collect();
    assert_eq!(ends, [240, 480, 500]);
    let wide = "é".repeat(300);
    assert!(windows(&wide).iter().all(|w| wide.is_char_boundary(w.start) && wide.is_char_boundary(w.end)));
}

#[test]
fn a_reply_ends_before_the_segment_that_is_against_it() {
    assert_eq!(every_split::<Word>(json!({}), &sentences(4)).violation, None);
    let text = format!("{}Say xyzzy now. And more.", sentences(2));
    let reply = every_split::<Word>(json!({}), &text);
    let violation = reply.violation.unwrap();
    assert!(!reply.sent.contains("xyzzy") && reply.sent.len() >= 88, "{}", reply.sent);
    assert_eq!(violation.category, "word");
    let tail = every_split::<Word>(json!({}), "xyzzy");
    assert_eq!((tail.sent.as_str(), tail.violation.is_some()), ("", true));
}

#[test]
fn a_tool_calls_name_is_judged_with_its_arguments_as_in_a_stream() {
    let called = |name: &str, arguments: &str| {
        let call = ToolCall { id: "1".into(), name: name.into(), arguments: arguments.into() };
        let message = Message { role: Role::Assistant, parts: vec![Part::ToolCall(call)], name: None };
        check_messages::<Word>(json!({}), Direction::Output, vec![message]).unwrap()
    };
    assert_eq!(called("read", "{}"), Verdict::Pass);
    for (name, arguments) in [("xyzzy", "{}"), ("read", r#"{"file":"xyzzy"}"#)] {
        let Verdict::Block(violation) = called(name, arguments) else { panic!("{name} passed") };
        let end = name.len() + 1 + arguments.len();
        assert_eq!(violation.metadata, json!([0, 0, end]).to_string());
    }
}

#[test]
fn the_message_and_the_place_are_told() {
    let text = format!("{}\nSay xyzzy now.\n{}", sentences(20), sentences(20));
    let messages = vec![Message::system("xyzzy"), Message::user("Hello"), Message::user(&*text)];
    let Verdict::Block(violation) = check_messages::<Word>(json!({}), Direction::Input, messages).unwrap() else {
        panic!("it passed");
    };
    let [message, start, end]: [usize; 3] = serde_json::from_str(&violation.metadata).unwrap();
    assert_eq!(message, 2);
    assert!(text[start..end].contains("xyzzy"));
    assert_eq!(check::<Word>(json!({}), "Hello").unwrap(), Verdict::Pass);
}

#[test]
fn an_embedder_that_fails_or_does_not_fit_is_an_error() {
    let _wrong = testing::Host::new().embedder(|_| Ok(vec![0.0; 3]));
    assert!(matches!(check::<Word>(json!({}), "Hello"), Err(Error::Invalid(why)) if why.contains("32")));
    let _none = testing::Host::new().embedder(|_| Err(Error::NotFound("model `minilm`".into())));
    assert!(matches!(check::<Word>(json!({}), "Hello"), Err(Error::NotFound(_))));
    assert!(matches!(stream::<Word>(json!({}), &["Hello"]), Err(Error::NotFound(_))));
}

#[test]
fn too_long_a_conversation_is_refused() {
    let _host = testing::Host::new();
    assert!(matches!(check::<Word>(json!({}), &"word ".repeat(100_000)), Err(Error::TooLarge(_))));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn segments_are_those_of_the_whole_text_however_it_is_cut(text in "([a-z]{1,60}[ .!?\n]{0,2}|é| xyzzy ){0,60}", cut in any::<prop::sample::Index>()) {
        let cut = text.floor_char_boundary(cut.index(text.len() + 1));
        let (mut start, mut early) = (0, Vec::new());
        while let Some(end) = segment_end(&text[..cut], start, false) {
            early.push(end);
            start = end;
        }
        prop_assert!(cut - start <= SEGMENT_MAX);
        let (mut start, mut whole) = (0, Vec::new());
        while let Some(end) = segment_end(&text, start, true).filter(|_| start < text.len()) {
            prop_assert!(end > start && end - start <= SEGMENT_MAX && text.is_char_boundary(end));
            whole.push(end);
            start = end;
        }
        prop_assert_eq!(start, text.len());
        prop_assert_eq!(&whole[..early.len()], &early[..]);
    }

    #[test]
    fn every_chunking_gives_what_the_whole_text_gives(text in "([a-z]{1,60}[ .!?\n]{0,2}|é| xyzzy ){0,40}", cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..6)) {
        let whole = stream::<Word>(json!({}), &[&text]).unwrap();
        let mut cuts: Vec<usize> = cuts.iter().map(|c| text.floor_char_boundary(c.index(text.len() + 1))).collect();
        cuts.extend([0, text.len()]);
        cuts.sort_unstable();
        let pieces: Vec<&str> = cuts.windows(2).map(|w| &text[w[0]..w[1]]).collect();
        prop_assert_eq!(&stream::<Word>(json!({}), &pieces).unwrap(), &whole);
        let blocked = matches!(check::<Word>(json!({}), &text).unwrap(), Verdict::Block(_));
        prop_assert_eq!(whole.violation.is_some(), blocked);
    }
}
