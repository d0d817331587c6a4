//! The finder's promises, and that the harness notices who breaks the streaming contract.

use std::rc::Rc;
use stockade_guest::prelude::*;
use stockade_guest::state::Expectation;
use stockade_guest::{datasets, jobs};

/// Blocks `bad`, masks digits, and claims as a span's bound what it is told.
#[derive(Deserialize)]
struct Sample {
    longest: usize,
}

impl Finder for Sample {
    fn longest(&self) -> usize {
        self.longest
    }
    fn find(&self, text: &str) -> Result<Vec<Finding>> {
        let mut found: Vec<Finding> =
            text.match_indices("bad").map(|(at, _)| Finding::block(at..at + 3, Violation::new("bad", "no"))).collect();
        let digits =
            text.char_indices().filter(|(_, c)| c.is_ascii_digit()).map(|(at, _)| Finding::mask(at..at + 1, "#"));
        found.extend(digits);
        Ok(found)
    }
}

#[test]
fn what_is_blocked_never_leaves_and_masks_before_it_do() {
    let reply = testing::every_split::<Sample>(json!({"longest": 3}), "é1 ba bad 2");
    assert_eq!(reply.sent, "é# ba ");
    assert_eq!(reply.violation.unwrap().category, "bad");
}

#[test]
fn check_and_stream_agree() {
    let verdict = testing::check::<Sample>(json!({"longest": 3}), "1é2").unwrap();
    assert_eq!(verdict, Verdict::Edit(vec![Message::user("#é#")]));
    assert_eq!(testing::every_split::<Sample>(json!({"longest": 3}), "1é2").sent, "#é#");
    let verdict = testing::check::<Sample>(json!({"longest": 3}), "1 bad").unwrap();
    assert!(matches!(verdict, Verdict::Block(_)));
}

