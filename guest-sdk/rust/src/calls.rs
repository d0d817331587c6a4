//! What a plugin may call. Each module is an interface of the WIT, with its functions, its values and a few short ways.

/// Logs, spans and metrics. For log lines see the macros of [`crate::log`].
pub mod telemetry {
    pub use crate::bindings::host::stockade::plugin::telemetry::Level;
    pub use crate::sys::telemetry::{Span, count, observe};
}

/// Time and randomness.
pub mod system {
    pub use crate::sys::system::{now, random};
}

/// Secrets of the tenant. Grant: `secrets`.
pub mod secrets {
    pub use crate::sys::secrets::get;
}

/// Requests to the network. Grant: `http`.
pub mod http {
    use crate::Result;
    pub use crate::bindings::host::stockade::plugin::http::{Request, Response};
    pub use crate::sys::http::send;

    impl Request {
        /// A request without a body.
        pub fn get(url: impl Into<String>) -> Self {
            Self { method: "GET".into(), url: url.into(), headers: Vec::new(), body: Vec::new(), timeout_ms: None }
        }
        /// A request with a JSON body.
        pub fn post_json(url: impl Into<String>, body: &serde_json::Value) -> Self {
            let request = Self { method: "POST".into(), body: body.to_string().into_bytes(), ..Self::get(url) };
            request.header("content-type", "application/json")
        }
        pub fn header(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
            self.headers.push((name.into(), value.into()));
            self
        }
        pub fn send(&self) -> Result<Response> {
            send(self)
        }
    }

    impl Response {
        /// The first header of this name, which is in lower case.
        pub fn header(&self, name: &str) -> Option<&str> {
            self.headers.iter().find(|(n, _)| n == name).map(|(_, value)| value.as_str())
        }
        /// Whether the status says that it went well.
        pub fn is_success(&self) -> bool {
            (200..300).contains(&self.status)
        }
    }
}

/// Models that the host serves. Grant: `models`.
pub mod inference {
    use crate::Result;
    pub use crate::bindings::host::stockade::plugin::inference::{
        ChatRequest, CompleteRequest, LabelScore, ModelInfo, ModelKind, Prompt, PromptPart, TokenScore,
    };
    use crate::sys::inference;
    pub use crate::sys::inference::{
        Generation, chat, classify, complete, detokenize, embed, models, token_texts, tokenize,
    };
    use crate::types::{Completion, Constraint, Message, Sampling, ToolChoice, ToolSpec};

    /// Builds a chat request: `Chat::new("").user("Hello").ask()?`.
    #[derive(Debug, Clone)]
    pub struct Chat(pub ChatRequest);

    impl Chat {
        /// `model` is a served name; the empty string takes the host's default.
        pub fn new(model: impl Into<String>) -> Self {
            Self(ChatRequest {
                model: model.into(),
                messages: Vec::new(),
                tools: Vec::new(),
                tool_choice: ToolChoice::Auto,
                sampling: Sampling::default(),
                constraint: None,
                template_args: None,
            })
        }
        pub fn system(self, text: impl Into<String>) -> Self {
            self.message(Message::system(text))
        }
        pub fn user(self, text: impl Into<String>) -> Self {
            self.message(Message::user(text))
        }
        pub fn message(mut self, message: Message) -> Self {
            self.0.messages.push(message);
            self
        }
        pub fn messages(mut self, messages: impl IntoIterator<Item = Message>) -> Self {
            self.0.messages.extend(messages);
            self
        }
        pub fn tools(mut self, tools: impl IntoIterator<Item = ToolSpec>) -> Self {
            self.0.tools.extend(tools);
            self
        }
        pub fn tool_choice(mut self, choice: ToolChoice) -> Self {
            self.0.tool_choice = choice;
            self
        }
        pub fn sampling(mut self, sampling: Sampling) -> Self {
            self.0.sampling = sampling;
            self
        }
        pub fn max_tokens(mut self, tokens: u32) -> Self {
            self.0.sampling.max_tokens = Some(tokens);
            self
        }
        pub fn temperature(mut self, temperature: f32) -> Self {
            self.0.sampling.temperature = Some(temperature);
            self
        }
        pub fn constraint(mut self, constraint: Option<Constraint>) -> Self {
            self.0.constraint = constraint;
            self
        }
        /// Further variables for the chat template: a JSON object.
        pub fn template_args(mut self, args: Option<String>) -> Self {
            self.0.template_args = args;
            self
        }
        /// Starts it; dropping the generation cancels it.
        pub fn start(&self) -> Result<Generation> {
            chat(&self.0)
        }
        /// Waits for the whole reply.
        pub fn ask(&self) -> Result<Completion> {
            self.start()?.collect()
        }
    }

