//! A policy table from roles to ordered scanners, which are other shields of the tenant's and two of its own.
//!
//! Scanners of a row run in order; the first that says block ends the row. Over all rows the severest decision counts. A
//! scanner that masks hands its text on to the next.
//!
//! Invariant: a scanner's failure is never nothing: it amounts to the decision that its row names.

mod alignment;
mod hidden;
mod policy;

use policy::{ALIGNMENT, Decision, HIDDEN_ASCII, Policy, Scanner, UseCase};
use std::ops::Range;
use std::rc::Rc;
use stockade_guest::prelude::*;
use stockade_guest::shield::{Judged, Window, Windows};
use stockade_guest::{shields, warn};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {
    #[serde(default)]
    use_case: UseCase,
    #[serde(default)]
    policy: Policy,
    #[serde(default = "block")]
    review: Decision,
    #[serde(default)]
    alignment_model: String,
    #[serde(default = "window")]
    window: usize,
    /// The host's: the text that the end user sees.
    #[serde(default, rename = "refusal")]
    _refusal: Option<String>,
}

fn block() -> Decision {
    Decision::Block
}
fn window() -> usize {
    4096
}

#[derive(Deserialize)]
#[serde(try_from = "Config")]
struct Firewall {
    policy: Policy,
    /// What a review amounts to: [`Decision::Allow`] or [`Decision::Block`].
    review: Decision,
    alignment_model: String,
    window: usize,
}

impl TryFrom<Config> for Firewall {
    type Error = &'static str;

    fn try_from(config: Config) -> Result<Self, &'static str> {
        if config.review == Decision::Review {
            return Err("review: `block` or `allow`");
        }
        if !(256..=65_536).contains(&config.window) {
            return Err("window: 256 to 65536 bytes");
        }
        Ok(Self {
            policy: config.policy.over(config.use_case),
            review: config.review,
            alignment_model: config.alignment_model,
            window: config.window,
        })
    }
}

const ROLES: [Role; 4] = [Role::System, Role::User, Role::Assistant, Role::Tool];

impl Shield for Firewall {
    fn hold_back(&self) -> u32 {
        self.window as u32
    }

    fn check(&self, direction: Direction, mut messages: Vec<Message>) -> Result<Verdict> {
        let mut edited = false;
        for role in ROLES {
            let at: Vec<usize> = (0..messages.len()).filter(|&i| messages[i].role == role).collect();
            let Some(&last) = at.last() else { continue };
            for scanner in self.policy.row(role) {
                let given: Vec<usize> = if scanner.conversation { (0..=last).collect() } else { at.clone() };
                let handed = given.iter().map(|&i| messages[i].clone()).collect();
                let finding =
                    if scanner.name == ALIGNMENT { self.align(&messages) } else { scan(scanner, direction, handed) };
                match self.weigh(scanner, role, finding) {
                    Verdict::Pass => {}
                    Verdict::Edit(changed) if changed.len() == given.len() => {
                        // Only what is the row's is changed by it.
                        for (i, message) in given.into_iter().zip(changed) {
                            if messages[i].role == role && messages[i] != message {
                                messages[i] = message;
                                edited = true;
                            }
                        }
                    }
                    // Which message became which cannot be told: what was not read is not let pass.
                    Verdict::Edit(_) => {
                        return Ok(Verdict::Block(failed(scanner, role, "changed the number of messages")));
                    }
                    Verdict::Block(violation) => return Ok(Verdict::Block(violation)),
                }
            }
        }
        Ok(if edited { Verdict::Edit(messages) } else { Verdict::Pass })
    }

    /// A reply is the assistant's: its row judges stretch after stretch, each as what the assistant does next in the
    /// conversation.
    fn session(self: Rc<Self>, channel: Channel, conversation: Vec<Message>) -> Result<Box<dyn Session>> {
        let window = Window::new(self.window, self.window / 8);
        Ok(Box::new(Windows::new(window, move |text: &str, _| self.judge(channel, &conversation, text))))
    }
}

