//! Retrieval-augmented generation: looks into memory banks, gives the model what was found as numbered sources, and
//! checks that the reply cites nothing else.

mod attribution;
mod citations;
mod sources;

use agent::instructions::Prompt;
use agent::toolbox::events;
use agent::{Instructions, Steps, history};
use citations::Checker;
use sources::{Search, Source};
use stockade_guest::memories::SearchMode;
use stockade_guest::prelude::*;

/// Most tokens of a rewritten query.
const QUERY_TOKENS: u32 = 64;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Rag {
    /// A system prompt, as text.
    #[serde(default)]
    system: Option<String>,
    /// A prompt from the prompt store, instead of or after `system`.
    #[serde(default)]
    prompt: Option<Prompt>,
    /// Memory banks that are searched, at least one.
    banks: Vec<String>,
    /// Most sources, 1 to 50.
    #[serde(default = "five")]
    limit: u32,
    /// What an item's metadata has to fulfil: fields that must be equal, or the memory's own operators.
    #[serde(default)]
    filter: Option<serde_json::Map<String, Value>>,
    /// How the banks are searched; without it as each is meant to be.
    #[serde(default)]
    mode: Option<Mode>,
    /// Least score of a hit, in the measure of the mode.
    #[serde(default)]
    threshold: Option<f32>,
    /// Further options of a search, as the memory takes them: `ranker`, `k`, `alpha`.
    #[serde(default)]
    ranking: serde_json::Map<String, Value>,
    /// The model writes the query out of the whole conversation; else it is the user's last message.
    #[serde(default)]
    rewrite: bool,
    /// Most tokens of all sources together.
    #[serde(default = "source_tokens")]
    source_tokens: u32,
    /// A reply that cites nothing gets the citation of the source that holds most of its words.
    #[serde(default)]
    attribute: bool,
    /// What happens without a source.
    #[serde(default)]
    no_hit: NoHit,
    /// What is said without a source.
    #[serde(default = "no_hit_text")]
    no_hit_text: String,
}

#[derive(Deserialize, Clone, Copy)]
#[serde(rename_all = "lowercase")]
enum Mode {
    Vector,
    Keyword,
    Hybrid,
    Graph,
}

impl From<Mode> for SearchMode {
    fn from(mode: Mode) -> Self {
        match mode {
            Mode::Vector => Self::Vector,
            Mode::Keyword => Self::Keyword,
            Mode::Hybrid => Self::Hybrid,
            Mode::Graph => Self::Graph,
        }
    }
}

#[derive(Deserialize, Default, PartialEq)]
#[serde(rename_all = "lowercase")]
enum NoHit {
    /// The reply says that nothing was found.
    #[default]
    Say,
    /// The model answers from what it knows.
    Answer,
}

fn five() -> u32 {
    5
}
fn source_tokens() -> u32 {
    1500
}
fn no_hit_text() -> String {
    "I have found nothing about this in the documents that I may use.".into()
}

impl Orchestrator for Rag {
    fn run(&self, turn: Turn) -> Result<Outcome> {
        agent::finish(self.reply(turn).map(Outcome::from))
    }
}

impl Rag {
    fn reply(&self, mut turn: Turn) -> Result<FinishReason> {
        let mut steps = Steps::default();
        let query = self.query(&turn)?;
        let told = steps.start(StepKind::Retrieval, "search", &json!({"query": query, "banks": self.banks}))?;
        let search = Search {
            banks: &self.banks,
            limit: self.limit.clamp(1, 50),
            filter: self.filter.as_ref(),
            mode: self.mode.map(SearchMode::from),
            options: &self.options(),
            most_tokens: self.source_tokens,
        };
        let sources = search.run(&turn.model, &query)?;
        let hits: Vec<Value> = sources.iter().map(Source::told).collect();
        told.done(&json!({"query": query, "banks": self.banks, "hits": hits}))?;
        // A constrained answer, which may be JSON, has nowhere to say it; the model answers in its form.
        if sources.is_empty() && self.no_hit == NoHit::Say && turn.constraint.is_none() {
            output::text(&*self.no_hit_text)?;
            return Ok(FinishReason::Stop);
        }
        let instructions = Instructions { system: self.system.as_deref(), prompt: self.prompt.as_ref() };
        let own = (!sources.is_empty()).then(|| sources::block(&sources));
        let messages = instructions.prepend(std::mem::take(&mut turn.messages), own)?;
        let checked = turn.constraint.is_none() && !sources.is_empty();
        let request = agent::request(&turn, messages)
            .tools(turn.tools.clone())
            .tool_choice(turn.tool_choice.clone())
            .constraint(turn.constraint.clone());
        let generation = history::start(&request)?;
        if !checked {
            return Ok(output::forward(&generation, true)?.reason);
        }
        let passed = pass_on(&generation, sources.len())?;
        let mut told = json!({"cited": passed.cited});
        if self.attribute
            && passed.cited.is_empty()
            && let Some(best) = attribution::best(&passed.text, sources.iter().map(|s| s.text.as_str()))
        {
            output::text(format!(" [{}]", best.place + 1))?;
            told = json!({"cited": [best.place + 1], "attributed": best.share});
        }
        steps.start(StepKind::Other, "citations", &json!({}))?.done(&told)?;
        Ok(passed.reason)
    }

    fn options(&self) -> serde_json::Map<String, Value> {
        let mut options = self.ranking.clone();
        if let Some(threshold) = self.threshold {
            options.insert("threshold".into(), threshold.into());
        }
        options
    }

    /// What to look for.
    fn query(&self, turn: &Turn) -> Result<String> {
        let asked = agent::question(&turn.messages);
        if !self.rewrite {
            return Ok(asked);
        }
        let mut messages = turn.messages.clone();
        agent::append(
            &mut messages,
            "Do not answer. Write one search query, in one line, that finds what is needed to answer my last message.",
        );
        let line = Constraint::Regex(r"[^\n]{3,200}".into());
        let request =
            agent::request(turn, messages).sampling(agent::inner_sampling(QUERY_TOKENS)).constraint(Some(line));
        let query = history::start(&request)?.collect()?.text.trim().to_string();
        Ok(if query.is_empty() { asked } else { query })
    }
}

/// A reply that was sent on.
struct Passed {
    text: String,
    reason: FinishReason,
    /// Numbers of sources, in order.
    cited: Vec<usize>,
}

/// Sends a reply on as it comes, without citations of sources that do not exist.
fn pass_on(generation: &inference::Generation, sources: usize) -> Result<Passed> {
    let mut checker = Checker::new(sources);
    let (mut said, mut reason) = (String::new(), FinishReason::Stop);
    let mut say = |text: String| {
        said += &text;
        if text.is_empty() { Ok(()) } else { output::text(text) }
    };
    let mut calls: Vec<ToolCall> = Vec::new();
    while let Some(batch) = generation.next()? {
        for event in batch {
            match event {
                Event::Text(text) => say(checker.push(&text))?,
                Event::ToolCall(delta) => match calls.get_mut(delta.index as usize) {
                    Some(call) => call.arguments += &delta.arguments,
                    None => calls.push(ToolCall {
                        id: delta.id.unwrap_or_default(),
                        name: delta.name.unwrap_or_default(),
                        arguments: delta.arguments,
                    }),
                },
                Event::End(end) => reason = end.reason,
                other => output::emit(&[other])?,
            }
        }
    }
    say(checker.finish())?;
    output::emit(&events(calls))?;
    Ok(Passed { text: said, reason, cited: checker.cited() })
}

stockade_guest::export!(Rag as orchestrator);

#[cfg(test)]
mod tests;