    /// Builds a text request: `Complete::new("", "Once upon").max_tokens(20).ask()?`.
    #[derive(Debug, Clone)]
    pub struct Complete(pub CompleteRequest);

    impl Complete {
        /// `model` is a served name; the empty string takes the host's default.
        pub fn new(model: impl Into<String>, prompt: impl Into<Prompt>) -> Self {
            let (model, prompt) = (model.into(), prompt.into());
            Self(CompleteRequest { model, prompt, sampling: Sampling::default(), constraint: None })
        }
        pub fn sampling(mut self, sampling: Sampling) -> Self {
            self.0.sampling = sampling;
            self
        }
        pub fn max_tokens(mut self, tokens: u32) -> Self {
            self.0.sampling.max_tokens = Some(tokens);
            self
        }
        pub fn temperature(mut self, temperature: f32) -> Self {
            self.0.sampling.temperature = Some(temperature);
            self
        }
        pub fn constraint(mut self, constraint: Option<Constraint>) -> Self {
            self.0.constraint = constraint;
            self
        }
        /// Starts it; dropping the generation cancels it.
        pub fn start(&self) -> Result<Generation> {
            complete(&self.0)
        }
        /// Waits for the whole text.
        pub fn ask(&self) -> Result<Completion> {
            self.start()?.collect()
        }
    }

    /// How likely `continuation` is after `context`: a score for each token of the continuation.
    pub fn log_likelihood(model: &str, context: impl Into<Prompt>, continuation: &str) -> Result<Vec<TokenScore>> {
        inference::log_likelihood(model, &context.into(), continuation)
    }

    impl From<String> for Prompt {
        fn from(text: String) -> Self {
            Self::Text(text)
        }
    }
    impl From<&str> for Prompt {
        fn from(text: &str) -> Self {
            Self::Text(text.into())
        }
    }
    impl From<Vec<PromptPart>> for Prompt {
        fn from(parts: Vec<PromptPart>) -> Self {
            Self::Parts(parts)
        }
    }

    impl Prompt {
        /// The prompt as it reads, control tokens spelled out.
        pub fn spelled(&self) -> String {
            match self {
                Self::Text(text) => text.clone(),
                Self::Parts(parts) => {
                    let text = |part: &PromptPart| match part {
                        PromptPart::Text(text) | PromptPart::Control(text) => text.clone(),
                    };
                    parts.iter().map(text).collect()
                }
            }
        }
    }
}

/// The reply of the turn that an orchestrator runs.
pub mod output {
    use crate::Result;
    pub use crate::sys::output::{emit, forward};
    use crate::types::Event;

    /// Sends one text.
    pub fn text(text: impl Into<String>) -> Result<()> {
        emit(&[Event::Text(text.into())])
    }
}

/// Durable state in named buckets. Grant: `buckets`.
pub mod state {
    pub use crate::bindings::host::stockade::plugin::state::{Change, Entry, Expectation, Key, Write};
    pub use crate::sys::state::{Bucket, open};
    use crate::{Error, Result};
    use serde::{Serialize, de::DeserializeOwned};

    /// Most entries that one scan asks for.
    const PAGE: u32 = 1000;
    /// Most writes of a commit, and most bytes of their new values.
    const WRITES: usize = 256;
    const WRITTEN_BYTES: usize = 1 << 20;

    impl Write {
        pub fn set(key: impl Into<String>, value: Vec<u8>) -> Self {
            Self { key: key.into(), change: Change::Set(value), expect: Expectation::Anything }
        }
        pub fn set_json(key: impl Into<String>, value: &impl Serialize) -> Result<Self> {
            Ok(Self::set(key, serde_json::to_vec(value)?))
        }
        pub fn delete(key: impl Into<String>) -> Self {
            Self { key: key.into(), change: Change::Delete, expect: Expectation::Anything }
        }
        /// What must hold of the key, else nothing of the commit happens.
        pub fn expect(mut self, expect: Expectation) -> Self {
            self.expect = expect;
            self
        }
        fn bytes(&self) -> usize {
            if let Change::Set(value) = &self.change { value.len() } else { 0 }
        }
    }

    impl Bucket {
        /// A JSON value and its revision.
        pub fn get_json<T: DeserializeOwned>(&self, key: &str) -> Result<Option<(T, u64)>> {
            let read = |entry: Entry| match serde_json::from_slice(&entry.value) {
                Ok(value) => Ok((value, entry.revision)),
                Err(e) => Err(Error::Other(format!("`{key}` holds something else: {e}"))),
            };
            self.get(key)?.map(read).transpose()
        }

