//! A tool over the tenant's memory: a model asks in words and gets the best passages of the configured banks, numbered,
//! with where they come from.

use stockade_guest::memories::{self, Hit, Query};
use stockade_guest::prelude::*;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct KnowledgeSearch {
    banks: Vec<String>,
    #[serde(default = "five")]
    limit: u32,
    #[serde(default = "eight_thousand")]
    max_characters: usize,
    #[serde(default)]
    filter: Option<Value>,
    #[serde(default)]
    about: Option<String>,
}

fn five() -> u32 {
    5
}
fn eight_thousand() -> usize {
    8_000
}

/// Longest query in characters; more of it would not be embedded anyway.
const MAX_QUERY: usize = 2_000;
/// Metadata fields that tell where a passage comes from, the first that is there.
const SOURCES: [&str; 5] = ["source", "url", "title", "file_name", "filename"];

#[derive(Deserialize)]
struct Arguments {
    query: String,
}

impl Tool for KnowledgeSearch {
    type Arguments = Arguments;

    fn describe(&self) -> ToolSpec {
        let parameters = json!({
            "type": "object",
            "properties": {
                "query": { "type": "string", "description": "What to look for, in words." },
            },
            "required": ["query"],
            "additionalProperties": false,
        });
        let about = self.about.as_deref().unwrap_or("documents of the organisation");
        ToolSpec::new("knowledge_search", format!("Searches {about} and returns the best passages."), &parameters)
    }

    fn call(&self, arguments: Arguments) -> Result<ToolOutput> {
        let query: String = arguments.query.trim().chars().take(MAX_QUERY).collect();
        if query.is_empty() {
            return Ok(ToolOutput::failed("query: is empty"));
        }
        let mut hits = Vec::new();
        for bank in &self.banks {
            hits.push(memories::search(bank, &self.query(&query)?)?);
        }
        let passages = interleave(hits, self.limit as usize);
        if passages.is_empty() {
            return Ok(ToolOutput::ok("Nothing was found."));
        }
        Ok(ToolOutput::ok(self.show(&passages)))
    }
}

impl KnowledgeSearch {
    fn query(&self, text: &str) -> Result<Query> {
        let filter = self.filter.as_ref().map(serde_json::to_string).transpose()?;
        Ok(Query { text: text.into(), limit: self.limit, filter, mode: None, options: None })
    }

    fn show(&self, passages: &[Hit]) -> String {
        let mut out = String::new();
        for (number, hit) in (1..).zip(passages) {
            let head = match source(hit) {
                Some(source) => format!("[{number}] {source}\n"),
                None => format!("[{number}]\n"),
            };
            let left = self.max_characters.saturating_sub(out.chars().count() + head.chars().count() + 2);
            if left == 0 {
                break;
            }
            out += &head;
            out.extend(hit.item.text.trim().chars().take(left));
            out += "\n\n";
        }
        out.trim_end().to_string()
    }
}

/// Scores of two banks cannot be compared, so the banks take turns, each in its own order.
fn interleave(banks: Vec<Vec<Hit>>, limit: usize) -> Vec<Hit> {
    let mut banks: Vec<_> = banks.into_iter().map(Vec::into_iter).collect();
    let mut all: Vec<Hit> = Vec::new();
    while all.len() < limit {
        let round: Vec<Hit> = banks.iter_mut().filter_map(Iterator::next).collect();
        if round.is_empty() {
            break;
        }
        all.extend(round);
    }
    all.truncate(limit);
    all
}

/// In a line of its own, so that a source cannot pass for a passage.
fn source(hit: &Hit) -> Option<String> {
    let metadata: Value = serde_json::from_str(&hit.item.metadata).ok()?;
    let found = SOURCES.iter().find_map(|name| metadata[name].as_str());
    let source: String = found?.chars().filter(|c| !c.is_control()).take(200).collect();
    (!source.is_empty()).then_some(source)
}

stockade_guest::export!(KnowledgeSearch as tool);

#[cfg(test)]
mod tests {
    use super::*;
    use stockade_guest::memories::Item;

    fn remember(bank: &str, texts: &[(&str, Value)]) {
        let item = |(text, metadata): &(&str, Value)| Item {
            id: String::new(),
            text: (*text).into(),
            metadata: metadata.to_string(),
            document: None,
            expires_at: None,
        };
        memories::insert(bank, &texts.iter().map(item).collect::<Vec<_>>()).unwrap();
    }

    fn search(config: Value, query: &str) -> ToolOutput {
        testing::call::<KnowledgeSearch>(config, json!({"query": query})).unwrap()
    }

    #[test]
    fn passages_come_numbered_with_their_source_and_banks_take_turns() {
        let _host = testing::Host::new();
        remember("a", &[("tea is hot", json!({"source": "tea.md\nx"})), ("tea is green", json!({}))]);
        remember("b", &[("iced tea", json!({"title": "Ice"}))]);
        let answer = search(json!({"banks": ["a", "b"]}), "tea");
        assert_eq!(answer.content, "[1] tea.mdx\ntea is hot\n\n[2] Ice\niced tea\n\n[3]\ntea is green");
        assert_eq!(search(json!({"banks": ["a", "b"], "limit": 1}), "tea").content, "[1] tea.mdx\ntea is hot");
    }

    #[test]
    fn nothing_found_and_nothing_asked_are_told_apart() {
        let _host = testing::Host::new();
        assert_eq!(search(json!({"banks": ["a"]}), "tea"), ToolOutput::ok("Nothing was found."));
        assert!(search(json!({"banks": ["a"]}), "  ").is_error);
    }

    #[test]
    fn an_answer_is_cut_at_its_bound() {
        let _host = testing::Host::new();
        remember("a", &[(&"é".repeat(500), json!({})), (&"é".repeat(500), json!({}))]);
        let answer = search(json!({"banks": ["a"], "max_characters": 100}), "é");
        assert!(answer.content.chars().count() <= 100 && answer.content.contains('é'), "{}", answer.content);
    }

    /// Beside the same in the sandbox: the host's `bench_components`.
    #[test]
    fn latency() {
        let notes = [
            "The kettle is in the kitchen.",
            "A kettle boils at noon.",
            "Ann has the kettle.",
            "kettle: three litres",
            "No kettle on Friday.",
        ];
        let _host = testing::Host::new();
        remember("notes", &notes.map(|text| (text, json!({}))));
        testing::latency("knowledge-search", || {
            assert!(search(json!({"banks": ["notes"]}), "kettle").content.starts_with("[1]\n"));
        });
    }
}
