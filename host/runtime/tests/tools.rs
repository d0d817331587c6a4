//! Tools and sets of tools, and what a tool may ask of the network.

mod support;

use serde_json::{Value, json};
use stockade_core::http::{Reach, Target};
use stockade_core::plugin::*;
use support::*;

fn http(hosts: &[&str]) -> Grants {
    Grants { http: hosts.iter().map(|h| h.to_string()).collect(), ..Grants::default() }
}

async fn fetch(bench: &Bench, target: &Pinned, arguments: Value) -> (bool, String) {
    let output = bench.runtime.call_tool(call(target), None, arguments).await.unwrap();
    (output.is_error, output.content)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_without_a_grant_is_denied_before_it_reaches_the_network() {
    let bench = bench();
    let guest = bench.pin("tool/fetches", "fetches").await;
    for (grants, url) in [
        (&[][..], "https://api.example.com/"),
        (&["example.com"], "https://api.example.com/"),
        (&["*"], "http://api.example.com/"),
        (&["*"], "http://127.0.0.1:9000/"),
        (&["http://127.0.0.1:9000"], "http://127.0.0.1:9001/"),
    ] {
        let (failed, said) = fetch(&bench, &granted(guest.clone(), http(grants)), json!({"url": url})).await;
        assert!(failed && said.contains("Denied(\"http: "), "{url} by {grants:?}: {said}");
    }
    let guest = granted(guest, http(&["*"]));
    for url in ["https://a@b/", "ftp://a/", "https://0x7f.1/", "https://a\\@b/"] {
        let (failed, said) = fetch(&bench, &guest, json!({"url": url})).await;
        assert!(failed && said.contains("Invalid("), "{url}: {said}");
    }
    for header in ["Host", "content-length", "Transfer-Encoding", "connection", "a b", "x\r\ny", ""] {
        let headers = json!([[header, "1"]]);
        let (failed, said) = fetch(&bench, &guest, json!({"url": "https://a.example/", "headers": headers})).await;
        assert!(failed && said.contains("Invalid("), "{header}: {said}");
    }
    let split = json!({"url": "https://a.example/", "headers": [["x", "1\r\nhost: b"]]});
    assert!(fetch(&bench, &guest, split).await.0);
    assert!(bench.network.0.lock().unwrap().is_empty(), "nothing reached the network");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_granted_request_reaches_the_network_with_its_reach() {
    let bench = bench();
    let guest = bench.pin("tool/fetches", "fetches").await;
    let guest = granted(guest, http(&["*.example.com", "http://localhost:9000"]));
    let headers = json!([["x-a", "1"]]);
    let answer = fetch(&bench, &guest, json!({"url": "https://api.example.com/x#y", "headers": headers})).await;
    assert_eq!(answer, (false, "200 hi".into()));
    assert_eq!(fetch(&bench, &guest, json!({"url": "http://localhost:9000"})).await, (false, "200 hi".into()));
    let asked = bench.network.0.lock().unwrap().clone();
    assert_eq!(asked[0].target, Target::parse("https://api.example.com/x").unwrap());
    assert_eq!((asked[0].reach, &asked[0].headers[0].0[..]), (Reach::Public, "x-a"));
    assert_eq!(asked[1].reach, Reach::Local);
}

async fn a_set(bench: &Bench, names: &[&str]) -> Pinned {
    let pinned = bench.pin("tool/set", "offers_tools").await;
    configured(pinned, json!({"names": names}))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_set_offers_its_tools_under_its_bound_name() {
    let bench = bench();
    let set = a_set(&bench, &["one", "two"]).await;
    let specs = bench.runtime.tools(call(&set)).await.unwrap();
    let names: Vec<_> = specs.iter().map(|s| s.name.as_str()).collect();
    assert_eq!(names, ["set__one", "set__two"]);
    let output = bench.runtime.call_tool(call(&set), Some("two".into()), json!({"a": 1})).await.unwrap();
    assert_eq!(output.content, r#"two {"a":1}"#);
    for tool in [None, Some("three".into())] {
        let refused = bench.runtime.call_tool(call(&set), tool, json!({})).await;
        assert!(matches!(refused, Err(CallError::Component { code: "not-found", .. })), "{refused:?}");
    }
    let one = bench.pin("tool/echo", "noop_tool").await;
    let specs = bench.runtime.tools(call(&one)).await.unwrap();
    assert_eq!(specs.iter().map(|s| s.name.as_str()).collect::<Vec<_>>(), ["echo"]);
    assert!(bench.runtime.call_tool(call(&one), Some("x".into()), json!({})).await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn names_that_no_model_can_say_are_refused() {
    let bench = bench();
    for names in [&["a.b"][..], &[&"x".repeat(64)], &[""], &["é"]] {
        let set = a_set(&bench, names).await;
        let listed = bench.runtime.tools(call(&set)).await;
        assert!(matches!(listed, Err(CallError::Component { code: "invalid", .. })), "{names:?}: {listed:?}");
    }
    let many: Vec<String> = (0..129).map(|i| i.to_string()).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    assert!(bench.runtime.tools(call(&a_set(&bench, &many).await)).await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn guests_call_the_tools_of_a_set_within_its_grant() {
    let bench = bench();
    let caller = bench.pin("orchestrator", "calls_tools").await;
    let (set, other) = (a_set(&bench, &["one", "two"]).await, bench.pin("tool/echo", "noop_tool").await);
    let broken = configured(bench.pin("tool/broken", "offers_tools").await, json!({"names": 7}));
    let bound = [set, other, broken];
    for (components, want) in [
        (&["tool/*"][..], &["echo", "set__one", "set__two"][..]),
        (&["tool/set"], &["set__one", "set__two"]),
        (&["tool/echo"], &["echo"]),
    ] {
        let grants = Grants { components: components.iter().map(|c| c.to_string()).collect(), ..Grants::default() };
        let mut stream = bench.runtime.run_turn(call_among(&granted(caller.clone(), grants), &bound), turn(""));
        let text = said(&mut stream).await;
        let names: Vec<_> = text.lines().filter_map(|l| l.split(':').next()).collect();
        assert_eq!(names, want, "{components:?}: {text}");
    }
}

/// All text of a turn.
async fn said(stream: &mut TurnStream) -> String {
    let mut text = String::new();
    while let Some(event) = stream.recv().await {
        if let stockade_core::event::Event::Text(delta) = event.expect("the turn goes well") {
            text += &delta.text;
        }
    }
    text
}

#[test]
fn tools_of_sets_are_found_by_their_whole_name() {
    let digest = stockade_core::Digest([0; 32]);
    let call = call_among(&pinned("tool/a", "x", digest), &[pinned("tool/a__b", "y", digest)]);
    let found = |name: &str| call.pins.tool(name).map(|(p, tool)| (p.role.to_string(), tool));
    assert_eq!(found("a"), Some(("tool/a".into(), None)));
    assert_eq!(found("a__b"), Some(("tool/a__b".into(), None)));
    assert_eq!(found("a__c"), Some(("tool/a".into(), Some("c".into()))));
    assert_eq!(found("a__b__c"), Some(("tool/a".into(), Some("b__c".into()))));
    assert_eq!(found("b"), None);
}