        /// Writes a JSON value and returns the new revision.
        pub fn set_json(&self, key: &str, value: &impl Serialize, expect: Expectation) -> Result<u64> {
            self.set(key, &serde_json::to_vec(value)?, expect)
        }

        /// Does any number of writes in order, in as few commits as hold them. Cut off, the first of them are done.
        pub fn write_all(&self, writes: &[Write]) -> Result<()> {
            let mut rest = writes;
            while !rest.is_empty() {
                let mut bytes = 0;
                let fits = |w: &&Write| {
                    bytes += w.bytes();
                    bytes <= WRITTEN_BYTES
                };
                let n = rest.iter().take(WRITES).take_while(fits).count().max(1);
                self.halving(&rest[..n])?;
                rest = &rest[n..];
            }
            Ok(())
        }

        /// A commit, or two of half of it where the values that it replaces are too large for one.
        fn halving(&self, writes: &[Write]) -> Result<()> {
            match self.commit(writes) {
                Err(Error::TooLarge(_)) if writes.len() > 1 => {
                    let (first, last) = writes.split_at(writes.len() / 2);
                    self.halving(first)?;
                    self.halving(last)
                }
                done => done.map(|_| ()),
            }
        }

        /// Deletes all that is under a prefix. Cut off, some of it is left.
        pub fn delete_all(&self, prefix: &str) -> Result<()> {
            loop {
                let page = self.keys(prefix, None, PAGE)?;
                let deletes: Vec<Write> = page.iter().map(|k| Write::delete(&*k.key)).collect();
                self.write_all(&deletes)?;
                if page.len() < PAGE as usize {
                    return Ok(());
                }
            }
        }

        /// All entries under a prefix. Read what may be large page by page with `scan` instead.
        pub fn scan_all(&self, prefix: &str) -> Result<Vec<Entry>> {
            let mut all: Vec<Entry> = Vec::new();
            loop {
                let after = all.last().map(|e| e.key.clone());
                let page = self.scan(prefix, after.as_deref(), PAGE)?;
                if page.is_empty() {
                    return Ok(all);
                }
                all.extend(page);
            }
        }
    }
}

/// Vector indexes of the tenant. Grant: `buckets`.
pub mod vectors {
    pub use crate::bindings::host::stockade::plugin::vectors::{Entry, Metric, Neighbour, Query};
    pub use crate::sys::vectors::{Index, drop, open};
}

/// Tools that the tenant has bound. Grant: `components`, `tool/NAME` or `tool/*`.
pub mod tools {
    use crate::Result;
    pub use crate::sys::tools::{available, call};
    use crate::types::ToolOutput;

    /// Runs all calls (name, arguments) at once and returns the answers in order.
    pub fn call_all(calls: Vec<(String, String)>) -> Vec<Result<ToolOutput>> {
        #[cfg(target_arch = "wasm32")]
        return wit_bindgen::block_on(overlapped(calls));
        #[cfg(not(target_arch = "wasm32"))]
        calls.iter().map(|(name, arguments)| call(name, arguments)).collect()
    }

    #[cfg(target_arch = "wasm32")]
    async fn overlapped(calls: Vec<(String, String)>) -> Vec<Result<ToolOutput>> {
        use std::future::{Future, poll_fn};
        use std::task::Poll;
        type Running = std::pin::Pin<Box<dyn Future<Output = Result<ToolOutput>>>>;
        let start = |(name, arguments)| -> Running {
            Box::pin(crate::bindings::overlapping::stockade::plugin::tools::call(name, arguments))
        };
        let mut running: Vec<Running> = calls.into_iter().map(start).collect();
        let mut answers: Vec<Option<Result<ToolOutput>>> = running.iter().map(|_| None).collect();
        poll_fn(move |context| {
            for (call, answer) in running.iter_mut().zip(&mut answers) {
                if answer.is_none()
                    && let Poll::Ready(done) = call.as_mut().poll(context)
                {
                    *answer = Some(done);
                }
            }
            if answers.iter().all(Option::is_some) {
                Poll::Ready(std::mem::take(&mut answers).into_iter().flatten().collect())
            } else {
                Poll::Pending
            }
        })
        .await
    }
}

/// Shields that the tenant has bound. Grant: `components`, `shield.input`, `shield.output` or `shield/NAME`.
pub mod shields {
    pub use crate::sys::shields::{check, check_by, check_reply_by};
    pub use crate::types::Channel;
}

