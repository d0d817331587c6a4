use super::*;
use crate::bank::Kind;
use crate::records::{Record, Version};
use stockade_guest::memory::SearchMode;
use stockade_guest::types::Error;

fn memory() -> std::rc::Rc<Banks> {
    testing::Host::new();
    testing::plugin::<Banks>(json!({})).unwrap()
}

fn item(id: &str, text: &str, metadata: Value) -> Item {
    Item { id: id.into(), text: text.into(), metadata: metadata.to_string(), document: None, expires_at: None }
}

fn query(text: &str) -> Query {
    Query { text: text.into(), limit: 10, filter: None, mode: None, options: None }
}

fn ids(hits: &[Hit]) -> Vec<&str> {
    hits.iter().map(|h| h.item.id.as_str()).collect()
}

fn document(id: &str, name: &str, data: &[u8]) -> Document {
    Document {
        id: id.into(),
        name: name.into(),
        media_type: String::new(),
        data: data.to_vec(),
        metadata: r#"{"lang":"en"}"#.into(),
        chunking: Some(r#"{"strategy":"sentences","max_chunk_size_tokens":60,"chunk_overlap_tokens":0}"#.into()),
    }
}

const DRINKS: [(&str, &str); 4] = [
    ("green", "Green tea is brewed from unoxidised leaves."),
    ("black", "Black tea is brewed from oxidised leaves, and brewing it takes longer."),
    ("coffee", "Coffee is brewed from roasted beans."),
    ("water", "Water comes from the tap."),
];

fn filled(kind: BankKind) -> std::rc::Rc<Banks> {
    let memory = memory();
    memory.create("drinks".into(), kind, "{}".into()).unwrap();
    let items = DRINKS.iter().map(|(id, text)| item(id, text, json!({"hot": *id != "water", "letters": id.len()})));
    assert_eq!(memory.insert("drinks".into(), items.collect()).unwrap(), ["green", "black", "coffee", "water"]);
    memory
}

#[test]
fn items_are_kept_listed_replaced_and_deleted() {
    let memory = filled(BankKind::Keyvalue);
    let bank = || "drinks".to_string();
    let got = memory.get(bank(), vec!["water".into(), "wine".into(), "green".into()]).unwrap();
    assert_eq!(got.iter().map(|i| i.id.as_str()).collect::<Vec<_>>(), ["water", "green"]);
    let page = memory.list(bank(), None, Some("black".into()), 2).unwrap();
    assert_eq!(page.iter().map(|i| i.id.as_str()).collect::<Vec<_>>(), ["coffee", "green"]);
    memory.insert(bank(), vec![item("water", "Rain.", json!({}))]).unwrap();
    assert_eq!(memory.get(bank(), vec!["water".into()]).unwrap()[0].text, "Rain.");
    assert_eq!(memory.delete(bank(), vec!["water".into(), "wine".into()]).unwrap(), 1);
    assert_eq!(memory.list(bank(), None, None, 1000).unwrap().len(), 3);
    assert_eq!(memory.banks(None, 10).unwrap()[0].items, 3);
    assert_eq!(ids(&memory.search(bank(), query("bl")).unwrap()), ["black"]);
    Memory::drop(&*memory, bank()).unwrap();
    assert!(matches!(Memory::drop(&*memory, bank()), Err(Error::NotFound(_))));
    assert_eq!(stockade_guest::state::open("memory").unwrap().scan_all("").unwrap(), []);
}

#[test]
fn a_bank_that_nobody_has_written_to_is_empty_and_stays_unmade() {
    let memory = memory();
    let bank = || "nobodys".to_string();
    assert_eq!(memory.search(bank(), query("tea")).unwrap(), []);
    assert_eq!(memory.list(bank(), None, None, 10).unwrap(), []);
    assert_eq!(memory.get(bank(), vec!["a".into()]).unwrap(), []);
    assert_eq!(memory.delete(bank(), vec!["a".into()]).unwrap(), 0);
    assert_eq!(memory.forget(bank(), "a".into()).unwrap(), 0);
    assert_eq!(memory.banks(None, 10).unwrap(), []);
    assert!(matches!(memory.search("No Name".into(), query("tea")), Err(Error::Invalid(_))));
}

#[test]
fn words_are_found_by_their_stems_and_the_rarer_counts_more() {
    let memory = filled(BankKind::Keyword);
    let hits = memory.search("drinks".into(), query("the brewing of teas")).unwrap();
    assert_eq!(ids(&hits), ["green", "black", "coffee"], "of those with both words the shorter first");
    assert_eq!(ids(&memory.search("drinks".into(), query("roast tea")).unwrap())[0], "coffee");
    assert_eq!(hits[0].signals, [("keyword".to_string(), hits[0].score)]);
    assert!(memory.search("drinks".into(), query("the of and")).unwrap().is_empty());
    let vectors = Query { mode: Some(SearchMode::Vector), ..query("tea") };
    assert!(matches!(memory.search("drinks".into(), vectors), Err(Error::Invalid(_))));
}

#[test]
fn replaced_and_deleted_texts_are_found_no_more() {
    for kind in [BankKind::Keyword, BankKind::Hybrid, BankKind::Vector] {
        let memory = filled(kind);
        memory.insert("drinks".into(), vec![item("green", "Matcha is a powder.", json!({}))]).unwrap();
        memory.delete("drinks".into(), vec!["black".into()]).unwrap();
        let hits = memory.search("drinks".into(), query("leaves unoxidised matcha")).unwrap();
        assert!(hits.iter().all(|h| h.item.id != "black"), "{kind:?}");
        let green: Vec<_> = hits.iter().filter(|h| h.item.id == "green").collect();
        assert_eq!(green.len(), 1, "{kind:?}");
        assert_eq!(green[0].item.text, "Matcha is a powder.", "{kind:?}");
    }
}

#[test]
fn a_hybrid_hit_says_what_it_is_made_of() {
    let memory = filled(BankKind::Hybrid);
    let hits = memory.search("drinks".into(), query("Coffee is brewed from roasted beans.")).unwrap();
    assert_eq!(hits[0].item.id, "coffee");
    assert!((hits[0].score - 1.0).abs() < 1e-6, "first under both");
    let names: Vec<_> = hits[0].signals.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["vector", "keyword"]);
    assert!((hits[0].signals[0].1 - 1.0).abs() < 1e-5, "the same text has cosine 1");
    assert_eq!(hits.len(), 4, "meaning ranks all");
    let options = |o: Value| Query { options: Some(o.to_string()), ..query("tea") };
    let weighted = options(json!({"ranker": "weighted", "alpha": 0.0, "threshold": 0.01}));
    assert_eq!(memory.search("drinks".into(), weighted).unwrap().len(), 1, "words alone, above the threshold");
    let budget = options(json!({"max_tokens": 16}));
    assert_eq!(memory.search("drinks".into(), budget).unwrap().len(), 1);
    for bad in [json!({"ranker": "neural"}), json!({"alpha": 2}), json!({"beta": 1}), json!([])] {
        assert!(matches!(memory.search("drinks".into(), options(bad)), Err(Error::Invalid(_))));
    }
}

