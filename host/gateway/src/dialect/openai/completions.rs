//! `POST /v1/completions`: text goes on as it is, without a chat template; what evaluation harnesses score with.

use super::chat_reply::Gathered;
use super::{add_choice, finish_reason, finite, now, reply_id, sampling, token_text, usage};
use crate::app::App;
use crate::auth::Caller;
use crate::body::LateBody;
use crate::chain::{self, Ask, Choice, InputVerdict};
use crate::error::{ApiError, Code};
use crate::fields::Fields;
use crate::layers::RequestInfo;
use crate::run::{Run, Status};
use crate::sse::{self, Encode};
use crate::{inference, jobs, reply};
use axum::extract::State;
use axum::response::Response;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;
use stockade_core::event::{End, Event, FinishReason, TokenLogprob, Usage};
use stockade_core::infer::{EmbedInput, ModelInfo, ModelKind, Prompt, Sampling, ScoreRequest, TokenizeOptions};

/// Most choices over all prompts of a request.
const MAX_CHOICES: usize = 128;
/// What OpenAI takes when `max_tokens` is absent.
const DEFAULT_TOKENS: u32 = 16;

#[derive(Debug, Clone, PartialEq)]
struct Request {
    prompts: Vec<Prompt>,
    n: usize,
    max_tokens: u32,
    echo: bool,
    stream: bool,
    include_usage: bool,
    sampling: Sampling,
}

pub async fn create(
    State(app): State<App>,
    caller: Caller,
    info: RequestInfo,
    body: LateBody,
) -> Result<Response, ApiError> {
    let route = "POST /v1/completions";
    inference::run(&app, &caller, info, route, async |run| {
        let body = body.read(&app).await?;
        let f = Fields::root(&body)?;
        let name = f.need_str("model")?;
        let request = parse(&f)?;
        jobs::serve_named(&app, &caller.tenant, name).await?;
        let model = app.model_of(&caller.tenant, name, ModelKind::Generator)?;
        run.uses(&model);
        let (stream, n, logprobs) = (request.stream, request.n, request.sampling.logprobs);
        let include_usage = request.include_usage;
        let (echoes, choices) = start(&run, &model, request).await?;
        let writer = Writer {
            id: reply_id("cmpl"),
            created: now(),
            model: name.into(),
            request: run.request.to_string(),
            n,
            logprobs: logprobs.is_some(),
            include_usage,
            offsets: vec![0; choices.len()],
            prompts: vec![Usage::default(); choices.len() / n],
            echoes,
        };
        if stream {
            return sse::reply(&run, choices, writer).await;
        }
        let choices = inference::gather(choices, Gathered::default, Gathered::add).await?;
        Ok(reply::json(&writer.whole(choices)))
    })
    .await
}

fn parse(f: &Fields) -> Result<Request, ApiError> {
    let (stream, include_usage) = sampling::stream(f)?;
    let mut sampling = sampling::read(f)?;
    let top = f.integer("logprobs", 0..=sampling::MAX_TOP_LOGPROBS)?;
    sampling.logprobs = top.and_then(|t| u8::try_from(t).ok());
    let n = sampling::choices(f)?;
    if f.integer("best_of", 1..=20)?.is_some_and(|b| b as usize != n) {
        return Err(f.wrong("best_of", "must equal `n`: ranking is not served"));
    }
    if f.str("suffix")?.is_some_and(|s| !s.is_empty()) {
        return Err(f.wrong("suffix", "is not served"));
    }
    let prompts = prompts(f)?;
    if prompts.len() * n > MAX_CHOICES {
        return Err(f.wrong("prompt", format!("at most {MAX_CHOICES} choices in all")));
    }
    Ok(Request {
        prompts,
        n,
        max_tokens: sampling::max_tokens(f, "max_tokens", 0)?.unwrap_or(DEFAULT_TOKENS),
        echo: f.bool("echo")?.unwrap_or(false),
        stream,
        include_usage,
        sampling,
    })
}

/// A string, strings, token ids, or arrays of token ids.
fn prompts(f: &Fields) -> Result<Vec<Prompt>, ApiError> {
    let wrong = || f.wrong("prompt", "must be a string, an array of strings, token ids, or arrays of token ids");
    let one = |v: &Value| match v {
        Value::String(s) => Some(Prompt::Text(s.clone())),
        Value::Array(ids) if !ids.is_empty() => super::embeddings::tokens(ids).map(Prompt::Tokens),
        _ => None,
    };
    match f.need("prompt")? {
        Value::Array(list) if list.first().is_some_and(Value::is_number) => {
            let ids = super::embeddings::tokens(list).ok_or_else(wrong)?;
            Ok(vec![Prompt::Tokens(ids)])
        }
        Value::Array(list) if !list.is_empty() && list.len() <= MAX_CHOICES => {
            list.iter().map(one).collect::<Option<_>>().ok_or_else(wrong)
        }
        other => Ok(vec![one(other).ok_or_else(wrong)?]),
    }
}

