//! `POST /v1/vector_stores/{id}/search`.

use super::active;
use crate::app::App;
use crate::auth::Caller;
use crate::body::JsonBody;
use crate::error::ApiError;
use crate::fields::Fields;
use crate::layers::RequestInfo;
use crate::{memory, reply};
use axum::extract::{Path, State};
use axum::response::Response;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use stockade_core::registry::Scope;

/// Most queries of a request.
const MAX_QUERIES: usize = 16;

/// `{query, filters?, max_num_results?, ranking_options?, search_mode?}`; several queries find what any of them finds.
pub async fn search(
    State(app): State<App>,
    caller: Caller,
    info: RequestInfo,
    Path(store): Path<String>,
    JsonBody(body): JsonBody,
) -> Result<Response, ApiError> {
    caller.need(Scope::Inference)?;
    active(&app, &caller.tenant, &store).await?;
    let f = Fields::root(&body)?;
    let queries: Vec<String> = match f.need("query")? {
        Value::String(text) => vec![text.clone()],
        Value::Array(list) if (1..=MAX_QUERIES).contains(&list.len()) => {
            let texts = list.iter().map(|v| v.as_str().map(String::from)).collect::<Option<_>>();
            texts.ok_or_else(|| f.wrong("query", "must be a string or strings"))?
        }
        _ => return Err(f.wrong("query", format!("must be a string, or 1 to {MAX_QUERIES} of them"))),
    };
    let limit = f.integer("max_num_results", 1..=50)?.unwrap_or(10);
    let filter = f.object("filters")?.map(|o| Value::Object(o.map().clone()).to_string());
    let mode = mode(&f, "search_mode")?;
    let options = options(&f)?;
    let mut best: BTreeMap<String, Value> = BTreeMap::new();
    for text in &queries {
        let query = json!({
            "text": text, "limit": limit, "filter": filter, "mode": mode,
            "options": (!options.is_empty()).then(|| Value::Object(options.clone()).to_string()),
        });
        let hits = memory::call(&app, &caller.tenant, info.id.clone(), "search", vec![json!(store), query]).await?;
        for hit in hits.as_array().into_iter().flatten() {
            let id = hit["item"]["id"].as_str().unwrap_or_default().to_owned();
            let better = best.get(&id).is_none_or(|known| score(known) < score(hit));
            if better {
                best.insert(id, hit.clone());
            }
        }
    }
    let mut hits: Vec<Value> = best.into_values().collect();
    hits.sort_by(|a, b| score(b).total_cmp(&score(a)));
    hits.truncate(limit as usize);
    Ok(reply::json(&json!({
        "object": "vector_store.search_results.page",
        "search_query": queries,
        "data": hits.iter().map(shown).collect::<Vec<_>>(),
        "has_more": false,
        "next_page": null,
    })))
}

/// How to search, as the memory takes it; `null`: what the bank is for.
pub fn mode(f: &Fields, name: &str) -> Result<Value, ApiError> {
    match f.str(name)? {
        None => Ok(Value::Null),
        Some(mode @ ("vector" | "keyword" | "hybrid")) => Ok(mode.into()),
        Some(_) => Err(f.wrong(name, "must be vector, keyword or hybrid")),
    }
}

/// OpenAI's ranking options, and Llama Stack's, as the memory takes them.
pub fn options(f: &Fields) -> Result<Map<String, Value>, ApiError> {
    let mut out = Map::new();
    let Some(given) = f.object("ranking_options")? else { return Ok(out) };
    match given.str("ranker")? {
        None | Some("auto" | "none" | "default-2024-11-15" | "default_2024_08_21") => {}
        Some(ranker @ ("rrf" | "weighted")) => {
            out.insert("ranker".into(), ranker.into());
        }
        Some(_) => return Err(given.wrong("ranker", "must be auto, none, rrf or weighted")),
    }
    let numbers =
        [("score_threshold", "threshold", 0.0..=1e6), ("alpha", "alpha", 0.0..=1.0), ("impact_factor", "k", 1.0..=1e4)];
    for (theirs, ours, range) in numbers {
        if let Some(n) = given.number(theirs, range)? {
            // A threshold of nothing would still drop what scores below nothing.
            if theirs != "score_threshold" || n > 0.0 {
                out.insert(ours.into(), n.into());
            }
        }
    }
    Ok(out)
}

fn score(hit: &Value) -> f64 {
    hit["score"].as_f64().unwrap_or_default()
}

/// Attributes of a hit's item.
pub fn attributes(item: &Value) -> Map<String, Value> {
    item["metadata"].as_str().and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default()
}

fn shown(hit: &Value) -> Value {
    let mut attributes = attributes(&hit["item"]);
    let file = attributes.shift_remove("file_id").unwrap_or_else(|| hit["item"]["document"].clone());
    let filename = attributes.shift_remove("filename").unwrap_or_else(|| "".into());
    let signals = hit["signals"].as_array().into_iter().flatten();
    let signals: Map<String, Value> = signals.filter_map(|s| Some((s[0].as_str()?.to_owned(), s[1].clone()))).collect();
    json!({
        "file_id": if file.is_null() { "".into() } else { file },
        "filename": filename,
        "score": hit["score"],
        "attributes": attributes,
        "content": [{"type": "text", "text": hit["item"]["text"]}],
        // Ours: what the score was made of.
        "signals": signals,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hit_names_its_file_and_keeps_the_clients_attributes() {
        let metadata = json!({"file_id": "file_1", "filename": "a.txt", "year": 2026}).to_string();
        let hit = json!({"item": {"id": "i", "text": "t", "metadata": metadata, "document": "file_1"}, "score": 0.5,
            "signals": [["vector", 0.4]]});
        let told = shown(&hit);
        assert_eq!((&told["file_id"], &told["filename"]), (&json!("file_1"), &json!("a.txt")));
        assert_eq!((&told["attributes"], &told["signals"]["vector"]), (&json!({"year": 2026}), &json!(0.4)));
    }

    #[test]
    fn ranking_options_are_read_by_both_names() {
        let body = json!({"ranking_options": {"ranker": "auto", "score_threshold": 0.0}});
        assert!(options(&Fields::root(&body).unwrap()).unwrap().is_empty());
        let body = json!({"ranking_options": {"ranker": "weighted", "alpha": 0.25, "score_threshold": 0.5}});
        let read = options(&Fields::root(&body).unwrap()).unwrap();
        assert_eq!(Value::Object(read), json!({"ranker": "weighted", "threshold": 0.5, "alpha": 0.25}));
        assert!(options(&Fields::root(&json!({"ranking_options": {"ranker": "x"}})).unwrap()).is_err());
    }
}
