//! A memory whose every bank is the same lines of its configuration: a search finds those that share a word of at least
//! four letters with the query, in order.

use stockade_guest::memory::{Hit, Item, Query};
use stockade_guest::prelude::*;

#[derive(Deserialize)]
struct Guest {
    lines: Vec<String>,
}

fn words(text: &str) -> Vec<String> {
    let words = text.split(|c: char| !c.is_alphanumeric()).filter(|w| w.len() >= 4);
    words.map(str::to_lowercase).collect()
}

impl Memory for Guest {
    fn search(&self, _: String, query: Query) -> Result<Vec<Hit>> {
        let asked = words(&query.text);
        let lines = self.lines.iter().enumerate().filter(|(_, line)| words(line).iter().any(|w| asked.contains(w)));
        let hit = |(at, line): (usize, &String)| Hit {
            item: Item {
                id: format!("line-{at}"),
                text: line.clone(),
                metadata: "{}".into(),
                document: None,
                expires_at: None,
            },
            score: 1.0,
            signals: Vec::new(),
        };
        Ok(lines.take(query.limit as usize).map(hit).collect())
    }
    fn insert(&self, _: String, _: Vec<Item>) -> Result<Vec<String>> {
        Err(Error::Unavailable("the lines are configured".into()))
    }
    fn get(&self, _: String, _: Vec<String>) -> Result<Vec<Item>> {
        Err(Error::Unavailable("the lines are configured".into()))
    }
    fn delete(&self, _: String, _: Vec<String>) -> Result<u32> {
        Err(Error::Unavailable("the lines are configured".into()))
    }
}
stockade_guest::export!(Guest as memory);
