//! Shields: verdicts over whole messages, and streaming sessions over one reply.
//!
//! Invariant: a reply's sessions live in one instance, one session a channel, and are driven one call at a time. After
//! any failure the instance is gone and every further call fails.

use crate::bindings::{shield, types};
use crate::call::{Live, Report, Stop};
use crate::convert;
use crate::exports;
use crate::guest::Context;
use crate::meter::metered;
use crate::runtime::Inner;
use std::collections::HashMap;
use std::sync::Arc;
use stockade_core::BoxFuture;
use stockade_core::limits::LimitKind;
use stockade_core::plugin::{CallError, Channel, Direction, Ruling, ShieldStream};
use tokio::sync::{mpsc, oneshot};
use wasmtime::component::ResourceAny;

/// Most bytes that a shield may hold back on a channel.
const MAX_HOLD_BACK: u32 = 65_536;
/// Most channels of one reply.
const MAX_CHANNELS: usize = 512;

/// Judges whole messages.
pub(crate) async fn check(
    host: &Arc<Inner>,
    context: Arc<Context>,
    direction: Direction,
    messages: Vec<types::Message>,
) -> Result<types::Verdict, Stop> {
    let direction = convert::direction_out(direction);
    let run = host.run(context, "check".into(), None, move |live| {
        Box::pin(async move {
            live.report.scan(convert::messages_bytes(&messages));
            type Answer = (Result<types::Verdict, types::Error>,);
            let params = (direction, messages);
            let (answer,) = live.call::<_, Answer>(exports::SHIELD_CHECK, params).await?;
            if let Ok(verdict) = &answer {
                decide(live, verdict)?;
            }
            Ok(answer)
        })
    });
    run.await
}

/// Counts what a verdict carries and writes it into the trace.
fn decide(live: &Live, verdict: &types::Verdict) -> wasmtime::Result<()> {
    live.report.decide(match verdict {
        types::Verdict::Pass => "pass",
        types::Verdict::Block(_) => "block",
        types::Verdict::Edit(messages) => {
            live.meter.output(convert::messages_bytes(messages))?;
            "edit"
        }
    });
    Ok(())
}

/// Judges a stretch of a reply to a conversation in a session of its own, whole at once.
pub(crate) async fn check_reply(
    host: &Arc<Inner>,
    context: Arc<Context>,
    channel: types::Channel,
    conversation: Vec<types::Message>,
    text: String,
) -> Result<types::Verdict, Stop> {
    let run = host.run(context, "session".into(), None, move |live| {
        Box::pin(async move {
            live.report.scan(text.len());
            type Answer = (Result<shield::Ruling, types::Error>,);
            let (session,) = live.call::<_, (ResourceAny,)>(exports::SHIELD_SESSION, (channel, conversation)).await?;
            let (fed,) = live.call::<_, Answer>(exports::SHIELD_FEED, (session, text.clone())).await?;
            let mut ruling = match fed {
                Ok(ruling) => ruling,
                Err(e) => return Ok(Err(e)),
            };
            if ruling.violation.is_none() {
                let (finished,) = live.call::<_, Answer>(exports::SHIELD_FINISH, (session,)).await?;
                let rest = match finished {
                    Ok(rest) => rest,
                    Err(e) => return Ok(Err(e)),
                };
                ruling = shield::Ruling { edits: [ruling.edits, rest.edits].concat(), ..rest };
            }
            let verdict = match ruling.violation {
                Some(violation) => types::Verdict::Block(violation),
                None => match edited(&text, &ruling.edits).filter(|_| ruling.cleared == text.len() as u64) {
                    None => wasmtime::bail!("its rulings do not fit the text that it was fed"),
                    Some(_) if ruling.edits.is_empty() => types::Verdict::Pass,
                    Some(text) => {
                        let parts = vec![types::Part::Text(text)];
                        types::Verdict::Edit(vec![types::Message { role: types::Role::Assistant, parts, name: None }])
                    }
                },
            };
            decide(live, &verdict)?;
            Ok(Ok(verdict))
        })
    });
    run.await
}