#[test]
fn filters_look_at_metadata_in_every_kind_of_bank() {
    for kind in [BankKind::Keyvalue, BankKind::Keyword, BankKind::Vector, BankKind::Hybrid] {
        let memory = filled(kind);
        let text = if kind == BankKind::Keyvalue { "" } else { "tea water coffee leaves" };
        for (filter, want) in [
            (json!({"hot": false}), vec!["water"]),
            (json!({"type": "gt", "key": "letters", "value": 5}), vec!["coffee"]),
            (
                json!({"type": "and", "filters": [{"hot": true}, {"type": "lt", "key": "letters", "value": 6}]}),
                vec!["black", "green"],
            ),
        ] {
            let query = Query { filter: Some(filter.to_string()), ..query(text) };
            let hits = memory.search("drinks".into(), query).unwrap();
            let mut found = ids(&hits);
            found.sort_unstable();
            assert_eq!(found, want, "{kind:?} {filter}");
        }
        let bad = Query { filter: Some(r#"{"type":"in","key":"a","value":1}"#.into()), ..query(text) };
        assert!(matches!(memory.search("drinks".into(), bad), Err(Error::Invalid(_))));
    }
}

#[test]
fn the_same_text_without_an_id_is_kept_once() {
    let memory = memory();
    let text = |text: &str| item("", text, json!({}));
    let first = memory.insert("notes".into(), vec![text("one"), text("two"), text("one")]).unwrap();
    assert_eq!(first[0], first[2]);
    assert_ne!(first[0], first[1]);
    assert_eq!(memory.insert("notes".into(), vec![text("one")]).unwrap()[0], first[0]);
    assert_eq!(memory.list("notes".into(), None, None, 10).unwrap().len(), 2);
    // Under two ids it is there twice, and found once.
    memory.insert("notes".into(), vec![item("a", "three", json!({})), item("b", "three", json!({}))]).unwrap();
    let hits = memory.search("notes".into(), query("three")).unwrap();
    assert_eq!(hits.iter().filter(|h| h.item.text == "three").count(), 1);
}

#[test]
fn what_is_expired_is_gone_everywhere() {
    let now = stockade_guest::system::now();
    for kind in [BankKind::Keyvalue, BankKind::Keyword, BankKind::Vector, BankKind::Hybrid] {
        let memory = filled(kind);
        let old = Item { expires_at: Some(now), ..item("old", "tea of yesterday", json!({})) };
        let fresh = Item { expires_at: Some(now + 1), ..item("olds", "tea of tomorrow", json!({})) };
        memory.insert("drinks".into(), vec![old, fresh]).unwrap();
        let text = if kind == BankKind::Keyvalue { "old" } else { "tea of yesterday" };
        let hits = memory.search("drinks".into(), query(text)).unwrap();
        assert!(ids(&hits).contains(&"olds") && !ids(&hits).contains(&"old"), "{kind:?}: {:?}", ids(&hits));
        assert!(memory.get("drinks".into(), vec!["old".into()]).unwrap().is_empty());
        assert_eq!(memory.list("drinks".into(), None, None, 10).unwrap().len(), 5);
    }
    let memory = memory();
    memory.create("short".into(), BankKind::Keyvalue, r#"{"ttl_seconds": 60}"#.into()).unwrap();
    memory.insert("short".into(), vec![item("a", "x", json!({}))]).unwrap();
    assert_eq!(memory.get("short".into(), vec!["a".into()]).unwrap()[0].expires_at, Some(now + 60_000));
}

#[test]
fn many_small_inserts_leave_few_segments_and_every_word() {
    let memory = memory();
    memory.create("b".into(), BankKind::Keyword, "{}".into()).unwrap();
    for i in 0..100 {
        memory.insert("b".into(), vec![item(&i.to_string(), &format!("common word{i}"), json!({}))]).unwrap();
    }
    let segments = stockade_guest::state::open("memory").unwrap().scan_all("words/b/").unwrap();
    assert!(segments.len() <= 16, "{} segments", segments.len());
    for i in 0..100 {
        assert_eq!(ids(&memory.search("b".into(), query(&format!("word{i}"))).unwrap()), [i.to_string()]);
    }
    let all = Query { limit: 1000, ..query("common") };
    assert_eq!(memory.search("b".into(), all).unwrap().len(), 100);
}

/// Sentences of which each has a word of its own.
fn prose(word: &str, sentences: usize) -> String {
    (0..sentences).map(|i| format!("Here {word}{i} stands in the middle of a sentence. ")).collect()
}

#[test]
fn a_document_becomes_chunks_that_are_listed_found_and_forgotten() {
    let memory = memory();
    let ingested = memory.ingest("docs".into(), document("guide", "guide.txt", prose("alpha", 20).as_bytes())).unwrap();
    assert_eq!(ingested.document, "guide");
    assert!(ingested.chunks > 5);
    let chunks = memory.list("docs".into(), Some("guide".into()), None, 1000).unwrap();
    assert_eq!(chunks.len(), ingested.chunks as usize);
    assert!(
        chunks[0].text.starts_with("Here alpha0 ") && chunks.iter().all(|c| c.document.as_deref() == Some("guide"))
    );
    assert_eq!(chunks[1].metadata, r#"{"lang":"en"}"#);
    let offset = format!(".{:07}", chunks[0].text.len() + 1);
    assert!(chunks[1].id.ends_with(&offset), "{} does not say where it begins", chunks[1].id);
    let hits = memory.search("docs".into(), query("alpha7")).unwrap();
    assert!(hits[0].item.text.contains("alpha7"));
    assert_eq!(memory.forget("docs".into(), "guide".into()).unwrap(), ingested.chunks);
    assert!(memory.search("docs".into(), query("alpha7")).unwrap().is_empty());
    assert_eq!(memory.banks(None, 1).unwrap()[0].items, 0, "the vectors are gone");
    assert_eq!(memory.forget("docs".into(), "guide".into()).unwrap(), 0);
}

#[test]
fn the_same_id_replaces_a_document_and_the_same_bytes_are_no_work() {
    let memory = memory();
    let old = memory.ingest("docs".into(), document("d", "a.txt", prose("old", 8).as_bytes())).unwrap();
    let chunk = |memory: &Banks| memory.list("docs".into(), Some("d".into()), None, 1).unwrap()[0].id.clone();
    let first = chunk(&memory);
    assert_eq!(memory.ingest("docs".into(), document("d", "a.txt", prose("old", 8).as_bytes())).unwrap(), old);
    assert_eq!(chunk(&memory), first, "nothing was written");
    memory.ingest("docs".into(), document("d", "a.txt", prose("new", 4).as_bytes())).unwrap();
    assert!(memory.search("docs".into(), query("old3")).unwrap().iter().all(|h| !h.item.text.contains("old")));
    let all = memory.list("docs".into(), None, None, 1000).unwrap();
    assert!(!all.is_empty() && all.iter().all(|i| i.text.contains("new")));
    // Named by content where it has no name.
    let named = memory.ingest("docs".into(), document("", "b.txt", b"Some text.")).unwrap();
    assert_eq!(memory.ingest("docs".into(), document("", "b.txt", b"Some text.")).unwrap(), named);
}

/// What an ingest leaves that was cut off before its document's row.
#[test]
fn a_half_done_ingest_is_invisible_and_may_be_done_again() {
    let memory = memory();
    memory.ingest("docs".into(), document("d", "a.txt", prose("old", 4).as_bytes())).unwrap();
    let bank = memory.bank("docs").unwrap();
    let record = Record {
        version: Version::fresh(),
        text: "Here half stands.".into(),
        metadata: Default::default(),
        document: Some("d".into()),
        expires_at: None,
    };
    let new = [(format!("d#{}.0000000", record.version), record)].into();
    insert::lead_to(&bank, &new).unwrap();
    records::write(&bank, &new).unwrap();
    let visible = |memory: &Banks, text: &str| {
        let hits = memory.search("docs".into(), query(text)).unwrap();
        hits.iter().any(|h| h.item.text.contains(text))
    };
    assert!(!visible(&memory, "half"));
    assert!(memory.list("docs".into(), None, None, 100).unwrap().iter().all(|i| i.text.contains("old")));
    assert!(visible(&memory, "old2"), "the document as it was is whole");
    memory.ingest("docs".into(), document("d", "a.txt", prose("new", 4).as_bytes())).unwrap();
    assert!(visible(&memory, "new2") && !visible(&memory, "half") && !visible(&memory, "old2"));
}

#[test]
fn an_items_writing_that_was_cut_off_leaves_the_old_one_whole() {
    let memory = filled(BankKind::Hybrid);
    let bank = memory.bank("drinks").unwrap();
    let record = Record {
        version: Version::fresh(),
        text: "Oolong.".into(),
        metadata: Default::default(),
        document: None,
        expires_at: None,
    };
    insert::lead_to(&bank, &[("green".to_string(), record)].into()).unwrap();
    let hits = memory.search("drinks".into(), query("green unoxidised")).unwrap();
    assert_eq!(hits[0].item.id, "green");
    assert_eq!(hits[0].signals.len(), 2, "words and meaning still lead there");
    assert!(memory.search("drinks".into(), query("oolong")).unwrap().iter().all(|h| h.signals[0].0 == "vector"));
}

#[test]
fn edges_are_walked_both_ways_by_type_and_depth() {
    let memory = memory();
    memory.create("people".into(), BankKind::Graph, "{}".into()).unwrap();
    let person = |id: &str, text: &str, edges: Value| item(id, text, json!({"edges": edges}));
    let people = vec![
        person("ann", "Ann is a baker", json!([{"to": "bob", "type": "knows"}, {"to": "cy", "type": "hires"}])),
        person("bob", "Bob is a miller", json!([{"to": "dan", "type": "knows"}])),
        person("cy", "Cy is a clerk", json!([])),
        person("dan", "Dan is a farmer", json!([{"to": "nobody", "type": "knows"}])),
    ];
    memory.insert("people".into(), people).unwrap();
    let walk = |text: &str, options: Value| {
        let query = Query { options: Some(options.to_string()), ..query(text) };
        let hits = memory.search("people".into(), query).unwrap();
        hits.iter().map(|h| format!("{}{}", h.item.id, h.signals[0].1)).collect::<Vec<_>>()
    };
    assert_eq!(walk("ann", json!({})), ["ann0", "bob1", "cy1"]);
    assert_eq!(walk("ann", json!({"depth": 3, "edge_types": ["knows"]})), ["ann0", "bob1", "dan2"]);
    assert_eq!(walk("bob", json!({"direction": "in"})), ["bob0", "ann1"]);
    assert_eq!(walk("bob", json!({"direction": "out"})), ["bob0", "dan1"]);
    assert_eq!(walk("farmer", json!({"direction": "in", "depth": 2})), ["dan0", "bob1", "ann2"]);
    assert_eq!(walk("cy", json!({"depth": 0})), ["cy0"]);
    memory.insert("people".into(), vec![person("ann", "Ann has retired", json!([]))]).unwrap();
    assert_eq!(walk("bob", json!({"direction": "in"})), ["bob0"]);
    memory.delete("people".into(), vec!["bob".into()]).unwrap();
    assert_eq!(walk("dan", json!({"direction": "in"})), ["dan0"]);
    let bad = person("x", "x", json!("ann"));
    assert!(matches!(memory.insert("people".into(), vec![bad]), Err(Error::Invalid(_))));
}

#[test]
fn a_bank_keeps_its_kind_and_config() {
    let memory = memory();
    let make = |kind, config: &str| memory.create("b".into(), kind, config.into());
    make(BankKind::Keyword, r#"{"language":"german"}"#).unwrap();
    make(BankKind::Keyword, r#"{"language":"german"}"#).unwrap();
    assert!(matches!(make(BankKind::Keyword, "{}"), Err(Error::Conflict(_))));
    assert!(matches!(make(BankKind::Graph, r#"{"language":"german"}"#), Err(Error::Conflict(_))));
    let listed = memory.banks(None, 10).unwrap();
    assert_eq!(Kind::from(listed[0].kind), Kind::Keyword);
    let config: Value = serde_json::from_str(&listed[0].config).unwrap();
    assert_eq!((&config["language"], &config["chunking"]["max_chunk_size_tokens"]), (&json!("german"), &json!(800)));
    for bad in [r#"{"size":1}"#, "[]", r#"{"language":"elvish"}"#, r#"{"ttl_seconds":0}"#, r#"{"chunking":{"x":1}}"#] {
        assert!(matches!(memory.create("c".into(), BankKind::Vector, bad.into()), Err(Error::Invalid(_))), "{bad}");
    }
    for bad in ["", "A", "a/b", &"a".repeat(49)] {
        assert!(matches!(memory.create(bad.into(), BankKind::Vector, "{}".into()), Err(Error::Invalid(_))), "{bad}");
    }
}

#[test]
fn every_limit_has_an_inside_and_an_outside() {
    let memory = memory();
    let insert = |item: Item| memory.insert("b".into(), vec![item]);
    insert(item(&"i".repeat(128), "x", json!({}))).unwrap();
    assert!(insert(item(&"i".repeat(129), "x", json!({}))).is_err());
    assert!(insert(item("a\n", "x", json!({}))).is_err());
    insert(item("t", &"x".repeat(records::MAX_TEXT_BYTES), json!({}))).unwrap();
    assert!(insert(item("t", &"x".repeat(records::MAX_TEXT_BYTES + 1), json!({}))).is_err());
    assert!(insert(item("m", "x", json!({"m": "x".repeat(records::MAX_METADATA_BYTES)}))).is_err());
    assert!(insert(item("m", "x", json!({"~m": 1}))).is_err());
    assert!(insert(item("m", "x", json!([]))).is_err());
    assert!(insert(Item { document: Some("d".into()), ..item("m", "x", json!({})) }).is_err());
    assert!(memory.insert("b".into(), vec![item("m", "x", json!({})); MAX_ITEMS + 1]).is_err());
    for limit in [0, 1001] {
        assert!(memory.search("b".into(), Query { limit, ..query("x") }).is_err());
        assert!(memory.list("b".into(), None, None, limit).is_err());
    }
    assert!(memory.ingest("b".into(), document(&"d".repeat(97), "a.txt", b"x")).is_err());
    assert!(memory.ingest("b".into(), document("d", "a.txt", &vec![b'x'; (8 << 20) + 1])).is_err());
}

/// Beside the same in the sandbox: the host's `bench_components`.
#[test]
fn latency() {
    let memory = memory();
    memory.create("notes".into(), BankKind::Keyword, "{}".into()).unwrap();
    let note = |n: usize| item(&n.to_string(), &format!("Note {n} about tea of kind {}.", n % 7), json!({}));
    memory.insert("notes".into(), (0..200).map(note).collect()).unwrap();
    testing::latency("memory keyword search", || {
        let memory = testing::plugin::<Banks>(json!({})).unwrap();
        assert_eq!(memory.search("notes".into(), query("tea of kind 3")).unwrap().len(), 10);
    });
}
