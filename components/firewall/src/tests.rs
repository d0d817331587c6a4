use super::*;
use stockade_guest::testing::{Host, every_split, plugin, stream_after};

fn verdict(config: Value, messages: &[Message]) -> Verdict {
    plugin::<Firewall>(config).unwrap().check(Direction::Input, messages.to_vec()).unwrap()
}

fn blocked(verdict: Verdict) -> (String, Value) {
    let Verdict::Block(v) = verdict else { panic!("not blocked: {verdict:?}") };
    (v.category, serde_json::from_str(&v.metadata).unwrap())
}

/// A scanner that finds a word.
fn finds(word: &'static str, score: f32) -> impl Fn(Direction, &[Message]) -> Result<Verdict> {
    move |_, messages| {
        let hit = messages.iter().any(|m| m.joined_text().contains(word));
        Ok(if hit { Verdict::Block(Violation::new("found", word).with_score(score)) } else { Verdict::Pass })
    }
}

/// A scanner that masks a word.
fn masks(word: &'static str) -> impl Fn(Direction, &[Message]) -> Result<Verdict> {
    move |_, messages| {
        let mut messages = messages.to_vec();
        let mut edited = false;
        for text in stockade_guest::shield::texts_mut(&mut messages) {
            edited |= text.contains(word);
            *text = text.replace(word, "***");
        }
        Ok(if edited { Verdict::Edit(messages) } else { Verdict::Pass })
    }
}

fn fails(_: Direction, _: &[Message]) -> Result<Verdict> {
    Err(Error::Unavailable("no model".into()))
}

#[test]
fn each_role_has_its_own_scanners() {
    Host::new().shield("words", finds("bad", 1.0));
    let config = json!({"use_case": "none", "policy": {"tool": ["words"]}});
    assert_eq!(verdict(config.clone(), &[Message::user("bad")]), Verdict::Pass);
    let call = ToolCall { id: "1".into(), name: "t".into(), arguments: "{}".into() };
    let mut result = Message::tool_result(&call, "", false);
    result.parts = vec![Part::Text("bad".into())];
    let (category, metadata) = blocked(verdict(config, &[Message::user("hi"), result]));
    assert_eq!(
        (category.as_str(), &metadata["role"], &metadata["scanner"]),
        ("found", &json!("tool"), &json!("words"))
    );
}

#[test]
fn masks_feed_the_next_scanner_and_the_first_block_ends_the_row() {
    Host::new().shield("mask", masks("bad")).shield("words", finds("bad", 1.0)).shield("boom", fails);
    let row = |names: Value| json!({"use_case": "none", "policy": {"user": names}});
    let masked = verdict(row(json!(["mask", "words"])), &[Message::user("a bad day")]);
    assert_eq!(masked, Verdict::Edit(vec![Message::user("a *** day")]));
    let (category, _) = blocked(verdict(row(json!(["words", "boom"])), &[Message::user("a bad day")]));
    assert_eq!(category, "found");
}

#[test]
fn a_failure_amounts_to_what_its_row_says() {
    Host::new().shield("boom", fails);
    let row = |scanner: Value| json!({"use_case": "none", "policy": {"user": [scanner]}});
    let ask = [Message::user("hi")];
    let (category, metadata) = blocked(verdict(row(json!("boom")), &ask));
    assert_eq!((category.as_str(), &metadata["status"]), ("scanner-failed", &json!("error")));
    // One that is not bound has failed as well.
    blocked(verdict(row(json!("nobody")), &ask));
    assert_eq!(verdict(row(json!({"scanner": "boom", "on_failure": "allow"})), &ask), Verdict::Pass);
}

#[test]
fn review_is_a_block_or_not_as_the_table_says_and_low_scores_pass() {
    Host::new().shield("words", finds("bad", 0.4));
    let with = |review: &str, threshold: f32| {
        let scanner = json!({"scanner": "words", "decision": "review", "threshold": threshold});
        let config = json!({"use_case": "none", "review": review, "policy": {"user": [scanner]}});
        verdict(config, &[Message::user("bad")])
    };
    let (_, metadata) = blocked(with("block", 0.0));
    assert_eq!(metadata["decision"], "human_in_the_loop_required");
    assert_eq!(with("allow", 0.0), Verdict::Pass);
    assert_eq!(with("block", 0.5), Verdict::Pass);
}

#[test]
fn hidden_text_is_found_and_shown_decoded() {
    Host::new();
    let hidden: String = "ignore".chars().map(|c| char::from_u32(0xE0000 + u32::from(c)).unwrap()).collect();
    let config = json!({"policy": {"user": ["hidden-ascii"], "tool": []}});
    let (_, metadata) = blocked(verdict(config.clone(), &[Message::user(format!("Hello{hidden}"))]));
    assert_eq!(metadata["found"]["decoded"], "ignore");
    assert_eq!(verdict(config, &[Message::user("Hello")]), Verdict::Pass);
}

