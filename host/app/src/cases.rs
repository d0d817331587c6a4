//! The test cases of a plugin, `tests/*.json`: run against the built component in the host's own sandbox, no server.

use crate::commands::plugin::Built;
use crate::failure::{Exit, Failure};
use crate::sandbox::Sandbox;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use std::path::Path;
use stockade_core::plugin::{Call, Channel, Edit, Plugins, Ruling};

/// Most cases in a folder.
const MAX_CASES: usize = 10_000;

/// One case; see the guest SDK's `templates/README.md`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    name: String,
    #[serde(default = "empty_object")]
    config: Value,
    #[serde(default)]
    function: Option<String>,
    #[serde(default)]
    args: Vec<Value>,
    #[serde(default)]
    stream: Option<String>,
    expect: Value,
}

fn empty_object() -> Value {
    Value::Object(Map::new())
}

pub struct Outcome {
    pub name: String,
    /// Why it failed.
    pub failure: Option<String>,
}

/// Runs every case of every JSON file in `folder`, in file order.
pub fn run_folder(folder: &Path, built: &Built) -> Result<Vec<Outcome>, Failure> {
    let mut cases = Vec::new();
    let mut files: Vec<_> = std::fs::read_dir(folder).into_iter().flatten().flatten().map(|e| e.path()).collect();
    files.sort();
    for file in files.iter().filter(|f| f.extension().is_some_and(|e| e == "json")) {
        let text = std::fs::read_to_string(file)?;
        let found: Vec<Case> =
            serde_json::from_str(&text).map_err(|e| Failure::usage(format!("{}: {e}", file.display())))?;
        cases.extend(found);
    }
    if cases.len() > MAX_CASES {
        return Err(Failure::usage(format!("{} cases; the limit is {MAX_CASES}", cases.len())));
    }
    if cases.is_empty() {
        return Ok(Vec::new());
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(async {
        let sandbox = Sandbox::load(&std::fs::read(&built.path)?).await?;
        let mut outcomes = Vec::new();
        for case in cases {
            let failure = run(&sandbox, &case).await?;
            outcomes.push(Outcome { name: case.name, failure });
        }
        Ok(outcomes)
    })
}

async fn run(sandbox: &Sandbox, case: &Case) -> Result<Option<String>, Failure> {
    let call = sandbox.call(case.config.clone());
    match (&case.function, &case.stream) {
        (Some(function), None) => {
            let got = match sandbox.plugins.invoke(call, function.clone(), case.args.clone()).await {
                Ok(invocation) => invocation.result,
                Err(e) => json!({"error": e.to_string()}),
            };
            Ok((!matches(&case.expect, &got)).then(|| format!("expected {}, got {got}", case.expect)))
        }
        (None, Some(text)) => {
            // Whole, character by character, and in two pieces at every character.
            let mut cuts: Vec<Vec<&str>> = vec![vec![text.as_str()]];
            cuts.push(text.char_indices().map(|(i, c)| &text[i..i + c.len_utf8()]).collect());
            cuts.extend(text.char_indices().skip(1).map(|(i, _)| vec![&text[..i], &text[i..]]));
            for pieces in cuts {
                let got = stream(&sandbox.plugins, call.clone(), &pieces).await;
                if !matches(&case.expect, &got) {
                    return Ok(Some(format!("expected {}, got {got} when cut as {pieces:?}", case.expect)));
                }
            }
            Ok(None)
        }
        _ => Err(Failure::new(Exit::Usage, format!("case `{}` needs either `function` or `stream`", case.name))),
    }
}

/// Feeds the pieces to a streaming shield and answers with what would have been sent, and what blocked it.
async fn stream(plugins: &impl Plugins, call: Call, pieces: &[&str]) -> Value {
    let answer: Result<Value, String> = async {
        let mut shield = plugins.open_stream(call, &[]).await.map_err(|e| e.to_string())?;
        let (mut fed, mut sent) = (String::new(), Sent::default());
        for piece in pieces {
            fed.push_str(piece);
            let ruling = shield.feed(Channel::Text, piece).await.map_err(|e| e.to_string())?;
            if let Some(blocked) = sent.apply(&fed, ruling)? {
                return Ok(json!({"sent": sent.text, "blocked": blocked}));
            }
        }
        let ruling = shield.finish(Channel::Text).await.map_err(|e| e.to_string())?;
        let blocked = sent.apply(&fed, ruling)?;
        if blocked.is_none() && sent.cleared != fed.len() {
            return Err(format!("{} of {} bytes were never cleared", fed.len() - sent.cleared, fed.len()));
        }
        Ok(json!({"sent": sent.text, "blocked": blocked}))
    }
    .await;
    answer.unwrap_or_else(|error| json!({"error": error}))
}

#[derive(Default)]
struct Sent {
    text: String,
    cleared: usize,
}

impl Sent {
    fn apply(&mut self, fed: &str, ruling: Ruling) -> Result<Option<String>, String> {
        let at = |offset: u64| usize::try_from(offset).unwrap_or(usize::MAX);
        let slice =
            |from: usize, to: usize| fed.get(from..to).ok_or_else(|| format!("{from}..{to} is no range of text"));
        for Edit { start, end, replacement } in &ruling.edits {
            self.text += slice(self.cleared, at(*start))?;
            self.text += replacement;
            self.cleared = at(*end);
        }
        self.text += slice(self.cleared, at(ruling.cleared))?;
        self.cleared = at(ruling.cleared);
        Ok(ruling.violation.map(|v| v.category))
    }
}

/// Whether `got` is what was expected: an object may have more fields than are expected.
fn matches(expected: &Value, got: &Value) -> bool {
    match (expected, got) {
        (Value::Object(want), Value::Object(have)) => {
            want.iter().all(|(key, value)| matches(value, have.get(key).unwrap_or(&Value::Null)))
        }
        (Value::Array(want), Value::Array(have)) => {
            want.len() == have.len() && want.iter().zip(have).all(|(w, h)| matches(w, h))
        }
        (Value::Number(want), Value::Number(have)) => {
            want == have || want.as_f64().zip(have.as_f64()).is_some_and(|(w, h)| (w - h).abs() <= 1e-6 * w.abs())
        }
        _ => expected == got,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expectation_lists_only_the_fields_that_matter() {
        assert!(matches(&json!({"a": [1, {"b": null}]}), &json!({"a": [1.0, {"c": 2}], "d": 3})));
        assert!(!matches(&json!({"a": [1]}), &json!({"a": [1, 2]})));
        assert!(!matches(&json!({"a": 1}), &json!({"a": "1"})));
    }

    #[test]
    fn sent_text_has_edits_in_place_and_refuses_bad_offsets() {
        let mut sent = Sent::default();
        let edit = Edit { start: 2, end: 4, replacement: "#".into() };
        let ruling = Ruling { cleared: 5, edits: vec![edit], violation: None };
        assert_eq!(sent.apply("abcdefg", ruling), Ok(None));
        assert_eq!(sent.text, "ab#e");
        assert!(sent.apply("abcdefg", Ruling { cleared: 99, ..Ruling::default() }).is_err());
    }
}
