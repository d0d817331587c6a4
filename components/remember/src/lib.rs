//! Tools over a memory bank, for models that decide by themselves what to keep: `remember`, `recall` and `forget`.
//!
//! Invariant: only the first bank is ever written to or deleted from.

use stockade_guest::memories::{self, Hit, Item, Query};
use stockade_guest::prelude::*;
use stockade_guest::system;

/// Longest text and query in characters.
const MAX_TEXT: usize = 4_000;
const MAX_QUERY: usize = 2_000;
const DAY_MS: u64 = 86_400_000;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Remember {
    banks: Vec<String>,
    #[serde(default = "five")]
    limit: u32,
    #[serde(default = "eight_thousand")]
    max_characters: usize,
    #[serde(default)]
    expires_days: Option<u64>,
    #[serde(default)]
    about: Option<String>,
}

fn five() -> u32 {
    5
}
fn eight_thousand() -> usize {
    8_000
}

impl Toolset for Remember {
    fn list(&self) -> Result<Vec<ToolSpec>> {
        let about = self.about.as_deref().unwrap_or("the user and what the user wants");
        let tool = |name: &str, description: String, argument: &str, meaning: &str| {
            let parameters = json!({
                "type": "object",
                "properties": { argument: { "type": "string", "description": meaning } },
                "required": [argument],
                "additionalProperties": false,
            });
            ToolSpec::new(name, description, &parameters)
        };
        Ok(vec![
            tool(
                "remember",
                format!("Keeps one fact about {about} for later conversations."),
                "text",
                "The fact, as a whole sentence that can be understood alone.",
            ),
            tool(
                "recall",
                "Finds what was kept in this and earlier conversations.".into(),
                "query",
                "What to look for, in words.",
            ),
            tool("forget", "Forgets one thing that was kept.".into(), "id", "Its id, as `recall` tells it."),
        ])
    }

    fn call(&self, name: &str, arguments: Value) -> Result<ToolOutput> {
        match name {
            "remember" => with_text(&arguments, "text", MAX_TEXT, |text| self.remember(text)),
            "recall" => with_text(&arguments, "query", MAX_QUERY, |query| self.recall(query)),
            "forget" => with_text(&arguments, "id", MAX_TEXT, |id| self.forget(id)),
            other => Err(Error::NotFound(format!("tool `{other}`"))),
        }
    }
}

/// Calls with the one argument that each tool has, without blanks around it.
fn with_text(
    arguments: &Value,
    name: &str,
    most: usize,
    run: impl FnOnce(&str) -> Result<ToolOutput>,
) -> Result<ToolOutput> {
    match arguments[name].as_str().map(str::trim) {
        None | Some("") => Ok(ToolOutput::failed(format!("{name}: a text is needed"))),
        Some(text) if text.chars().count() > most => {
            Ok(ToolOutput::failed(format!("{name}: at most {most} characters")))
        }
        Some(text) => run(text),
    }
}

impl Remember {
    fn own(&self) -> Result<&String> {
        self.banks.first().ok_or_else(|| Error::Invalid("config.banks: at least one".into()))
    }

    fn remember(&self, text: &str) -> Result<ToolOutput> {
        let metadata = json!({"kind": "fact", "at": system::now()}).to_string();
        let expires_at = self.expires_days.map(|days| system::now().saturating_add(days.saturating_mul(DAY_MS)));
        memories::insert(self.own()?, &[Item { metadata, expires_at, ..Item::new(text) }])?;
        Ok(ToolOutput::ok("It is kept."))
    }

    fn recall(&self, query: &str) -> Result<ToolOutput> {
        let own = self.own()?;
        let query = Query::new(query, self.limit.clamp(1, 50));
        let mut out = String::new();
        let (mut left, mut shown) = (self.max_characters, 0);
        let mut banks: Vec<(&String, std::vec::IntoIter<Hit>)> = Vec::new();
        for bank in &self.banks {
            banks.push((bank, memories::search(bank, &query)?.into_iter()));
        }
        // Scores of two banks cannot be compared, so the banks take turns, each in its own order.
        while left > 0 && shown < query.limit {
            let round: Vec<(&String, Hit)> =
                banks.iter_mut().filter_map(|(bank, hits)| Some((*bank, hits.next()?))).collect();
            if round.is_empty() {
                break;
            }
            for (bank, hit) in round.into_iter().take((query.limit - shown) as usize) {
                let line = match bank == own {
                    true => format!("- (id {}) {}\n", hit.item.id, hit.item.text.trim()),
                    false => format!("- {}\n", hit.item.text.trim()),
                };
                let line: String = line.chars().take(left).collect();
                left -= line.chars().count();
                shown += 1;
                out += &line;
            }
        }
        Ok(ToolOutput::ok(if shown == 0 { "Nothing is kept about this." } else { out.trim_end() }))
    }

    fn forget(&self, id: &str) -> Result<ToolOutput> {
        match memories::delete(self.own()?, &[id.to_string()])? {
            0 => Ok(ToolOutput::failed("Nothing of this id is kept.")),
            _ => Ok(ToolOutput::ok("It is forgotten.")),
        }
    }
}

stockade_guest::export!(Remember as toolset);

#[cfg(test)]
mod tests;
