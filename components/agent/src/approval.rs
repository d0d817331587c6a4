//! Tool calls that a person has to allow: the turn stops with a question, and goes on with the answer.

use serde::Serialize;
use serde::de::DeserializeOwned;
use std::collections::BTreeMap;
use stockade_guest::prelude::*;

/// Why calls may not be made, by call id. Those that are allowed are not in it.
pub type Refusals = BTreeMap<String, String>;

/// One person's word on a call.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Decision {
    approve: bool,
    #[serde(default)]
    reason: Option<String>,
}

/// Whether a call to this tool waits for approval; `*` at a name's end stands for anything.
pub fn is_needed(list: &[String], tool: &str) -> bool {
    list.iter().any(|name| name == tool || name.strip_suffix('*').is_some_and(|start| tool.starts_with(start)))
}

/// Leaves a turn with the question. `hint` says what was wrong with an earlier answer; `state` is what the turn needs to
/// go on, given back to it by [`resume`].
pub fn interrupt(waiting: &[&ToolCall], hint: Option<String>, state: &impl Serialize) -> Result<Outcome> {
    let (question, program) = question(waiting);
    let question = hint.map_or(String::new(), |hint| hint + "\n") + &question;
    let state = serde_json::to_string(state)?;
    Ok(Outcome::Interrupted(Interruption { question, request: program.to_string(), state }))
}

/// What [`interrupt`] left, and the answer; nothing of both where a turn begins.
pub fn resume<S: DeserializeOwned + Default>(resumption: Option<Resumption>) -> Result<(S, Option<String>)> {
    let Some(Resumption { state, answer }) = resumption else { return Ok((S::default(), None)) };
    let state =
        serde_json::from_str(&state).map_err(|e| Error::Invalid(format!("resume.state: not of this plugin: {e}")))?;
    Ok((state, Some(answer)))
}

/// The question for a person and the same for programs:
/// `{"type": "tool-approval", "calls": [{"id", "name", "arguments"}]}`. Arguments are shown whole: nobody approves what they
/// have not seen.
fn question(waiting: &[&ToolCall]) -> (String, Value) {
    let lines: Vec<String> = waiting.iter().map(|call| format!("{} {}", call.name, call.arguments)).collect();
    let question = match &lines[..] {
        [one] => format!("May this tool be called? {one}"),
        several => format!("May these tools be called?\n{}", several.join("\n")),
    };
    let calls = waiting.iter().map(|call| {
        let arguments: Value = serde_json::from_str(&call.arguments).unwrap_or_else(|_| (&*call.arguments).into());
        json!({"id": call.id, "name": call.name, "arguments": arguments})
    });
    (question, json!({"type": "tool-approval", "calls": calls.collect::<Vec<_>>()}))
}

/// Reads `{"approve": true|false, "reason"?}` for all waiting calls, or an object of such by call id, which has to name
/// every one of them. Otherwise says what an answer looks like.
pub fn read(answer: &str, waiting: &[&ToolCall]) -> Result<Refusals, String> {
    let malformed = || {
        let ids: Vec<&str> = waiting.iter().map(|c| c.id.as_str()).collect();
        let form = r#"{"approve": true or false, "reason": "..."}"#;
        format!("An answer is {form}, or one such for each of {}.", ids.join(", "))
    };
    let answer: Value = serde_json::from_str(answer).map_err(|_| malformed())?;
    let mut refusals = Refusals::new();
    for call in waiting {
        let decision = if answer.get("approve").is_some() { &answer } else { &answer[&call.id] };
        let Decision { approve, reason } = Decision::deserialize(decision).map_err(|_| malformed())?;
        if !approve {
            let reason = reason.filter(|r| !r.is_empty()).map_or(String::new(), |reason| format!(": {reason}"));
            refusals.insert(call.id.clone(), format!("the user does not allow this call{reason}"));
        }
    }
    Ok(refusals)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(id: &str) -> ToolCall {
        ToolCall { id: id.into(), name: "send".into(), arguments: r#"{"to":"Ann"}"#.into() }
    }

    #[test]
    fn answers_decide_on_all_calls_or_on_each() {
        let (a, b) = (call("a"), call("b"));
        let refused = |answer: Value| read(&answer.to_string(), &[&a, &b]).map(|r| r.into_keys().collect::<Vec<_>>());
        assert_eq!(refused(json!({"approve": true})), Ok(vec![]));
        assert_eq!(refused(json!({"approve": false})), Ok(vec!["a".into(), "b".into()]));
        let each = json!({"a": {"approve": true}, "b": {"approve": false, "reason": "too late"}});
        assert_eq!(refused(each.clone()), Ok(vec!["b".into()]));
        let refusals = read(&each.to_string(), &[&a, &b]).unwrap();
        assert_eq!(refusals["b"], "the user does not allow this call: too late");
    }

    #[test]
    fn an_answer_that_leaves_a_call_open_is_none() {
        let (a, b) = (call("a"), call("b"));
        for answer in [
            "",
            "true",
            "{}",
            "[]",
            r#"{"approve": "yes"}"#,
            r#"{"a": {"approve": true}}"#,
            r#"{"approve": 1, "b": 2}"#,
        ] {
            let read = read(answer, &[&a, &b]);
            assert!(matches!(&read, Err(text) if text.contains("a, b")), "{answer}: {read:?}");
        }
    }

    #[test]
    fn the_question_names_every_call_for_people_and_programs() {
        let (text, program) = question(&[&call("a"), &call("b")]);
        assert_eq!(text.matches(r#"send {"to":"Ann"}"#).count(), 2);
        assert_eq!(program["calls"][1], json!({"id": "b", "name": "send", "arguments": {"to": "Ann"}}));
    }

    #[test]
    fn a_star_at_the_end_stands_for_anything() {
        let list = ["send-*".to_string(), "pay".into()];
        let needed = ["send-mail", "send", "pay", "pays"].map(|tool| is_needed(&list, tool));
        assert_eq!(needed, [true, false, true, false]);
        assert!(is_needed(&["*".into()], "x"));
    }
}
