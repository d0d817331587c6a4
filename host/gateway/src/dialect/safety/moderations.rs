//! `POST /v1/moderations`: verdicts of a shield in OpenAI's shape.
//!
//! `model` names the shield, `moderation` without one. A shield that has a setting `report` is asked to tell its scores of
//! every text; of another one a block is what is flagged, under its own category.

use super::resolve;
use crate::app::App;
use crate::auth::Caller;
use crate::body::LateBody;
use crate::dialect::openai::reply_id;
use crate::error::ApiError;
use crate::fields::Fields;
use crate::layers::RequestInfo;
use crate::run::Status;
use crate::{inference, reply};
use axum::extract::State;
use axum::response::Response;
use serde_json::{Map, Value, json};
use stockade_core::chat::{Message, Role};
use stockade_core::plugin::{Direction, Verdict};

/// The shield that answers when the client names none, or one of OpenAI's models.
const DEFAULT: &str = "moderation";
/// Most texts of a request.
const MAX_INPUTS: usize = 256;
/// OpenAI's categories: a reply has them all.
const CATEGORIES: [&str; 13] = [
    "harassment",
    "harassment/threatening",
    "hate",
    "hate/threatening",
    "illicit",
    "illicit/violent",
    "self-harm",
    "self-harm/instructions",
    "self-harm/intent",
    "sexual",
    "sexual/minors",
    "violence",
    "violence/graphic",
];

pub async fn create(
    State(app): State<App>,
    caller: Caller,
    info: RequestInfo,
    body: LateBody,
) -> Result<Response, ApiError> {
    let route = "POST /v1/moderations";
    inference::run(&app, &caller, info, route, async |run| {
        let body = body.read(&app).await?;
        let f = Fields::root(&body)?;
        let name = f.str("model")?.filter(|m| !m.starts_with("omni-moderation") && !m.starts_with("text-moderation"));
        let name = name.unwrap_or(DEFAULT);
        let texts = texts(&f)?;
        let found = resolve(&app, &caller.tenant, run.pins(), name)?;
        let has_manifest = found.record.as_ref().is_some_and(|r| r.admitted.manifest.is_object());
        let reports = has_manifest && found.takes("report");
        let params = if reports { Map::from_iter([("report".into(), true.into())]) } else { Map::new() };
        let shield = found.with(&params)?;
        let mut results = Vec::with_capacity(texts.len());
        for text in texts {
            let messages = vec![Message::text(Role::User, text)];
            let verdict = app.plugins.check(run.call(&shield), Direction::Input, messages).await;
            results.push(result(verdict.map_err(|e| crate::chain::shield_failed(&shield, e))?));
        }
        run.ended(Status::Ok);
        Ok(reply::json(&json!({"id": reply_id("modr"), "model": name, "results": results})))
    })
    .await
}

/// A text, texts, or one text in parts.
fn texts(f: &Fields) -> Result<Vec<String>, ApiError> {
    let wrong = || f.wrong("input", "must be a string, strings, or text parts");
    match f.need("input")? {
        Value::String(text) => Ok(vec![text.clone()]),
        Value::Array(list) if list.is_empty() || list.len() > MAX_INPUTS => {
            Err(f.wrong("input", format!("1 to {MAX_INPUTS} inputs")))
        }
        Value::Array(list) if list[0].is_string() => {
            list.iter().map(|v| v.as_str().map(String::from)).collect::<Option<_>>().ok_or_else(wrong)
        }
        Value::Array(list) => {
            let text = |v: &Value| (v["type"] == "text").then(|| v["text"].as_str().map(String::from)).flatten();
            let parts = list.iter().map(text).collect::<Option<Vec<_>>>();
            Ok(vec![parts.ok_or_else(|| f.wrong("input", "pictures are not moderated: text parts only"))?.join("\n")])
        }
        _ => Err(wrong()),
    }
}

fn result(verdict: Verdict) -> Value {
    let mut categories: Map<String, Value> = CATEGORIES.iter().map(|c| (c.to_string(), false.into())).collect();
    let mut scores: Map<String, Value> = CATEGORIES.iter().map(|c| (c.to_string(), 0.0.into())).collect();
    let mut flagged = false;
    if let Verdict::Block(found) = verdict {
        match found.metadata["category_scores"].as_object() {
            // The shield speaks this dialect itself.
            Some(told) => {
                flagged = found.metadata["flagged"].as_bool().unwrap_or(true);
                scores.extend(told.clone());
                if let Some(told) = found.metadata["categories"].as_object() {
                    categories.extend(told.clone());
                }
            }
            None => {
                flagged = true;
                scores.insert(found.category.clone(), found.score.unwrap_or(1.0).into());
                categories.insert(found.category, true.into());
            }
        }
    }
    let applied: Map<String, Value> = categories
        .iter()
        .map(|(name, hit)| (name.clone(), if hit == &Value::Bool(true) { json!(["text"]) } else { json!([]) }))
        .collect();
    json!({
        "flagged": flagged,
        "categories": categories,
        "category_scores": scores,
        "category_applied_input_types": applied,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use stockade_core::plugin::Violation;

    fn block(metadata: Value) -> Verdict {
        Verdict::Block(Violation { category: "S10".into(), message: String::new(), score: Some(0.75), metadata })
    }

    #[test]
    fn every_result_has_all_categories() {
        let clean = result(Verdict::Pass);
        assert_eq!(clean["categories"].as_object().unwrap().len(), CATEGORIES.len());
        assert_eq!((&clean["flagged"], &clean["category_scores"]["hate"]), (&json!(false), &json!(0.0)));
    }

    #[test]
    fn scores_are_the_shields_own_or_its_category() {
        let told = result(block(json!({"flagged": false, "category_scores": {"hate": 0.25}, "categories": {}})));
        assert_eq!((&told["flagged"], &told["category_scores"]["hate"]), (&json!(false), &json!(0.25)));
        let other = result(block(Value::Null));
        assert_eq!((&other["flagged"], &other["categories"]["S10"]), (&json!(true), &json!(true)));
        assert_eq!(other["category_scores"]["S10"], 0.75);
        assert_eq!(other["category_applied_input_types"]["S10"], json!(["text"]));
    }

    #[test]
    fn inputs_are_texts_in_any_of_three_forms() {
        let read = |input: Value| {
            let body = json!({"input": input});
            texts(&Fields::root(&body).unwrap())
        };
        assert_eq!(read(json!("a")).unwrap(), ["a"]);
        assert_eq!(read(json!(["a", "b"])).unwrap(), ["a", "b"]);
        assert_eq!(read(json!([{"type": "text", "text": "a"}, {"type": "text", "text": "b"}])).unwrap(), ["a\nb"]);
        for bad in [json!([]), json!(1), json!(["a", 1]), json!([{"type": "image_url"}])] {
            assert!(read(bad).is_err());
        }
    }
}
