//! Output shields of one reply: every channel through all bound shields at once.

use super::gate::{Gate, MAX_HELD_BYTES, Moment, Piece};
use super::refusal_text;
use crate::error::{ApiError, Code};
use crate::run::Run;
use futures::future::join_all;
use std::collections::BTreeMap;
use std::sync::Arc;
use stockade_core::chat::Message;
use stockade_core::limits::LimitKind;
use stockade_core::plugin::{CallError, Channel, Mode, OnFailure, Pinned, Role, Ruling, ShieldStream};

/// The host's bound on what a shield may declare as its hold-back, in bytes.
const MAX_HOLD_BACK: u32 = 64 << 10;
/// Most channels of a reply, its steps included.
const MAX_CHANNELS: usize = 512;

pub struct OutputShields {
    run: Arc<Run>,
    shields: Vec<Shield>,
    channels: BTreeMap<Channel, Gate>,
}

struct Shield {
    pinned: Arc<Pinned>,
    /// `None` once it has failed and is let through.
    stream: Option<Box<dyn ShieldStream>>,
    hold_back: u32,
}

/// What may go out after a piece, and the refusal when a shield has ended the reply.
#[derive(Debug, Default, PartialEq)]
pub struct Judged {
    pub pieces: Vec<Piece>,
    pub refusal: Option<String>,
}

impl OutputShields {
    /// Opens a session with every bound output shield for a reply to `conversation`.
    pub async fn open(run: &Arc<Run>, conversation: &[Message]) -> Result<Self, ApiError> {
        let pinned = run.pins().all(&Role::ShieldOutput);
        let opened = pinned.iter().map(|shield| run.app.plugins.open_stream(run.call(shield), conversation));
        let mut shields = Vec::with_capacity(pinned.len());
        for (pinned, opened) in pinned.iter().zip(join_all(opened).await) {
            let stream = match opened {
                Ok(stream) => Some(stream),
                Err(e) => {
                    tolerate(run, pinned, e)?;
                    None
                }
            };
            let hold_back = stream.as_ref().map_or(0, |s| s.hold_back());
            shields.push(Shield { pinned: pinned.clone(), stream, hold_back: hold_back.min(MAX_HOLD_BACK) });
        }
        Ok(Self { run: run.clone(), shields, channels: BTreeMap::new() })
    }

    /// Whether no shield is bound: text may pass untouched.
    pub fn is_empty(&self) -> bool {
        self.shields.is_empty()
    }

    pub async fn feed(&mut self, channel: Channel, text: &str) -> Result<Judged, ApiError> {
        if self.channels.len() >= MAX_CHANNELS && !self.channels.contains_key(&channel) {
            return Err(ApiError::new(Code::ComponentFailed, "too many tool calls or steps"));
        }
        let gate = Self::gate(&mut self.channels, &self.shields, channel);
        gate.push(text);
        if gate.held_bytes() > MAX_HELD_BYTES {
            return Err(ApiError::new(Code::ComponentFailed, "the output shields hold back too much"));
        }
        let rulings = self.shields.iter_mut().map(async |s| match &mut s.stream {
            Some(stream) => Some(stream.feed(channel, text).await),
            None => None,
        });
        let rulings = join_all(rulings).await;
        self.judge(channel, rulings, false)
    }

    /// The channel is complete; one that was never fed has nothing to rule on.
    pub async fn finish(&mut self, channel: Channel) -> Result<Judged, ApiError> {
        if !self.channels.contains_key(&channel) {
            return Ok(Judged::default());
        }
        let rulings = self.shields.iter_mut().map(async |s| match &mut s.stream {
            Some(stream) => Some(stream.finish(channel).await),
            None => None,
        });
        let rulings = join_all(rulings).await;
        self.judge(channel, rulings, true)
    }

    fn gate<'a>(channels: &'a mut BTreeMap<Channel, Gate>, shields: &[Shield], channel: Channel) -> &'a mut Gate {
        channels.entry(channel).or_insert_with(|| {
            let mut gate = Gate::new(shields.len());
            for (i, shield) in shields.iter().enumerate() {
                if shield.stream.is_none() || shield.pinned.mode == Mode::Observe {
                    gate.ignore(i);
                }
            }
            gate
        })
    }

    fn judge(
        &mut self,
        channel: Channel,
        rulings: Vec<Option<Result<Ruling, CallError>>>,
        finished: bool,
    ) -> Result<Judged, ApiError> {
        let mut refusal = None;
        for (i, ruling) in rulings.into_iter().enumerate() {
            let Some(ruling) = ruling else { continue };
            let shield = &self.shields[i];
            let pinned = shield.pinned.clone();
            let moment = if finished { Moment::Finished } else { Moment::Fed { hold_back: shield.hold_back } };
            let failure = match ruling {
                Err(e) => e,
                Ok(ruling) if pinned.mode == Mode::Observe => {
                    if let Some(violation) = ruling.violation {
                        self.run
                            .note(format!("{} would have blocked: {} (observe)", pinned.component, violation.category));
                        // It has said what it had to say.
                        self.drop_shield(i);
                    }
                    continue;
                }
                Ok(ruling) => {
                    let violation = ruling.violation.clone();
                    let gate = Self::gate(&mut self.channels, &self.shields, channel);
                    match gate.rule(i, ruling, moment) {
                        Ok(()) => {
                            if let (Some(violation), None) = (violation, &refusal) {
                                self.run
                                    .note(format!("{} blocked the output: {}", pinned.component, violation.category));
                                refusal = Some(refusal_text(&pinned, &violation));
                            }
                            continue;
                        }
                        Err(broken) => CallError::Failed {
                            component: pinned.component.to_string(),
                            limit: LimitKind::Trap,
                            detail: broken,
                        },
                    }
                }
            };
            tolerate(&self.run, &pinned, failure)?;
            self.drop_shield(i);
        }
        let gate = Self::gate(&mut self.channels, &self.shields, channel);
        Ok(Judged { pieces: gate.release(), refusal })
    }

    fn drop_shield(&mut self, i: usize) {
        self.shields[i].stream = None;
        for gate in self.channels.values_mut() {
            gate.ignore(i);
        }
    }
}

/// Lets a failed shield through where its binding says so.
fn tolerate(run: &Run, shield: &Pinned, e: CallError) -> Result<(), ApiError> {
    if shield.on_failure == OnFailure::Block && shield.mode == Mode::Enforce {
        return Err(shield_failed(shield, e));
    }
    run.note(format!("{} failed and was let through: {e}", shield.component));
    Ok(())
}

/// A shield's failure is the host's answer `component_failed`, whatever the shield met.
pub fn shield_failed(shield: &Pinned, e: CallError) -> ApiError {
    let host = matches!(e, CallError::Host { .. } | CallError::Overloaded);
    let error = ApiError::from(e);
    if host {
        return error;
    }
    let mut failed = ApiError { code: Code::ComponentFailed, param: None, retry_after: None, ..error };
    if failed.field("limit").is_none() {
        failed = failed.with("limit", "trap");
    }
    failed.with("component", shield.component.name.as_str()).with("version", shield.component.version.as_str())
}