/// The bound prompt store. Grant: `components`, `prompt-store`.
pub mod prompts {
    pub use crate::bindings::host::stockade::plugin::prompt_store::{
        Change, ChatItem, Content, Definition, Difference, Exposure, Filter, Form, Format, Label, LabelChange,
        LabelMove, Partial, Prompt, Rendered, Selector, Share, Sticky, Summary, Template, TemplateMessage, Unit,
        Variable, VariableKind, Version,
    };
    pub use crate::sys::prompt_store::{
        delete, delete_label, diff, dump, find, get, label_moves, load, put, render, render_inline, set_label, versions,
    };
}

/// The bound memory. Grant: `components`, `memory`.
pub mod memories {
    pub use crate::bindings::host::stockade::plugin::memory::{
        Bank, BankKind, Document, Hit, Ingested, Item, Query, SearchMode,
    };
    pub use crate::sys::memory::{banks, create, delete, drop, forget, get, ingest, insert, list, search};

    impl Item {
        /// A text that is kept for good; the memory chooses its id.
        pub fn new(text: impl Into<String>) -> Self {
            Self { id: String::new(), text: text.into(), metadata: "{}".into(), document: None, expires_at: None }
        }
    }

    impl Query {
        /// What the bank's kind is for, without a filter.
        pub fn new(text: impl Into<String>, limit: u32) -> Self {
            Self { text: text.into(), limit, filter: None, mode: None, options: None }
        }
    }
}

/// Data sets of the tenant. Grant: `datasets`.
pub mod datasets {
    pub use crate::bindings::host::stockade::plugin::datasets::{Dataset, Description, Page, Purpose};
    use crate::sys::datasets as sys;
    pub use crate::sys::datasets::{delete, get, list, read};
    use crate::{Error, Result};
    use serde::{Serialize, de::DeserializeOwned};

    /// Most rows that one read asks for.
    const PAGE: u32 = 1000;

    impl Description {
        /// What a data set must say of itself. `licence`: under which its rows may be used; `provenance`: where they come
        /// from and what was done to them.
        pub fn new(
            name: impl Into<String>,
            purpose: Purpose,
            licence: impl Into<String>,
            provenance: impl Into<String>,
        ) -> Self {
            Self {
                name: name.into(),
                purpose,
                licence: licence.into(),
                provenance: provenance.into(),
                format: None,
                metadata: "{}".into(),
            }
        }
    }

    /// Makes a data set of rows, each of which is written as an object.
    pub fn create<T: Serialize>(description: &Description, rows: &[T]) -> Result<Dataset> {
        sys::create(description, &texts(rows)?)
    }

    /// Adds rows to a data set that this component has made.
    pub fn append<T: Serialize>(name: &str, rows: &[T]) -> Result<Dataset> {
        sys::append(name, &texts(rows)?)
    }

    /// The rows of a data set in order, read a page at a time.
    pub fn rows<T: DeserializeOwned>(name: &str) -> impl Iterator<Item = Result<T>> {
        let (mut page, mut next) = (Vec::<String>::new().into_iter(), Some(0));
        std::iter::from_fn(move || {
            loop {
                if let Some(row) = page.next() {
                    let other = |e| Error::Other(format!("a row holds something else: {e}"));
                    return Some(serde_json::from_str(&row).map_err(other));
                }
                match read(name, next.take()?, PAGE) {
                    Ok(more) => {
                        next = more.next;
                        page = more.rows.into_iter();
                    }
                    Err(e) => return Some(Err(e)),
                }
            }
        })
    }

    fn texts<T: Serialize>(rows: &[T]) -> Result<Vec<String>> {
        rows.iter().map(|row| Ok(serde_json::to_string(row)?)).collect()
    }
}

/// Long work of the host, which outlives the call that made it. Grant: `jobs`, and what a job names.
pub mod jobs {
    use crate::Result;
    pub use crate::bindings::host::stockade::plugin::jobs::{Event, Failure, Job, Kind, Occurrence, Progress, Status};
    use crate::sys::jobs as sys;
    pub use crate::sys::jobs::{cancel, delete, events, get, list, pause, resume};

    /// Queues a training job. `spec` is the job file as JSON; `name` is for people, and the result's where `spec` gives none.
    pub fn train(name: Option<&str>, spec: &serde_json::Value) -> Result<Job> {
        submit(Kind::Train, name, spec)
    }

    /// Queues a job of any kind.
    pub fn submit(kind: Kind, name: Option<&str>, spec: &serde_json::Value) -> Result<Job> {
        sys::submit(kind, name, &spec.to_string())
    }

    impl Status {
        /// Whether nothing comes after it.
        pub fn is_end(self) -> bool {
            matches!(self, Self::Succeeded | Self::Failed | Self::Cancelled)
        }
    }
}
