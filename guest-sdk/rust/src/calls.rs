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

/// Models that the host serves. Grant: `models`.
pub mod inference {
    use crate::Result;
    pub use crate::bindings::host::stockade::plugin::inference::{
        ChatRequest, CompleteRequest, LabelScore, ModelInfo, ModelKind, TokenScore,
    };
    pub use crate::sys::inference::{
        Generation, chat, classify, complete, detokenize, embed, log_likelihood, models, tokenize,
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
    pub use crate::bindings::host::stockade::plugin::state::{Entry, Expectation};
    pub use crate::sys::state::{Bucket, open};
    use crate::{Error, Result};
    use serde::{Serialize, de::DeserializeOwned};

    /// Most entries that one scan asks for.
    const PAGE: u32 = 1000;

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
    pub use crate::sys::shields::{check, check_by};
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

/// The tenant's data sets. This version of the host answers [`crate::Error::Unavailable`].
pub mod datasets {
    pub use crate::sys::datasets::{Reader, append, open};
}

/// Long work of the host. This version of the host answers [`crate::Error::Unavailable`].
pub mod jobs {
    pub use crate::bindings::host::stockade::plugin::jobs::{Job, Kind, Status};
    pub use crate::sys::jobs::{cancel, get, submit};
}
