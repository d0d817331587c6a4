//! What answers at once: models, whatever they are asked, and the network.

use serde_json::{Value, json};
use stockade_core::BoxFuture;
use stockade_core::event::{End, Event, FinishReason, TextDelta, TokenLogprob, Usage};
use stockade_core::http::{Http, HttpError, HttpRequest, HttpResponse};
use stockade_core::id::{Digest, ModelId};
use stockade_core::infer::*;

/// A page of 40 paragraphs.
const PARAGRAPH: &str = "<p>Tea is <b>served</b> at <a href='/five'>five</a>.</p>\n";
/// What the model writes where a plan is asked for.
const PLAN: &str = r#"{"steps":[{"task":"Say hello","tool":"none"}]}"#;

/// Models.
pub struct AtOnce;

impl Inference for AtOnce {
    fn models(&self) -> Vec<ModelInfo> {
        let model = |id: &str, kind, dimensions| ModelInfo {
            id: ModelId::new(id).expect("a name"),
            kind,
            digest: Digest([0; 32]),
            base: None,
            context_tokens: 8192,
            parameters: 1,
            embedding_dimensions: dimensions,
            architecture: "none".into(),
            quantization: "F32".into(),
            created: 1,
        };
        vec![
            model("m", ModelKind::Generator, None),
            model("minilm", ModelKind::Embedder, Some(384)),
            model("prompt-guard", ModelKind::Classifier, None),
            model("llama-guard", ModelKind::Generator, None),
        ]
    }
    fn generate(&self, r: GenerateRequest) -> Result<EventStream, InferError> {
        let (tx, rx) = tokio::sync::mpsc::channel(4);
        let usage = Usage { prompt_tokens: 1, cached_tokens: 0, completion_tokens: 1 };
        let end = End { reason: FinishReason::Stop, usage, refusal: None, interruption: None };
        let text = if matches!(r.constraint, Some(Constraint::JsonSchema(_))) { PLAN } else { "Hello." };
        let text = TextDelta { text: text.into(), logprobs: Vec::new() };
        // The channel has room for both.
        let _ = tx.try_send(Ok(Event::Text(text)));
        let _ = tx.try_send(Ok(Event::End(end)));
        Ok(rx)
    }
    fn embed(&self, r: EmbedRequest) -> BoxFuture<'_, Result<Embeddings, InferError>> {
        let vectors = r.inputs.iter().map(|_| vec![0.05; 384]).collect();
        Box::pin(async move { Ok(Embeddings { vectors, prompt_tokens: 1 }) })
    }
    fn classify(&self, r: ClassifyRequest) -> BoxFuture<'_, Result<Vec<Vec<(String, f32)>>, InferError>> {
        let scores = || vec![("BENIGN".to_string(), 0.98), ("MALICIOUS".to_string(), 0.02)];
        let all = r.inputs.iter().map(|_| scores()).collect();
        Box::pin(async move { Ok(all) })
    }
    fn log_likelihood(&self, r: ScoreRequest) -> BoxFuture<'_, Result<Vec<TokenLogprob>, InferError>> {
        let is_safe = matches!(&r.continuation, EmbedInput::Text(text) if text == "safe");
        let logprob = if is_safe { 0.9f32.ln() } else { 0.1f32.ln() };
        Box::pin(async move { Ok(vec![TokenLogprob { id: 0, bytes: Vec::new(), logprob, top: Vec::new() }]) })
    }
    fn tokenize(&self, _: &ModelId, text: &str, _: TokenizeOptions) -> Result<Vec<u32>, InferError> {
        Ok(text.bytes().map(u32::from).collect())
    }
    fn detokenize(&self, _: &ModelId, tokens: &[u32]) -> Result<String, InferError> {
        Ok(tokens.iter().filter_map(|&t| char::from_u32(t)).collect())
    }
    fn render(&self, m: &ModelId, _: &ChatPrompt) -> Result<Rendered, InferError> {
        Err(InferError::UnknownModel(m.to_string()))
    }
    fn load(&self) -> Load {
        Load::default()
    }
}

/// A network of one MCP server, which answers what is posted to it, and of one page.
pub struct Network;

impl Http for Network {
    fn send(&self, request: HttpRequest) -> BoxFuture<'_, Result<HttpResponse, HttpError>> {
        let asked: Value = serde_json::from_slice(&request.body).unwrap_or_default();
        let result = match asked["method"].as_str() {
            Some("initialize") => json!({"protocolVersion": "2025-06-18", "capabilities": {}}),
            Some("tools/call") => json!({"content": [{"type": "text", "text": "3"}]}),
            _ => Value::Null,
        };
        let (kind, body) = match result {
            Value::Null => ("text/html; charset=utf-8", PARAGRAPH.repeat(40)),
            result => ("application/json", json!({"jsonrpc": "2.0", "id": asked["id"], "result": result}).to_string()),
        };
        let headers = vec![("content-type".into(), kind.into()), ("mcp-session-id".into(), "s1".into())];
        Box::pin(async move { Ok(HttpResponse { status: 200, headers, body: body.into() }) })
    }
}