impl Firewall {
    fn align(&self, trace: &[Message]) -> Result<Verdict> {
        Ok(alignment::scan(&self.alignment_model, trace)?.map_or(Verdict::Pass, Verdict::Block))
    }

    /// Judges a stretch of a reply alone, in the light of the conversation that it answers.
    fn judge(&self, channel: Channel, conversation: &[Message], stretch: &str) -> Result<Judged> {
        let mut text = stretch.to_string();
        for scanner in self.policy.row(Role::Assistant) {
            let action = || vec![Message::assistant(text.as_str())];
            let finding = match scanner.name.as_str() {
                ALIGNMENT => self.align(&[conversation, &action()].concat()),
                HIDDEN_ASCII => scan(scanner, Direction::Output, action()),
                name => shields::check_reply_by(name, channel, conversation, &text),
            };
            match self.weigh(scanner, Role::Assistant, finding) {
                Verdict::Pass => {}
                Verdict::Block(violation) => return Ok(Judged::Block(violation)),
                Verdict::Edit(changed) => text = changed.first().map(Message::joined_text).unwrap_or_default(),
            }
        }
        Ok(if text == stretch { Judged::Clear } else { Judged::Mask(vec![difference(stretch, &text)]) })
    }

    /// What a scanner's finding or failure amounts to in this table.
    fn weigh(&self, scanner: &Scanner, role: Role, finding: Result<Verdict>) -> Verdict {
        let (decision, violation) = match finding {
            Ok(Verdict::Block(v)) if v.score.is_some_and(|s| s < scanner.threshold) => return Verdict::Pass,
            Ok(Verdict::Block(v)) => (scanner.decision, told(scanner, role, scanner.decision, v)),
            Ok(other) => return other,
            Err(error) => {
                warn!("scanner {} failed: {error}", scanner.name);
                (scanner.on_failure, failed(scanner, role, &error.to_string()))
            }
        };
        let decision = if decision == Decision::Review { self.review } else { decision };
        match decision {
            Decision::Allow => Verdict::Pass,
            Decision::Review | Decision::Block => Verdict::Block(violation),
        }
    }
}

/// The bytes of `before` that are not in `after`, between what both begin and end with, and what stands there instead.
fn difference(before: &str, after: &str) -> (Range<usize>, String) {
    let same = |a: &mut dyn Iterator<Item = char>, b: &mut dyn Iterator<Item = char>| -> usize {
        a.zip(b).take_while(|(a, b)| a == b).map(|(c, _)| c.len_utf8()).sum()
    };
    let start = same(&mut before.chars(), &mut after.chars());
    let end = same(&mut before[start..].chars().rev(), &mut after[start..].chars().rev());
    (start..before.len() - end, after[start..after.len() - end].into())
}

fn scan(scanner: &Scanner, direction: Direction, mut messages: Vec<Message>) -> Result<Verdict> {
    match scanner.name.as_str() {
        HIDDEN_ASCII => Ok(hidden::scan(&mut messages)),
        name => shields::check_by(name, direction, &messages),
    }
}

/// A scanner's violation with what the table made of it.
fn told(scanner: &Scanner, role: Role, decision: Decision, violation: Violation) -> Violation {
    let inner: Value = serde_json::from_str(&violation.metadata).unwrap_or_default();
    let metadata = json!({"decision": decision.as_str(), "scanner": scanner.name, "role": name_of(role),
        "status": "success", "found": inner});
    violation.with_metadata(&metadata)
}

fn failed(scanner: &Scanner, role: Role, reason: &str) -> Violation {
    let metadata = json!({"decision": scanner.on_failure.as_str(), "scanner": scanner.name, "role": name_of(role),
        "status": "error", "reason": reason});
    Violation::new("scanner-failed", "The message could not be checked.").with_metadata(&metadata)
}

fn name_of(role: Role) -> &'static str {
    match role {
        Role::System => "system",
        Role::User => "user",
        Role::Assistant => "assistant",
        Role::Tool => "tool",
    }
}

stockade_guest::export!(Firewall as shield);

#[cfg(test)]
mod tests;
