//! Nothing of a blocked span is sent and all that stands before it is: over every dialect, every channel that it has, and
//! however the model's text is cut.

use crate::fakes::*;
use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use serde_json::{Value, json};
use stockade_core::event::{Event, FinishReason, ToolCallDelta};
use tokio::runtime::Runtime;

/// What is blocked. No wire form holds its characters by chance.
const SPAN: &str = "ŸžĆđ";
/// Its beginning, which is no violation alone.
const BEGINNING: &str = "Ÿž";

#[derive(Debug, Clone, Copy, PartialEq)]
enum Dialect {
    Chat,
    Completions,
    Responses,
    Agents,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Said {
    Text,
    Reasoning,
    Arguments,
}

/// The channels that each dialect has words for.
const SERVED: [(Dialect, Said); 9] = [
    (Dialect::Chat, Said::Text),
    (Dialect::Chat, Said::Reasoning),
    (Dialect::Chat, Said::Arguments),
    (Dialect::Completions, Said::Text),
    (Dialect::Responses, Said::Text),
    (Dialect::Responses, Said::Reasoning),
    (Dialect::Responses, Said::Arguments),
    (Dialect::Agents, Said::Text),
    (Dialect::Agents, Said::Arguments),
];

impl Said {
    /// The channel's text in pieces; the channels before it have words of their own.
    fn events(self, pieces: &[&str]) -> Vec<Event> {
        let mut events = Vec::new();
        if self != Said::Reasoning {
            events.push(Event::Reasoning { text: "so".into() });
        }
        if self == Said::Arguments {
            events.push(text("well"));
        }
        events.extend(pieces.iter().enumerate().map(|(n, piece)| match self {
            Said::Text => text(piece),
            Said::Reasoning => Event::Reasoning { text: (*piece).into() },
            Said::Arguments => Event::ToolCall(ToolCallDelta {
                index: 0,
                id: (n == 0).then(|| "call_1".into()),
                name: (n == 0).then(|| "find".into()),
                arguments: (*piece).into(),
            }),
        }));
        events.push(end(FinishReason::Stop));
        events
    }
}

impl Dialect {
    async fn ask(self, host: &Host, agent: &str) -> Reply {
        let said = json!([{"role": "user", "content": "go"}]);
        let (path, mut body) = match self {
            Self::Chat => ("/v1/chat/completions".into(), json!({"model": "m", "messages": said})),
            Self::Completions => ("/v1/completions".into(), json!({"model": "m", "prompt": "go"})),
            Self::Responses => ("/v1/responses".into(), json!({"model": "m", "input": "go"})),
            Self::Agents => {
                let path = format!("/v1/agents/{agent}/session");
                let made = host.post(&path, json!({"session_name": "s"})).await.expect(200);
                (format!("{path}/{}/turn", made["session_id"].as_str().unwrap()), json!({"messages": said}))
            }
        };
        body["stream"] = true.into();
        host.post(&path, body).await
    }

    /// What the events of a stream say on a channel.
    fn read(self, reply: &Reply, said: Said) -> String {
        let lines = || reply.events().into_iter().filter(|line| line != "[DONE]");
        let values = || lines().map(|line| serde_json::from_str::<Value>(&line).unwrap());
        let text = |value: &Value| value.as_str().unwrap_or_default().to_string();
        match self {
            Self::Chat => values()
                .map(|chunk| {
                    let delta = &chunk["choices"][0]["delta"];
                    text(match said {
                        Said::Text => &delta["content"],
                        Said::Reasoning => &delta["reasoning_content"],
                        Said::Arguments => &delta["tool_calls"][0]["function"]["arguments"],
                    })
                })
                .collect(),
            Self::Completions => values().map(|chunk| text(&chunk["choices"][0]["text"])).collect(),
            Self::Responses => {
                let wanted = match said {
                    Said::Text => "response.output_text.delta",
                    Said::Reasoning => "response.reasoning_text.delta",
                    Said::Arguments => "response.function_call_arguments.delta",
                };
                let events = reply.named_events().into_iter().filter(|(name, _)| name == wanted);
                events.map(|(_, event)| text(&event["delta"])).collect()
            }
            Self::Agents => values()
                .map(|event| {
                    let delta = &event["event"]["payload"]["delta"];
                    text(match said {
                        Said::Arguments => &delta["tool_call"],
                        _ => &delta["text"],
                    })
                })
                .collect(),
        }
    }
}

struct Served {
    runtime: Runtime,
    host: Host,
    agent: String,
}

impl Served {
    fn start() -> Self {
        let runtime = Runtime::new().unwrap();
        let (host, agent) = runtime.block_on(async {
            let host = Host::new().await;
            // Conversations go through an orchestrator, as an agent's have to; a completion's text goes to its model.
            host.bind("orchestrator", "says", "orchestrator", json!({})).await;
            let block = json!({"config": {"word": SPAN, "action": "block"}, "refusal": "No."});
            host.bind("shield.output", "word", "shield", block).await;
            // A second shield holds back more, and finds nothing.
            let other = json!({"config": {"word": "ŸžĆ, this never comes", "action": "mask"}});
            host.bind("shield.output", "other", "shield", other).await;
            let config = json!({"model": "m", "instructions": "Be kind.", "toolgroups": [], "client_tools": []});
            let made = host.post("/v1/agents", json!({"agent_config": config})).await.expect(200);
            (host, made["agent_id"].as_str().unwrap().to_owned())
        });
        Self { runtime, host, agent }
    }

