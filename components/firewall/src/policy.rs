//! The table: which scanners see the messages of which role, and what a finding or a failure of each amounts to.

use serde::Deserialize;
use stockade_guest::types::Role;

/// Between letting a message pass and refusing it stands asking a person.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Decision {
    Allow,
    Review,
    Block,
}

impl Decision {
    /// The decision in the words of the field's firewalls.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Allow => "allow",
            Self::Review => "human_in_the_loop_required",
            Self::Block => "block",
        }
    }
}

/// Names that are scanners of the firewall's own.
pub const HIDDEN_ASCII: &str = "hidden-ascii";
pub const ALIGNMENT: &str = "alignment";

/// One scanner of a row: its name alone, or with what follows from it.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(from = "Written")]
pub struct Scanner {
    pub name: String,
    /// What its finding amounts to.
    pub decision: Decision,
    /// What its failure amounts to.
    pub on_failure: Decision,
    /// Findings with a lower score are let pass.
    pub threshold: f32,
    /// It is handed the conversation up to the last message of its row's role, and knows itself what of it to judge.
    pub conversation: bool,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Written {
    Name(String),
    #[serde(rename_all = "snake_case")]
    Full(Full),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Full {
    scanner: String,
    decision: Option<Decision>,
    on_failure: Option<Decision>,
    #[serde(default)]
    threshold: f32,
    #[serde(default)]
    conversation: bool,
}

impl From<Written> for Scanner {
    fn from(written: Written) -> Self {
        let full = match written {
            Written::Full(full) => full,
            Written::Name(scanner) => {
                Full { scanner, decision: None, on_failure: None, threshold: 0.0, conversation: false }
            }
        };
        // A model's opinion of a whole trace is for a person to confirm.
        let decision = if full.scanner == ALIGNMENT { Decision::Review } else { Decision::Block };
        Self {
            decision: full.decision.unwrap_or(decision),
            on_failure: full.on_failure.unwrap_or(decision),
            name: full.scanner,
            threshold: full.threshold,
            conversation: full.conversation,
        }
    }
}

impl Scanner {
    fn named(name: &str) -> Self {
        Written::Name(name.into()).into()
    }
}

/// Scanners by role, in order.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Policy {
    pub system: Option<Vec<Scanner>>,
    pub user: Option<Vec<Scanner>>,
    pub assistant: Option<Vec<Scanner>>,
    pub tool: Option<Vec<Scanner>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum UseCase {
    None,
    #[default]
    Chatbot,
    CodingAssistant,
}

impl Policy {
    /// The rows that are written, over those of the use case.
    pub fn over(self, use_case: UseCase) -> Self {
        let row = |names: &[&str]| Some(names.iter().map(|n| Scanner::named(n)).collect());
        let base = match use_case {
            UseCase::None => Self::default(),
            UseCase::Chatbot => Self {
                system: None,
                user: row(&[HIDDEN_ASCII, "injection-guard"]),
                assistant: None,
                tool: row(&[HIDDEN_ASCII, "injection-guard"]),
            },
            UseCase::CodingAssistant => Self {
                system: None,
                user: row(&[HIDDEN_ASCII, "injection-guard"]),
                assistant: row(&["code-shield"]),
                tool: row(&[HIDDEN_ASCII, "code-shield", "injection-guard"]),
            },
        };
        Self {
            system: self.system.or(base.system),
            user: self.user.or(base.user),
            assistant: self.assistant.or(base.assistant),
            tool: self.tool.or(base.tool),
        }
    }

    pub fn row(&self, role: Role) -> &[Scanner] {
        let row = match role {
            Role::System => &self.system,
            Role::User => &self.user,
            Role::Assistant => &self.assistant,
            Role::Tool => &self.tool,
        };
        row.as_deref().unwrap_or_default()
    }
}
