//! The scripted host that a test sets up and looks into.

use super::fake::jobs::Script;
use super::fake::{self, State, ToolFake};
use crate::Result;
use crate::datasets::{Dataset, Description, Purpose};
use crate::http::{Request, Response};
use crate::inference::{ChatRequest, CompleteRequest, LabelScore, ModelInfo, ModelKind, Prompt, TokenScore};
use crate::prompts::Content;
use crate::telemetry::Level;
use crate::types::{
    Channel, Direction, Error, Event, FinishReason, Message, ToolCallDelta, ToolOutput, ToolSpec, Usage, Verdict,
};
use serde_json::Value;
use std::rc::Rc;

/// A fake host of this thread. The methods that take `self` set it up, the others look into it.
#[derive(Debug)]
pub struct Host(());

impl Host {
    /// Puts a fresh, empty host in place.
    #[expect(clippy::new_without_default, reason = "it has an effect")]
    pub fn new() -> Self {
        fake::with(|state| *state = State::default());
        Self(())
    }

    fn set(self, change: impl FnOnce(&mut State)) -> Self {
        fake::with(change);
        self
    }

    /// Serves a generator of this name, as `inference::models` tells it. Any name is answered from the script.
    pub fn model(self, name: &str, context_tokens: u32) -> Self {
        let kind = ModelKind::Generator;
        let info = ModelInfo { name: name.into(), kind, context_tokens, embedding_dimensions: None };
        self.set(|s| s.models.push(info))
    }

    /// The next generation answers this text, a word an event.
    pub fn reply(self, text: &str) -> Self {
        let words = text.split_inclusive(' ').map(|w| Event::Text(w.into())).collect();
        self.events(words, FinishReason::Stop)
    }

    /// The next generation calls a tool.
    pub fn reply_tool_call(self, name: &str, arguments: Value) -> Self {
        self.reply_tool_calls(&[(name, arguments)])
    }

    /// The next generation calls several tools.
    pub fn reply_tool_calls(self, calls: &[(&str, Value)]) -> Self {
        let delta = |(index, (name, arguments)): (usize, &(&str, Value))| {
            Event::ToolCall(ToolCallDelta {
                index: index as u32,
                id: Some(format!("call-{index}")),
                name: Some((*name).into()),
                arguments: arguments.to_string(),
            })
        };
        self.events(calls.iter().enumerate().map(delta).collect(), FinishReason::ToolCalls)
    }

    /// The next generation gives these events and ends.
    pub fn events(self, mut events: Vec<Event>, reason: FinishReason) -> Self {
        let usage = Usage { prompt_tokens: 1, cached_tokens: 0, completion_tokens: events.len() as u32 };
        events.push(Event::End(crate::types::End { reason, usage }));
        self.set(|s| s.replies.push_back(Ok(events)))
    }

    /// The next generation is refused.
    pub fn refuse(self, error: Error) -> Self {
        self.set(|s| s.replies.push_back(Err(error)))
    }

    /// Embeds texts with this.
    pub fn embedder(self, embed: impl Fn(&str) -> Result<Vec<f32>> + 'static) -> Self {
        self.set(|s| s.embedder = Some(std::rc::Rc::new(embed)))
    }

    /// What every model that classifies says of a text.
    pub fn classifier(self, classify: impl Fn(&str) -> Result<Vec<LabelScore>> + 'static) -> Self {
        self.set(|s| s.classifier = Some(Rc::new(classify)))
    }

    /// How likely every model holds a continuation, a score for each of its tokens.
    pub fn log_likelihood(self, score: impl Fn(&Prompt, &str) -> Result<Vec<TokenScore>> + 'static) -> Self {
        self.set(|s| s.scorer = Some(Rc::new(score)))
    }

    /// Binds a tool.
    pub fn tool(self, name: &str, run: impl Fn(Value) -> Result<ToolOutput> + 'static) -> Self {
        let spec = ToolSpec::new(name, "", &serde_json::json!({"type": "object"}));
        self.set(|s| {
            s.tools.insert(name.into(), ToolFake { spec, run: Box::new(run) });
        })
    }

    /// Puts a prompt into the bound prompt store: whatever the variables, it renders to this text.
    pub fn prompt(self, name: &str, text: &str) -> Self {
        self.set(|s| {
            s.prompts.insert(name.into(), Content::Text(text.into()));
        })
    }

    /// As [`Host::prompt`], for a chat prompt.
    pub fn chat_prompt(self, name: &str, messages: Vec<Message>) -> Self {
        self.set(|s| {
            s.prompts.insert(name.into(), Content::Messages(messages));
        })
    }