    fn reply(&self, dialect: Dialect, said: Said, pieces: &[&str]) -> Reply {
        *self.host.inference.scripted.lock().unwrap() = Some(said.events(pieces));
        self.runtime.block_on(dialect.ask(&self.host, &self.agent))
    }
}

/// Words, among them beginnings of the span.
fn words() -> impl Strategy<Value = String> {
    prop::collection::vec(prop::sample::select(vec!["a", " ", "é😀", "\n", "word ", BEGINNING, "Ÿ"]), 0..12)
        .prop_map(|words| words.concat())
}

/// The text cut at these places, moved to characters.
fn cut<'a>(text: &'a str, at: &[prop::sample::Index]) -> Vec<&'a str> {
    let mut at: Vec<usize> = at.iter().map(|i| text.floor_char_boundary(i.index(text.len() + 1))).collect();
    at.extend([0, text.len()]);
    at.sort_unstable();
    at.dedup();
    at.windows(2).map(|pair| &text[pair[0]..pair[1]]).collect()
}

#[test]
fn nothing_of_a_blocked_span_is_sent_in_any_dialect_on_any_channel_at_any_cut() {
    let served = Served::start();
    let cuts = prop::collection::vec(any::<prop::sample::Index>(), 0..10);
    let strategy = (prop::sample::select(SERVED.to_vec()), words(), words(), cuts);
    let mut runner = TestRunner::new(ProptestConfig::with_cases(600));
    let checked = runner.run(&strategy, |((dialect, said), before, after, cuts)| {
        let whole = format!("{before}{SPAN}{after}");
        let start = whole.find(SPAN).unwrap();
        let reply = served.reply(dialect, said, &cut(&whole, &cuts));
        let sent = dialect.read(&reply, said);
        prop_assert_eq!(&sent, &whole[..start]);
        let bytes = String::from_utf8_lossy(&reply.bytes);
        prop_assert!(bytes.contains("No."), "the refusal is told: {}", bytes);
        // Not in an event that sums up either; and a beginning only where one stands before the span.
        for character in SPAN.chars().filter(|c| !whole[..start].contains(*c)) {
            let escaped = format!("\\u{:04x}", u32::from(character));
            prop_assert!(!bytes.contains(character) && !bytes.contains(&escaped), "{} in {}", character, bytes);
        }
        Ok(())
    });
    checked.unwrap();
}

#[test]
fn what_only_begins_like_a_blocked_span_is_sent_whole() {
    let served = Served::start();
    let cuts = prop::collection::vec(any::<prop::sample::Index>(), 0..10);
    let strategy = (prop::sample::select(SERVED.to_vec()), words(), cuts);
    let mut runner = TestRunner::new(ProptestConfig::with_cases(200));
    let checked = runner.run(&strategy, |((dialect, said), whole, cuts)| {
        let whole = format!("{whole}!{BEGINNING}");
        let reply = served.reply(dialect, said, &cut(&whole, &cuts));
        prop_assert_eq!(dialect.read(&reply, said), whole);
        Ok(())
    });
    checked.unwrap();
}
