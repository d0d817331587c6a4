//! Citations in a reply as it grows: `[n]` and `[n, m]`, which become annotations where source `n` is known.

use serde_json::{Value, json};
use std::collections::BTreeMap;

/// Longest citation in bytes, brackets included.
const MAX_CITATION: usize = 42;

/// What replies may cite, by number.
#[derive(Debug, Default)]
pub struct Sources(BTreeMap<u64, (String, String)>);

impl Sources {
    /// Takes the hits of a search in, as the step of it tells them.
    pub fn learn(&mut self, hits: &Value) {
        for hit in hits.as_array().into_iter().flatten() {
            if let Some(number) = hit["number"].as_u64() {
                self.0.insert(number, file(hit));
            }
        }
    }
}

/// Id and name of the file that a hit is from; without one, of what was found.
pub fn file(hit: &Value) -> (String, String) {
    let first = |fields: &[&Value]| fields.iter().find_map(|v| v.as_str()).unwrap_or_default().to_owned();
    let id = first(&[&hit["metadata"]["file_id"], &hit["document"], &hit["id"]]);
    let name = first(&[&hit["metadata"]["filename"], &hit["title"], &hit["document"], &hit["id"]]);
    (id, name)
}

/// Looks for citations in one growing text.
#[derive(Debug, Default)]
pub struct Scanner {
    /// Bytes that have been looked at, and the characters that they are.
    seen: usize,
    characters: usize,
}

impl Scanner {
    /// Annotations of the citations that have become whole; `text` begins with what was given before. An annotation's
    /// `index` is the character at which its citation begins.
    pub fn take(&mut self, text: &str, sources: &Sources) -> Vec<Value> {
        let mut found = Vec::new();
        if sources.0.is_empty() {
            return found;
        }
        while let Some(at) = text[self.seen..].find('[') {
            self.pass(text, self.seen + at);
            let open = &text[self.seen..];
            let Some(close) = open.find(']') else {
                if open.len() <= MAX_CITATION {
                    return found;
                }
                self.pass(text, self.seen + 1);
                continue;
            };
            let numbers = open[1..close].split(',').map(|n| n.trim().parse::<u64>().ok());
            let numbers: Option<Vec<u64>> = numbers.collect();
            match numbers.filter(|_| close < MAX_CITATION) {
                Some(numbers) => {
                    for (id, name) in numbers.iter().filter_map(|n| sources.0.get(n)) {
                        found.push(json!({"type": "file_citation", "index": self.characters, "file_id": id,
                            "filename": name}));
                    }
                    self.pass(text, self.seen + close + 1);
                }
                // A bracket within it may begin one.
                None => self.pass(text, self.seen + 1),
            }
        }
        self.pass(text, text.len());
        found
    }

    fn pass(&mut self, text: &str, to: usize) {
        self.characters += text[self.seen..to].chars().count();
        self.seen = to;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sources() -> Sources {
        let mut sources = Sources::default();
        sources.learn(&json!([
            {"number": 1, "id": "a", "document": "file_a", "metadata": {"file_id": "file_a", "filename": "a.md"}},
            {"number": 2, "id": "b", "title": "Note"},
        ]));
        sources
    }

    #[test]
    fn known_citations_become_annotations_at_every_cut() {
        let text = "Ça [1], x [[2, 9] [7] [b] [1 and [ 2 ] é [1";
        let sources = sources();
        let whole = Scanner::default().take(text, &sources);
        let told: Vec<_> =
            whole.iter().map(|a| (a["index"].as_u64().unwrap(), a["filename"].as_str().unwrap())).collect();
        assert_eq!(told, [(3, "a.md"), (11, "Note"), (33, "Note")]);
        assert_eq!(whole[0]["file_id"], "file_a");
        for (cut, _) in text.char_indices() {
            let mut scanner = Scanner::default();
            let mut found = scanner.take(&text[..cut], &sources);
            found.extend(scanner.take(text, &sources));
            assert_eq!(found, whole, "{cut}");
        }
    }

    #[test]
    fn without_sources_nothing_is_a_citation() {
        assert!(Scanner::default().take("a [1]", &Sources::default()).is_empty());
    }
}