/// The text with these edits, unless they overlap, run backwards or lie outside of it.
fn edited(text: &str, edits: &[shield::Edit]) -> Option<String> {
    let mut out = String::new();
    let mut at = 0;
    for edit in edits {
        let (start, end) = (usize::try_from(edit.start).ok()?, usize::try_from(edit.end).ok()?);
        out.push_str(text.get(at..start)?);
        text.get(start..end)?;
        out.push_str(&edit.replacement);
        at = end;
    }
    out.push_str(text.get(at..)?);
    Some(out)
}

/// Opens the sessions of one reply to a conversation.
pub(crate) async fn open(
    host: &Arc<Inner>,
    context: Arc<Context>,
    conversation: Vec<types::Message>,
) -> Result<Box<dyn ShieldStream>, CallError> {
    let name = context.call.target.component.to_string();
    let (orders, inbox) = mpsc::channel(1);
    let (ready, opened) = oneshot::channel::<Opened>();
    let (worker, component) = (host.clone(), name.clone());
    let task = host.threads.spawn(async move {
        match worker.open(context, "session".into(), None).await {
            Ok(live) => Sessions::new(live, conversation).serve(ready, inbox).await,
            Err(e) => {
                // The caller may have gone away.
                let _ = ready.send(Err(e));
            }
        }
    });
    let (hold_back, report) = opened.await.map_err(|_| gone(&component))??;
    Ok(Box::new(Stream { name, hold_back, orders, report, _task: task }))
}

/// What an opened stream holds back, and its line in the trace.
type Opened = Result<(u32, Arc<Report>), CallError>;

/// The caller's end.
struct Stream {
    name: String,
    hold_back: u32,
    orders: mpsc::Sender<Order>,
    report: Arc<Report>,
    _task: crate::threads::Task<()>,
}

impl Drop for Stream {
    /// The line is in the trace when the reply is over, not when its instance has been dropped.
    fn drop(&mut self) {
        self.report.write();
    }
}

struct Order {
    channel: Channel,
    /// `None`: the channel is complete.
    text: Option<String>,
    answer: oneshot::Sender<Result<Ruling, CallError>>,
}

impl Stream {
    async fn order(&self, channel: Channel, text: Option<String>) -> Result<Ruling, CallError> {
        let (answer, answered) = oneshot::channel();
        let order = Order { channel, text, answer };
        let sent = self.orders.send(order).await;
        sent.map_err(|_| gone(&self.name))?;
        answered.await.map_err(|_| gone(&self.name))?
    }
}

impl ShieldStream for Stream {
    fn feed<'a>(&'a mut self, channel: Channel, text: &'a str) -> BoxFuture<'a, Result<Ruling, CallError>> {
        Box::pin(self.order(channel, Some(text.to_string())))
    }
    fn finish(&mut self, channel: Channel) -> BoxFuture<'_, Result<Ruling, CallError>> {
        Box::pin(self.order(channel, None))
    }
    fn hold_back(&self) -> u32 {
        self.hold_back
    }
}

fn gone(component: &str) -> CallError {
    CallError::Failed {
        component: component.to_string(),
        limit: LimitKind::Trap,
        detail: "the shield has failed earlier in this reply".into(),
    }
}

/// The instance's end.
struct Sessions {
    live: Live,
    /// Shared, since each session of the reply gets it.
    conversation: Arc<Vec<types::Message>>,
    open: HashMap<Channel, ResourceAny>,
}

impl Sessions {
    fn new(live: Live, conversation: Vec<types::Message>) -> Self {
        live.report.scan(0);
        Self { live, conversation: Arc::new(conversation), open: HashMap::new() }
    }

    async fn serve(mut self, ready: oneshot::Sender<Opened>, mut inbox: mpsc::Receiver<Order>) {
        let opened = self.hold_back().await;
        let fine = opened.is_ok();
        if fine {
            self.live.report.decide("pass");
        } else {
            self.live.report.write();
        }
        let opened = opened.map(|hold_back| (hold_back, self.live.report.clone()));
        if ready.send(opened).is_err() || !fine {
            return;
        }
        while let Some(order) = inbox.recv().await {
            let ruling = self.rule(order.channel, order.text).await;
            let fine = ruling.is_ok();
            if order.answer.send(ruling).is_err() || !fine {
                return;
            }
        }
    }