    /// Grants the network, which answers each request like this.
    pub fn network(self, answer: impl FnMut(&Request) -> Result<Response> + 'static) -> Self {
        self.set(|s| s.network = Some(Box::new(answer)))
    }

    pub fn secret(self, name: &str, value: &str) -> Self {
        self.set(|s| {
            s.secrets.insert(name.into(), value.into());
        })
    }

    /// Only these buckets are granted; without this call all are.
    pub fn buckets(self, names: &[&str]) -> Self {
        self.set(|s| s.buckets_granted = Some(names.iter().map(|n| n.to_string()).collect()))
    }

    /// Puts a data set of the tenant's in place, which is not the plugin's own.
    pub fn dataset(self, name: &str, rows: &[Value]) -> Self {
        let rows: Vec<String> = rows.iter().map(Value::to_string).collect();
        let description = Description::new(name, Purpose::PostTraining, "CC0-1.0", "made for a test");
        let bytes = rows.iter().map(|row| row.len() as u64 + 1).sum();
        let dataset = Dataset { description, bytes, created_at: fake::system::now(), changeable: false };
        self.set(|s| {
            s.datasets.insert(name.into(), (dataset, rows));
        })
    }

    /// Only these data sets are granted; without this call all are.
    pub fn datasets(self, names: &[&str]) -> Self {
        self.set(|s| s.datasets_granted = Some(names.iter().map(|n| n.to_string()).collect()))
    }

    /// The next job makes steps of these losses and succeeds. A job goes on by one event each time that the plugin looks.
    pub fn job(self, losses: &[f64]) -> Self {
        self.set(|s| s.job_scripts.push_back(Script { losses: losses.into(), fails: None }))
    }

    /// The next job fails after such steps.
    pub fn failing_job(self, losses: &[f64], message: &str) -> Self {
        self.set(|s| s.job_scripts.push_back(Script { losses: losses.into(), fails: Some(message.into()) }))
    }

    /// A shield ends the reply once this many bytes of text have left.
    pub fn block_output_after(self, bytes: usize) -> Self {
        self.set(|s| s.block_after = Some(bytes))
    }

    /// What the bound shields answer to a plugin that asks.
    pub fn shields(self, verdict: Verdict) -> Self {
        self.set(|s| s.shields = Some(verdict))
    }

    /// Binds a shield to `shield/NAME`.
    pub fn shield(self, name: &str, run: impl Fn(Direction, &[Message]) -> Result<Verdict> + 'static) -> Self {
        self.set(|s| {
            s.named_shields.insert(name.into(), Rc::new(run));
        })
    }

    /// What the shield that is bound to `shield/NAME` makes of a stretch of a reply to a conversation.
    pub fn reply_shield(
        self,
        name: &str,
        run: impl Fn(Channel, &[Message], &str) -> Result<Verdict> + 'static,
    ) -> Self {
        self.set(|s| {
            s.reply_shields.insert(name.into(), Rc::new(run));
        })
    }

    /// What the plugin has asked of models, in order.
    pub fn requests(&self) -> Vec<ChatRequest> {
        fake::with(|s| s.requests.clone())
    }
    /// The texts that the plugin had models complete, in order.
    pub fn completions(&self) -> Vec<CompleteRequest> {
        fake::with(|s| s.completions.clone())
    }
    /// The specifications of the jobs that the plugin has made, in order.
    pub fn submitted(&self) -> Vec<Value> {
        fake::with(|s| s.submitted.clone())
    }
    /// What has left through `output`, in order.
    pub fn sent(&self) -> Vec<Event> {
        fake::with(|s| s.sent.clone())
    }
    /// The texts of what has left.
    pub fn sent_text(&self) -> String {
        let texts = self.sent().into_iter().filter_map(|e| match e {
            Event::Text(text) => Some(text),
            _ => None,
        });
        texts.collect()
    }
    pub fn logs(&self) -> Vec<(Level, String)> {
        fake::with(|s| s.logs.clone())
    }
    /// The tool calls that were made, in order: name and arguments.
    pub fn tool_calls(&self) -> Vec<(String, String)> {
        fake::with(|s| s.tool_calls.clone())
    }
    /// What was asked of the network, in order.
    pub fn fetched(&self) -> Vec<Request> {
        fake::with(|s| s.fetched.clone())
    }
    /// The variables of each prompt that was rendered.
    pub fn rendered(&self) -> Vec<(String, crate::prompts::Selector, String)> {
        fake::with(|s| s.rendered.clone())
    }
}