/// The prompt as it is shown before a choice.
#[derive(Debug, Clone, Default, PartialEq)]
struct Echo {
    text: String,
    /// Tokens with their log-probability; the first has none.
    tokens: Vec<(String, Option<TokenLogprob>)>,
}

/// Shields each prompt, scores the echoed ones, starts their choices. Echoes are by prompt.
async fn start(
    run: &Arc<Run>,
    model: &ModelInfo,
    request: Request,
) -> Result<(Vec<Option<Echo>>, Vec<Choice>), ApiError> {
    let (mut echoes, mut choices) = (Vec::new(), Vec::new());
    for mut prompt in request.prompts {
        if let InputVerdict::Refuse(text) = chain::check(run, &model.id, &mut prompt).await? {
            echoes.push(None);
            choices.extend((0..request.n).map(|_| chain::refused(&text)));
            continue;
        }
        let scored = request.sampling.logprobs.is_some();
        echoes.push(match request.echo {
            true => Some(echo(run, model, &prompt, scored).await?),
            false => None,
        });
        if request.max_tokens == 0 {
            let end = End {
                reason: FinishReason::Length,
                usage: Usage { prompt_tokens: token_ids(run, model, &prompt)?.len() as u32, ..Usage::default() },
                refusal: None,
                interruption: None,
            };
            run.took(end.usage);
            run.ended(Status::Ok);
            choices.extend((0..request.n).map(|_| chain::ended(end.clone())));
            continue;
        }
        let ask = Ask {
            resume: None,
            dialect: Default::default(),
            model: model.id.clone(),
            prompt,
            sampling: Sampling { max_tokens: Some(request.max_tokens), ..request.sampling.clone() },
            constraint: None,
            metadata: BTreeMap::new(),
            parallel_calls: true,
        };
        choices.extend(chain::generate(run, ask, request.n).await?);
    }
    Ok((echoes, choices))
}

fn token_ids(run: &Run, model: &ModelInfo, prompt: &Prompt) -> Result<Vec<u32>, ApiError> {
    match prompt {
        Prompt::Tokens(ids) => Ok(ids.clone()),
        Prompt::Text(text) => {
            let options = TokenizeOptions { add_special: true, parse_special: false };
            Ok(run.app.inference.tokenize(&model.id, text, options)?)
        }
        Prompt::Chat(_) => Err(ApiError::new(Code::InvalidRequest, "not a text prompt")),
    }
}

async fn echo(run: &Arc<Run>, model: &ModelInfo, prompt: &Prompt, scored: bool) -> Result<Echo, ApiError> {
    let inference = &run.app.inference;
    let text = match prompt {
        Prompt::Text(text) => text.clone(),
        Prompt::Tokens(ids) => inference.detokenize(&model.id, ids)?,
        Prompt::Chat(_) => String::new(),
    };
    let ids = match scored {
        true => token_ids(run, model, prompt)?,
        false => Vec::new(),
    };
    let Some((first, rest)) = ids.split_first() else {
        return Ok(Echo { text, tokens: Vec::new() });
    };
    let mut tokens = vec![(inference.detokenize(&model.id, &[*first])?, None)];
    if !rest.is_empty() {
        let _span = run.span("score");
        let request = ScoreRequest {
            model: model.id.clone(),
            tenant: run.tenant.clone(),
            context: Prompt::Tokens(vec![*first]),
            continuation: EmbedInput::Tokens(rest.to_vec()),
        };
        let scores = inference.log_likelihood(request).await?;
        tokens.extend(scores.into_iter().map(|t| (token_text(&t.bytes), Some(t))));
    }
    Ok(Echo { text, tokens })
}

struct Writer {
    id: String,
    created: u64,
    model: String,
    request: String,
    /// Choices a prompt.
    n: usize,
    logprobs: bool,
    include_usage: bool,
    /// Characters of each choice that have been written, for `text_offset`.
    offsets: Vec<usize>,
    /// Usage by prompt.
    prompts: Vec<Usage>,
    /// By prompt.
    echoes: Vec<Option<Echo>>,
}

impl Writer {
    fn object(&self, choices: Vec<Value>) -> Map<String, Value> {
        let mut out = Map::new();
        out.insert("id".into(), self.id.as_str().into());
        out.insert("object".into(), "text_completion".into());
        out.insert("created".into(), self.created.into());
        out.insert("model".into(), self.model.as_str().into());
        out.insert("choices".into(), choices.into());
        out
    }