#[test]
fn every_text_of_a_message_is_judged() {
    let call = ToolCall { id: "1".into(), name: "t".into(), arguments: r#"{"x":7}"#.into() };
    let mut message = Message::from(Completion {
        text: "5".into(),
        reasoning: "6".into(),
        tool_calls: vec![call.clone()],
        reason: FinishReason::ToolCalls,
        usage: Usage { prompt_tokens: 0, cached_tokens: 0, completion_tokens: 0 },
    });
    message.parts.extend(Message::tool_result(&call, "8", false).parts);
    let verdict = testing::check_messages::<Sample>(json!({"longest": 3}), Direction::Input, vec![message]);
    let Ok(Verdict::Edit(edited)) = verdict else { panic!("{verdict:?}") };
    let shown = format!("{:?}", edited[0].parts);
    assert_eq!(shown.matches('#').count(), 4, "{shown}");
}

#[test]
fn a_finding_beyond_its_bound_is_an_error() {
    let answer = testing::check::<Sample>(json!({"longest": 2}), "bad");
    assert!(matches!(answer, Err(Error::Other(_))));
}

#[test]
fn a_configuration_that_does_not_fit_is_invalid() {
    let answer = testing::check::<Sample>(json!({"longest": "x"}), "");
    assert!(matches!(answer, Err(Error::Invalid(why)) if why.starts_with("config")));
}

/// Clears as many bytes a feed as it is told, whatever came.
#[derive(Deserialize)]
struct Careless {
    a_feed: u64,
}

struct Clears(u64, u64);

impl Shield for Careless {
    fn hold_back(&self) -> u32 {
        1
    }
    fn check(&self, _: Direction, _: Vec<Message>) -> Result<Verdict> {
        Ok(Verdict::Pass)
    }
    fn session(self: Rc<Self>, _: Channel, _: Vec<Message>) -> Result<Box<dyn Session>> {
        Ok(Box::new(Clears(self.a_feed, 0)))
    }
}

impl Session for Clears {
    fn feed(&mut self, _: &str) -> Result<Ruling> {
        self.1 += self.0;
        self.finish()
    }
    fn finish(&mut self) -> Result<Ruling> {
        Ok(Ruling { cleared: self.1, edits: Vec::new(), violation: None })
    }
}

#[test]
#[should_panic(expected = "beyond")]
fn clearing_more_than_was_fed_is_noticed() {
    let _ = testing::stream::<Careless>(json!({"a_feed": 9}), &["abc"]);
}

#[test]
#[should_panic(expected = "holds back 3 bytes")]
fn holding_back_more_than_was_declared_is_noticed() {
    let _ = testing::stream::<Careless>(json!({"a_feed": 0}), &["abc"]);
}

#[test]
#[should_panic(expected = "finish cleared 2 of 3")]
fn text_that_is_never_cleared_is_noticed() {
    let _ = testing::stream::<Careless>(json!({"a_feed": 2}), &["abc"]);
}

/// Clears whatever comes at once, on one channel by the feed.
#[derive(Deserialize)]
struct Uneven {
    tool_calls: bool,
}

struct Counts {
    by_feed: bool,
    fed: u64,
    feeds: usize,
}

impl Shield for Uneven {
    fn hold_back(&self) -> u32 {
        0
    }
    fn check(&self, _: Direction, _: Vec<Message>) -> Result<Verdict> {
        Ok(Verdict::Pass)
    }
    fn session(self: Rc<Self>, channel: Channel, _: Vec<Message>) -> Result<Box<dyn Session>> {
        Ok(Box::new(Counts { by_feed: self.tool_calls && channel == Channel::ToolCall, fed: 0, feeds: 0 }))
    }
}

impl Session for Counts {
    fn feed(&mut self, text: &str) -> Result<Ruling> {
        self.fed += text.len() as u64;
        self.feeds += 1;
        let violation = (self.by_feed && self.feeds > 2).then(|| Violation::new("many", ""));
        Ok(Ruling { cleared: self.fed, edits: Vec::new(), violation })
    }
    fn finish(&mut self) -> Result<Ruling> {
        Ok(Ruling { cleared: self.fed, edits: Vec::new(), violation: None })
    }
}

#[test]
fn splits_are_tried_on_every_channel() {
    assert_eq!(testing::every_split::<Uneven>(json!({"tool_calls": false}), "abc").sent, "abc");
    let one = |channel| testing::every_split_of::<Uneven>(json!({"tool_calls": true}), channel, "abc").sent;
    assert_eq!((one(Channel::Text), one(Channel::Step)), ("abc".into(), "abc".into()));
}

#[test]
#[should_panic(expected = "ToolCall cut at")]
fn a_shield_that_depends_on_the_cut_on_one_channel_alone_is_noticed() {
    testing::every_split::<Uneven>(json!({"tool_calls": true}), "abc");
}

#[test]
fn state_compares_and_sets_and_scans_in_order() {
    let _host = testing::Host::new().buckets(&["b"]);
    let bucket = state::open("b").unwrap();
    let first = bucket.set_json("k/1", &1, Expectation::Absent).unwrap();
    assert!(matches!(bucket.set_json("k/1", &2, Expectation::Absent), Err(Error::Conflict(_))));
    bucket.set_json("k/1", &2, Expectation::Revision(first)).unwrap();
    assert!(matches!(bucket.delete("k/1", Expectation::Revision(first)), Err(Error::Conflict(_))));
    bucket.set_json("k/2", &3, Expectation::Anything).unwrap();
    bucket.set_json("other", &4, Expectation::Anything).unwrap();
    let keys = |entries: Vec<state::Entry>| entries.into_iter().map(|e| e.key).collect::<Vec<_>>();
    assert_eq!(keys(bucket.scan_all("k/").unwrap()), ["k/1", "k/2"]);
    assert_eq!(keys(bucket.scan("k/", Some("k/1"), 5).unwrap()), ["k/2"]);
    assert_eq!(bucket.get_json::<u32>("k/1").unwrap().unwrap().0, 2);
    assert!(matches!(state::open("c"), Err(Error::Denied(_))));
}

#[test]
fn a_commit_happens_as_a_whole_or_not_at_all() {
    use state::Write;
    let _host = testing::Host::new();
    let bucket = state::open("b").unwrap();
    let one = bucket.set_json("1", &1, Expectation::Absent).unwrap();
    let stale = [Write::set("2", vec![2]), Write::delete("1").expect(Expectation::Revision(one + 1))];
    assert!(matches!(bucket.commit(&stale), Err(Error::Conflict(_))));
    assert_eq!(bucket.get("2").unwrap(), None);
    let both = [Write::set("2", vec![2]), Write::delete("1").expect(Expectation::Revision(one))];
    let now = bucket.commit(&both).unwrap();
    assert_eq!(bucket.get("2").unwrap().map(|e| e.revision), Some(now));
    assert_eq!(bucket.get("1").unwrap(), None);
    assert!(matches!(bucket.commit(&[both[0].clone(), both[0].clone()]), Err(Error::Invalid(_))), "a key twice");
}

#[test]
fn any_number_of_writes_goes_in_commits_that_hold_them() {
    use state::Write;
    let _host = testing::Host::new();
    let bucket = state::open("b").unwrap();
    let large: Vec<Write> = (0..7).map(|n| Write::set(format!("large/{n}"), vec![0; 900 << 10])).collect();
    let small: Vec<Write> = (0..600).map(|n| Write::set(format!("small/{n:03}"), vec![1])).collect();
    bucket.write_all(&large).unwrap();
    bucket.write_all(&small).unwrap();
    assert_eq!(bucket.keys("small/", Some("small/597"), 10).unwrap().len(), 2);
    assert_eq!(bucket.scan_all("").unwrap().len(), 607);
    bucket.delete_all("").unwrap();
    assert_eq!(bucket.scan_all("").unwrap(), []);
}

#[test]
fn data_sets_are_read_in_pages_and_changed_by_their_maker_alone() {
    use datasets::{Description, Purpose};
    let rows: Vec<Value> = (0..1500).map(|n| json!({"n": n})).collect();
    let _host = testing::Host::new().dataset("given", &rows).datasets(&["given", "made"]);
    let read: Vec<Value> = datasets::rows("given").collect::<Result<_>>().unwrap();
    assert_eq!(read, rows);
    assert!(matches!(datasets::append("given", &rows), Err(Error::Denied(_))));

    let about = |name: &str| Description::new(name, Purpose::Evaluation, "CC0-1.0", "a test");
    assert!(matches!(datasets::create(&about("other"), &rows), Err(Error::Denied(_))));
    assert!(matches!(datasets::create::<Value>(&about("made"), &[]), Err(Error::Invalid(_))));
    datasets::create(&about("made"), &rows[..2]).unwrap();
    assert!(matches!(datasets::create(&about("made"), &rows), Err(Error::Conflict(_))));
    datasets::append("made", &rows[2..3]).unwrap();
    let page = datasets::read("made", 1, 1).unwrap();
    assert_eq!((page.rows, page.next), (vec![r#"{"n":1}"#.to_string()], Some(2)));
    let names = datasets::list(Some("given"), 10).unwrap().into_iter().map(|d| d.description.name);
    assert_eq!(names.collect::<Vec<_>>(), ["made"]);
    datasets::delete("made").unwrap();
    assert!(matches!(datasets::rows::<Value>("made").next(), Some(Err(Error::NotFound(_)))));
}

#[test]
fn jobs_follow_their_script() {
    use jobs::{Occurrence, Status};
    let host = testing::Host::new().job(&[2.0, 1.0]).failing_job(&[9.0], "it diverged");
    let job = jobs::train(Some("mine"), &json!({"method": "sft"})).unwrap();
    assert_eq!((job.status, job.model.as_deref()), (Status::Queued, Some("mine")));
    let (mut after, mut losses, mut last) = (0, Vec::new(), job.status);
    while !last.is_end() {
        for event in jobs::events(&job.id, after, 10, 1000).unwrap() {
            after = event.number;
            match event.what {
                Occurrence::Status(status) => last = status,
                Occurrence::Step(line) => losses.push(serde_json::from_str::<Value>(&line).unwrap()["loss"].as_f64()),
                _ => {}
            }
        }
    }
    assert_eq!((last, losses), (Status::Succeeded, vec![Some(2.0), Some(1.0)]));
    assert!(jobs::get(&job.id).unwrap().outcome.contains("mine"));
    assert!(matches!(jobs::pause(&job.id), Err(Error::Conflict(_))));

    let second = jobs::train(None, &json!({"method": "dpo"})).unwrap();
    assert_eq!(jobs::pause(&second.id).unwrap().status, Status::Paused);
    assert_eq!(jobs::get(&second.id).unwrap().status, Status::Paused);
    assert!(matches!(jobs::delete(&second.id), Err(Error::Conflict(_))));
    jobs::resume(&second.id).unwrap();
    let failed = (0..9).map(|_| jobs::get(&second.id).unwrap()).find(|job| job.status.is_end()).unwrap();
    assert_eq!(failed.failure.unwrap().message, "it diverged");
    jobs::delete(&second.id).unwrap();
    assert_eq!(jobs::list(None, 10).unwrap().len(), 1);
    assert_eq!(host.submitted()[1]["method"], "dpo");
    assert!(matches!(jobs::submit(jobs::Kind::Eval, None, &json!({})), Err(Error::Unavailable(_))));
}
