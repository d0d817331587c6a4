//! Retrieval-augmented generation: looks into memory banks, gives the model what was found as numbered sources, lets it
//! call the tenant's tools where the configuration names some, and checks that the reply cites nothing but the sources.

mod attribution;
mod citations;
mod reply;
mod sources;

use agent::instructions::Prompt;
use agent::rounds::converse_through;
use agent::search::{Mode, Search};
use agent::{Instructions, Limits, Rules, Steps, approval, history};
use reply::Reply;
use sources::Source;
use stockade_guest::inference::Generation;
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
    /// The tenant's tools that the model may call beside the sources.
    #[serde(default)]
    tools: Vec<String>,
    /// Tools whose calls wait for a person's approval; `*` at a name's end stands for anything.
    #[serde(default)]
    approve: Vec<String>,
    #[serde(default)]
    limits: Limits,
    /// What happens without a source; with tools the model answers in any case.
    #[serde(default)]
    no_hit: NoHit,
    /// What is said without a source.
    #[serde(default = "no_hit_text")]
    no_hit_text: String,
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
        agent::finish(self.answer(turn))
    }
}

/// Where a turn was interrupted: what the reply cites keeps its number.
#[derive(Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Paused {
    found: Found,
    /// The state of the tool loop.
    rounds: String,
}

/// What a search came to.
#[derive(Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Found {
    query: String,
    sources: Vec<Source>,
}

impl Rag {
    fn answer(&self, mut turn: Turn) -> Result<Outcome> {
        let mut steps = Steps::default();
        let (paused, answer) = approval::resume::<Paused>(turn.resume.take())?;
        let found = match answer {
            None => self.search(&turn, &mut steps)?,
            Some(answer) => {
                turn.resume = Some(Resumption { state: paused.rounds, answer });
                self.tell(&paused.found, &mut steps)?;
                paused.found
            }
        };
        let sources = &found.sources;
        let silent = sources.is_empty() && self.no_hit == NoHit::Say && self.tools.is_empty();
        // A constrained answer, which may be JSON, has nowhere to say it; the model answers in its form.
        if silent && turn.constraint.is_none() {
            output::text(&*self.no_hit_text)?;
            return Ok(FinishReason::Stop.into());
        }
        let instructions = Instructions { system: self.system.as_deref(), prompt: self.prompt.as_ref() };
        let own = (!sources.is_empty()).then(|| sources::block(sources, !self.tools.is_empty()));
        let messages = instructions.prepend(std::mem::take(&mut turn.messages), own)?;
        let rules = Rules {
            tools: Some(&self.tools),
            limits: self.limits,
            approve: &self.approve,
            told: steps.told,
            ..Rules::default()
        };
        let checked = turn.constraint.is_none() && !sources.is_empty();
        let mut reply = Reply::new(sources.len());
        let mut say = |generation: &Generation, calls| match checked {
            true => reply.pass(generation, calls),
            false => output::forward(generation, calls),
        };
        let (outcome, mut steps) = converse_through(turn, messages, &rules, &mut say)?;
        match outcome {
            Outcome::Interrupted(asked) => {
                let state = serde_json::to_string(&Paused { rounds: asked.state, found })?;
                Ok(Outcome::Interrupted(Interruption { state, ..asked }))
            }
            Outcome::Finished(reason) => {
                if checked {
                    self.cite(&reply, sources, reason, &mut steps)?;
                }
                Ok(reason.into())
            }
        }
    }

    fn search(&self, turn: &Turn, steps: &mut Steps) -> Result<Found> {
        let query = self.query(turn)?;
        let told = steps.start(StepKind::Retrieval, "search", &json!({"query": query, "banks": self.banks}))?;
        let search = Search {
            banks: &self.banks,
            limit: self.limit.clamp(1, 50),
            filter: self.filter.as_ref(),
            mode: self.mode,
            options: &self.options(),
            most_tokens: self.source_tokens,
        };
        let found = Found { sources: Source::all(search.run(&turn.model, &query)?), query };
        told.done(&self.told(&found))?;
        Ok(found)
    }

    /// Tells the search of an interrupted turn again: whoever resumed it reads the citations of this reply.
    fn tell(&self, found: &Found, steps: &mut Steps) -> Result<()> {
        let detail = json!({"query": found.query, "banks": self.banks});
        steps.start(StepKind::Retrieval, "search", &detail)?.done(&self.told(found))
    }

    fn told(&self, found: &Found) -> Value {
        let hits: Vec<Value> = found.sources.iter().map(Source::told).collect();
        json!({"query": found.query, "banks": self.banks, "hits": hits})
    }

    /// Tells what the reply cites; one that cites nothing may get the citation of its source.
    fn cite(&self, reply: &Reply, sources: &[Source], reason: FinishReason, steps: &mut Steps) -> Result<()> {
        let mut told = json!({"cited": reply.cited()});
        if self.attribute
            && reply.cited().is_empty()
            && reason != FinishReason::ToolCalls
            && let Some(best) = attribution::best(reply.text(), sources.iter().map(|s| s.text.as_str()))
        {
            output::text(format!(" [{}]", best.place + 1))?;
            told = json!({"cited": [best.place + 1], "attributed": best.share});
        }
        steps.start(StepKind::Other, "citations", &json!({}))?.done(&told)
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

stockade_guest::export!(Rag as orchestrator);

#[cfg(test)]
mod tests;