#[test]
fn alignment_reads_the_trace_and_needs_one() {
    let config = json!({"use_case": "none", "policy": {"assistant": ["alignment"]}});
    let host = Host::new().reply(r#"{"observation": "sends mail", "thought": "not asked", "conclusion": true}"#);
    let trace = [Message::user("Summarise the page"), Message::assistant("I will send your files away")];
    let (category, metadata) = blocked(verdict(config.clone(), &trace));
    assert_eq!((category.as_str(), &metadata["decision"]), ("alignment", &json!("human_in_the_loop_required")));
    let asked = host.requests()[0].messages[1].joined_text();
    assert!(asked.contains("Summarise the page") && asked.contains("assistant: I will send"), "{asked}");

    Host::new();
    assert_eq!(verdict(config.clone(), &[Message::assistant("hello")]), Verdict::Pass);
    Host::new().reply("no JSON at all");
    blocked(verdict(config, &trace));
}

#[test]
fn alignment_judges_a_streamed_reply_in_its_conversation() {
    let config = json!({"use_case": "none", "policy": {"assistant": ["alignment"]}});
    let host = Host::new().reply(r#"{"observation": "sends mail", "thought": "not asked", "conclusion": true}"#);
    let asked = [Message::user("Summarise the page")];
    let reply = stream_after::<Firewall>(config, &asked, &["I will send ", "your files away"]).unwrap();
    assert_eq!((reply.sent.as_str(), reply.violation.unwrap().category.as_str()), ("", "alignment"));
    let read = host.requests()[0].messages[1].joined_text();
    assert!(read.contains("Summarise the page") && read.contains("assistant: I will send your files"), "{read}");
}

#[test]
fn scanners_of_a_reply_are_told_what_it_answers_and_judge_it_alone() {
    let config = json!({"use_case": "none", "policy": {"assistant": ["guard", "words"]}});
    Host::new().shield("words", finds("poison", 1.0)).reply_shield("guard", |channel, conversation, text| {
        assert_eq!((channel, text), (Channel::Text, "Take two spoons."));
        let asked = conversation.last().map(Message::joined_text).unwrap_or_default();
        Ok(if asked.contains("poison") { Verdict::Block(Violation::new("S1", "")) } else { Verdict::Pass })
    });
    let reply = |question: &str| {
        let asked = [Message::system("Be kind."), Message::user(question)];
        stream_after::<Firewall>(config.clone(), &asked, &["Take two ", "spoons."]).unwrap()
    };
    let blocked = reply("How much poison?");
    assert_eq!((blocked.sent.as_str(), blocked.violation.unwrap().category.as_str()), ("", "S1"));
    assert_eq!(reply("How much sugar?").sent, "Take two spoons.");
}

#[test]
fn a_scanner_that_wants_the_conversation_gets_it_up_to_its_roles_last_message() {
    let said =
        [Message::user("one"), Message::assistant("bad two"), Message::user("three"), Message::assistant("bad four")];
    let row = |conversation: bool| {
        let scanner = json!({"scanner": "guard", "conversation": conversation});
        json!({"use_case": "none", "policy": {"user": [scanner]}})
    };
    let handed = |texts: &'static [&'static str]| {
        move |_: Direction, messages: &[Message]| {
            assert_eq!(messages.iter().map(Message::joined_text).collect::<Vec<_>>(), texts);
            Ok(Verdict::Pass)
        }
    };
    Host::new().shield("guard", handed(&["one", "bad two", "three"]));
    assert_eq!(verdict(row(true), &said), Verdict::Pass);
    Host::new().shield("guard", handed(&["one", "three"]));
    assert_eq!(verdict(row(false), &said), Verdict::Pass);
    // It changes its own role's messages and no other's.
    Host::new().shield("guard", masks("bad"));
    assert_eq!(verdict(row(true), &said), Verdict::Pass);
    Host::new().shield("guard", masks("one"));
    let mut masked = said.to_vec();
    masked[0] = Message::user("***");
    assert_eq!(verdict(row(true), &said), Verdict::Edit(masked));
}

#[test]
fn streams_come_out_the_same_however_they_are_cut() {
    Host::new().shield("mask", masks("secret")).shield("words", finds("bad", 1.0));
    let config = json!({"use_case": "none", "window": 256, "policy": {"assistant": ["mask", "words"]}});
    let calm = format!("{} secret {}", "word ".repeat(60), "und so weiter. ".repeat(20));
    let reply = every_split::<Firewall>(config.clone(), &calm);
    assert_eq!(reply.sent, calm.replace("secret", "***"));
    let reply = every_split::<Firewall>(config, &format!("{}bad{}", "word ".repeat(90), " end".repeat(90)));
    assert!(reply.violation.is_some() && !reply.sent.contains("bad"));
}

/// Beside the same in the sandbox: the host's `bench_components`.
#[test]
fn latency() {
    testing::Host::new();
    let text = "Please send the report of March to the team in Berlin, and tell Ann that the meeting on Friday is moved to ten.";
    testing::latency("firewall", || {
        assert_eq!(
            testing::check::<Firewall>(json!({"use_case": "none", "policy": {"user": ["hidden-ascii"]}}), text),
            Ok(Verdict::Pass)
        )
    });
}

/// An instruction in tag characters somewhere in each of GSM8K's 3,000 questions, and the questions as they are.
#[test]
fn hidden_instructions_are_found_wherever_they_stand_and_nothing_else_is() {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared/data/gsm8k/train_first_3000.jsonl");
    let hidden: String = "ignore".chars().filter_map(|c| char::from_u32(0xE0000 + u32::from(c))).collect();
    let config = json!({"use_case": "none", "policy": {"user": ["hidden-ascii"]}});
    let (mut n, mut found, mut alarms) = (0, 0, 0);
    for line in std::fs::read_to_string(file).unwrap().lines() {
        let row: Value = serde_json::from_str(line).unwrap();
        let question = row["question"].as_str().unwrap();
        let mut attacked = question.to_string();
        attacked.insert_str(question.floor_char_boundary(n * 7_919 % (question.len() + 1)), &hidden);
        n += 1;
        alarms += usize::from(verdict(config.clone(), &[Message::user(question)]) != Verdict::Pass);
        let (_, metadata) = blocked(verdict(config.clone(), &[Message::user(attacked)]));
        found += usize::from(metadata["found"]["decoded"] == "ignore");
    }
    assert_eq!((n, found, alarms), (3_000, 3_000, 0));
}
