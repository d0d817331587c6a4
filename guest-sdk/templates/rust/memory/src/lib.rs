//! Keeps notes in a state bucket and finds them by the words they share with the query.

use std::collections::BTreeSet;
use stockade_guest::memory::{Hit, Item, Query};
use stockade_guest::prelude::*;

const BUCKET: &str = "{{name}}";

#[derive(Deserialize)]
struct Plugin {}

fn words(text: &str) -> BTreeSet<String> {
    let words = text.split(|c: char| !c.is_alphanumeric()).filter(|w| !w.is_empty());
    words.map(str::to_lowercase).collect()
}

fn note(id: String, text: String, metadata: String) -> Item {
    Item { id, text, metadata, document: None, expires_at: None }
}

impl Memory for Plugin {
    fn insert(&self, bank: String, items: Vec<Item>) -> Result<Vec<String>> {
        let bucket = state::open(BUCKET)?;
        let insert = |item: Item| {
            let id = match item.id.is_empty() {
                true => stockade_guest::system::random(8).iter().map(|b| format!("{b:02x}")).collect(),
                false => item.id,
            };
            let value = (item.text, item.metadata);
            bucket.set_json(&format!("{bank}/{id}"), &value, state::Expectation::Anything)?;
            Ok(id)
        };
        items.into_iter().map(insert).collect()
    }

    fn get(&self, bank: String, ids: Vec<String>) -> Result<Vec<Item>> {
        let bucket = state::open(BUCKET)?;
        let get = |id: String| {
            let kept = bucket.get_json::<(String, String)>(&format!("{bank}/{id}"))?;
            Ok(kept.map(|((text, metadata), _)| note(id, text, metadata)))
        };
        ids.into_iter().map(get).filter_map(Result::transpose).collect()
    }

    fn search(&self, bank: String, query: Query) -> Result<Vec<Hit>> {
        let prefix = format!("{bank}/");
        let wanted = words(&query.text);
        let mut hits = Vec::new();
        for entry in state::open(BUCKET)?.scan_all(&prefix)? {
            let (text, metadata): (String, String) = serde_json::from_slice(&entry.value)?;
            let shared = words(&text).intersection(&wanted).count() as f32;
            if shared > 0.0 {
                let item = note(entry.key[prefix.len()..].into(), text, metadata);
                hits.push(Hit { item, score: shared, signals: vec![("words".into(), shared)] });
            }
        }
        hits.sort_by(|a, b| b.score.total_cmp(&a.score));
        hits.truncate(query.limit as usize);
        Ok(hits)
    }

    fn delete(&self, bank: String, ids: Vec<String>) -> Result<u32> {
        let bucket = state::open(BUCKET)?;
        let mut gone = 0;
        for id in ids {
            let key = format!("{bank}/{id}");
            if bucket.get(&key)?.is_some() {
                bucket.delete(&key, state::Expectation::Anything)?;
                gone += 1;
            }
        }
        Ok(gone)
    }
}

stockade_guest::export!(Plugin as memory);

#[cfg(test)]
mod tests {
    use super::*;

    fn item(id: &str, text: &str) -> Item {
        note(id.into(), text.into(), "{}".into())
    }

    #[test]
    fn notes_with_more_of_the_words_come_first() {
        testing::Host::new();
        let plugin = testing::plugin::<Plugin>(json!({})).unwrap();
        let items = vec![item("1", "green tea"), item("2", "A green teapot, not tea"), item("3", "coffee")];
        assert_eq!(plugin.insert("notes".into(), items).unwrap(), ["1", "2", "3"]);
        let query = |text: &str| Query { text: text.into(), limit: 5, filter: None, mode: None, options: None };
        let ids = |hits: Vec<Hit>| hits.into_iter().map(|h| h.item.id).collect::<Vec<_>>();
        assert_eq!(ids(plugin.search("notes".into(), query("green teapot")).unwrap()), ["2", "1"]);
        assert_eq!(plugin.get("notes".into(), vec!["x".into(), "3".into()]).unwrap()[0].text, "coffee");
        assert_eq!(plugin.delete("notes".into(), vec!["2".into(), "x".into()]).unwrap(), 1);
        assert_eq!(ids(plugin.search("notes".into(), query("teapot")).unwrap()), [""; 0]);
    }
}
