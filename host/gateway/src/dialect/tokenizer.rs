//! `/tokenize`, `/detokenize`, `/tokenizer_info` in the shapes that vLLM serves, for outside evaluation tools.

use crate::app::App;
use crate::auth::Caller;
use crate::body::JsonBody;
use crate::dialect::openai::{chat_request, embeddings};
use crate::error::{ApiError, Code};
use crate::fields::Fields;
use crate::reply;
use axum::extract::{Query, State};
use axum::response::Response;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use stockade_core::infer::{ModelInfo, Prompt, TokenizeOptions};
use stockade_core::plugin::Pins;
use stockade_core::registry::Scope;

pub async fn tokenize(
    State(app): State<App>,
    caller: Caller,
    JsonBody(mut body): JsonBody,
) -> Result<Response, ApiError> {
    caller.need(Scope::Inference)?;
    let model = named_model(&app, &caller, &Fields::root(&body)?)?;
    let text = Fields::root(&body)?.str("prompt")?.map(String::from);
    let tokens = match text {
        Some(text) => {
            let f = Fields::root(&body)?;
            let options =
                TokenizeOptions { add_special: f.bool("add_special_tokens")?.unwrap_or(true), parse_special: true };
            app.inference.tokenize(&model.id, &text, options)?
        }
        None => {
            body["model"] = model.id.as_str().into();
            let ask = chat_request::parse(&body)?.ask(&model, &Pins::default())?;
            match ask.prompt {
                Prompt::Chat(chat) => app.inference.render(&model.id, &chat)?.tokens,
                Prompt::Text(_) | Prompt::Tokens(_) => Vec::new(),
            }
        }
    };
    let f = Fields::root(&body)?;
    let texts = match f.bool("return_token_strs")?.unwrap_or(false) {
        true => {
            let one = |id: &u32| app.inference.detokenize(&model.id, &[*id]);
            let texts: Result<Vec<String>, _> = tokens.iter().map(one).collect();
            Some(texts?)
        }
        false => None,
    };
    Ok(reply::json(&json!({
        "count": tokens.len(),
        "max_model_len": model.context_tokens,
        "tokens": tokens,
        "token_strs": texts,
    })))
}

pub async fn detokenize(
    State(app): State<App>,
    caller: Caller,
    JsonBody(body): JsonBody,
) -> Result<Response, ApiError> {
    caller.need(Scope::Inference)?;
    let f = Fields::root(&body)?;
    let model = named_model(&app, &caller, &f)?;
    f.need("tokens")?;
    let tokens = f.array("tokens")?.and_then(|l| embeddings::tokens(l));
    let tokens = tokens.ok_or_else(|| f.wrong("tokens", "must be an array of token ids"))?;
    let text = app.inference.detokenize(&model.id, &tokens)?;
    Ok(reply::json(&json!({"prompt": text})))
}

/// What the files of a model say of its tokenizer: special and added tokens, chat template, and whatever else
/// `tokenizer_config.json` holds. `model` in the query picks one; the default model otherwise, as in vLLM, which serves one.
pub async fn info(
    State(app): State<App>,
    caller: Caller,
    Query(query): Query<BTreeMap<String, String>>,
) -> Result<Response, ApiError> {
    caller.need(Scope::Inference)?;
    let model = match query.get("model") {
        Some(name) => app.model(&caller.tenant, name)?,
        None => default_model(&app, &caller)?,
    };
    let mut info = app.inference.tokenizer_info(&model.id)?;
    info.entry("tokenizer_class").or_insert_with(|| "PreTrainedTokenizerFast".into());
    info.insert("model".into(), model.id.as_str().into());
    // What is served, where files say what was trained or 10^30.
    info.insert("model_max_length".into(), model.context_tokens.into());
    Ok(reply::json(&Value::Object(info)))
}

fn named_model(app: &App, caller: &Caller, f: &Fields) -> Result<ModelInfo, ApiError> {
    match f.str("model")? {
        Some(name) => app.model(&caller.tenant, name),
        None => default_model(app, caller),
    }
}

fn default_model(app: &App, caller: &Caller) -> Result<ModelInfo, ApiError> {
    let models = app.models(&caller.tenant)?;
    let first = models.into_iter().next();
    first.ok_or_else(|| ApiError::new(Code::NotFound, "no model is served"))
}