    fn took(&mut self, choice: usize, u: Usage) {
        if let Some(total) = self.prompts.get_mut(choice / self.n) {
            add_choice(total, u);
        }
    }

    fn usage(&self) -> Value {
        let mut total = Usage::default();
        for u in &self.prompts {
            total += *u;
        }
        usage(total)
    }

    /// The `logprobs` object of the next tokens of a choice.
    fn entries(&mut self, i: usize, tokens: &[(String, Option<&TokenLogprob>)]) -> Value {
        if !self.logprobs {
            return Value::Null;
        }
        let offset = &mut self.offsets[i];
        let (mut texts, mut probs, mut tops, mut at) = (vec![], vec![], vec![], vec![]);
        for (text, entry) in tokens {
            at.push(*offset);
            *offset += text.chars().count();
            texts.push(text);
            probs.push(entry.map(|e| finite(e.logprob)));
            tops.push(entry.map(|e| {
                let pair = |(_, bytes, p): &(u32, Vec<u8>, f32)| (token_text(bytes), json!(finite(*p)));
                e.top.iter().map(pair).collect::<Map<String, Value>>()
            }));
        }
        json!({
            "tokens": texts,
            "token_logprobs": probs,
            "top_logprobs": tops,
            "text_offset": at,
        })
    }

    fn echo(&self, i: usize) -> Option<Echo> {
        self.echoes.get(i / self.n).cloned().flatten()
    }

    fn choice(
        &mut self,
        i: usize,
        echo: Option<Echo>,
        text: &str,
        entries: &[TokenLogprob],
        end: Option<&End>,
    ) -> Value {
        let echo = echo.unwrap_or_default();
        let mut tokens: Vec<(String, Option<&TokenLogprob>)> = Vec::new();
        tokens.extend(echo.tokens.iter().map(|(t, e)| (t.clone(), e.as_ref())));
        tokens.extend(entries.iter().map(|e| (token_text(&e.bytes), Some(e))));
        let logprobs = self.entries(i, &tokens);
        let mut choice = json!({
            "index": i,
            "text": echo.text + text,
            "logprobs": logprobs,
            "finish_reason": end.map(|e| finish_reason(e.reason)),
        });
        if let Some(refusal) = end.and_then(|e| e.refusal.as_deref()) {
            choice["refusal"] = refusal.into();
        }
        choice
    }

    fn whole(mut self, gathered: Vec<Gathered>) -> Value {
        let mut choices = Vec::with_capacity(gathered.len());
        for (i, g) in gathered.into_iter().enumerate() {
            if let Some(end) = &g.end {
                self.took(i, end.usage);
            }
            let echo = self.echo(i);
            choices.push(self.choice(i, echo, &g.text, &g.logprobs, g.end.as_ref()));
        }
        let mut out = self.object(choices);
        out.insert("usage".into(), self.usage());
        Value::Object(out)
    }

    fn chunk(&self, choice: Value, out: &mut String) {
        let mut chunk = self.object(vec![choice]);
        if self.include_usage {
            chunk.insert("usage".into(), Value::Null);
        }
        sse::data(&Value::Object(chunk), out);
    }

    /// The prompt is written before the choice's first event.
    fn begin(&mut self, i: usize, out: &mut String) {
        if let Some(echo) = self.echo(i)
            && self.offsets[i] == 0
            && !echo.text.is_empty()
        {
            let chars = echo.text.chars().count();
            let choice = self.choice(i, Some(echo), "", &[], None);
            self.offsets[i] = chars;
            self.chunk(choice, out);
        }
    }
}

impl Encode for Writer {
    fn event(&mut self, i: usize, event: Event, out: &mut String) {
        self.begin(i, out);
        match event {
            Event::Text(delta) => {
                let choice = self.choice(i, None, &delta.text, &delta.logprobs, None);
                self.chunk(choice, out);
            }
            // Plain text has none; a model that marks them off speaks through chat completions.
            Event::Reasoning { .. } | Event::ToolCall(_) | Event::Step(_) => {}
            Event::End(end) => {
                self.took(i, end.usage);
                let mut choice = self.choice(i, None, "", &[], Some(&end));
                choice["logprobs"] = Value::Null;
                self.chunk(choice, out);
            }
        }
    }

    fn error(&mut self, e: &ApiError, out: &mut String) {
        sse::data(&e.openai(&self.request), out);
    }

    fn finish(&mut self, out: &mut String) {
        if self.include_usage {
            let mut chunk = self.object(vec![]);
            chunk.insert("usage".into(), self.usage());
            sse::data(&Value::Object(chunk), out);
        }
        out.push_str("data: [DONE]\n\n");
    }
}