    async fn hold_back(&mut self) -> Result<u32, CallError> {
        let meter = self.live.meter.clone();
        let asked = self.live.call::<(), (u32,)>(exports::SHIELD_HOLD_BACK, ());
        let given = metered(&meter, asked).await.map(|(bytes,)| Ok(bytes));
        let bytes = self.end(given)?;
        if bytes > MAX_HOLD_BACK {
            return Err(CallError::Failed {
                component: self.live.name(),
                limit: LimitKind::Trap,
                detail: format!("it holds back {bytes} bytes, {MAX_HOLD_BACK} are the most"),
            });
        }
        Ok(bytes)
    }

    async fn rule(&mut self, channel: Channel, text: Option<String>) -> Result<Ruling, CallError> {
        let meter = self.live.meter.clone();
        // The reply may take as long as its model does; each piece of it is bounded.
        meter.restart_deadline();
        self.live.report.scan(text.as_ref().map_or(0, String::len));
        let decided = self.live.report.decision();
        let given = metered(&meter, self.given(channel, text)).await;
        let ruling = self.end(given)?;
        // The gravest decision over the reply stands.
        if ruling.violation.is_some() {
            self.live.report.decide("block");
        } else if !ruling.edits.is_empty() && decided != Some("block") {
            self.live.report.decide("edit");
        }
        Ok(convert::ruling_in(ruling))
    }

    async fn given(&mut self, channel: Channel, text: Option<String>) -> crate::call::Given<shield::Ruling> {
        type Answer = (Result<shield::Ruling, types::Error>,);
        let session = self.session(channel).await?;
        let (answer,) = match text {
            Some(text) => {
                let params = (session, text);
                self.live.call::<_, Answer>(exports::SHIELD_FEED, params).await?
            }
            None => {
                let finished = self.live.call::<_, Answer>(exports::SHIELD_FINISH, (session,));
                finished.await?
            }
        };
        if let Ok(ruling) = &answer {
            let bytes = ruling.edits.iter().map(|e| e.replacement.len()).sum();
            self.live.meter.output(bytes)?;
        }
        Ok(answer)
    }

    async fn session(&mut self, channel: Channel) -> wasmtime::Result<ResourceAny> {
        if let Some(session) = self.open.get(&channel) {
            return Ok(*session);
        }
        if self.open.len() >= MAX_CHANNELS {
            wasmtime::bail!("more than {MAX_CHANNELS} channels in one reply");
        }
        let kind = match channel {
            Channel::Text => types::Channel::Text,
            Channel::Reasoning => types::Channel::Reasoning,
            Channel::ToolCall(_) => types::Channel::ToolCall,
            Channel::Step(_) => types::Channel::Step,
        };
        let params = (kind, self.conversation.clone());
        let made = self.live.call::<_, (ResourceAny,)>(exports::SHIELD_SESSION, params);
        let (session,) = made.await?;
        self.open.insert(channel, session);
        Ok(session)
    }

    fn end<R>(&mut self, given: crate::call::Given<R>) -> Result<R, CallError> {
        let name = self.live.name();
        self.live.end(given).map_err(|stop| stop.into_call_error(&name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn edits_that_do_not_fit_their_text_are_none() {
        let edit = |start: u64, end: u64| shield::Edit { start, end, replacement: "#".into() };
        let text = "aé bc";
        for (edits, want) in [
            (vec![], Some("aé bc")),
            (vec![edit(1, 3), edit(4, 4)], Some("a# #bc")),
            (vec![edit(6, 6)], Some("aé bc#")),
            (vec![edit(1, 2)], None),
            (vec![edit(2, 3)], None),
            (vec![edit(3, 1)], None),
            (vec![edit(0, 3), edit(1, 4)], None),
            (vec![edit(4, 7)], None),
            (vec![edit(u64::MAX, u64::MAX)], None),
        ] {
            assert_eq!(edited(text, &edits).as_deref(), want, "{edits:?}");
        }
    }
}
