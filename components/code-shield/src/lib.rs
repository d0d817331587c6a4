//! Finds insecure code in conversations and in streams, by the rules of Code Shield.
//!
//! - `fence` finds the code in a text, `language` its language;
//! - `scan` runs the rules: regular expressions first, then patterns over a syntax tree (`syntax`, `matching`, `search`,
//!   `taint`), each only when `prefilter` has seen the words that a match needs;
//! - this file decides what a finding means.

mod bindings;
mod expression;
mod facts;
mod fence;
mod language;
mod matching;
mod prefilter;
mod rules;
mod scan;
mod search;
mod syntax;
mod taint;
mod tree;

use fence::{Fences, HOLD_BACK, Label, Part};
use language::Language;
use rules::{REGEX, SYNTAX, Severity, UseCase};
use scan::{Issue, Scanner};
use serde::Serialize;
use std::rc::Rc;
use stockade_guest::prelude::*;
use stockade_guest::types::Part as message;
use stockade_guest::{telemetry, warn};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {
    #[serde(default = "codeshield")]
    use_case: UseCase,
    #[serde(default)]
    treatment: Treatments,
    /// The language of code that does not say.
    language: Option<Language>,
    /// The only languages that are looked at; all without it.
    languages: Option<Vec<Language>>,
    /// Ids of rules to run besides those of the use case.
    #[serde(default)]
    enable: Vec<String>,
    /// Ids of rules not to run.
    #[serde(default)]
    disable: Vec<String>,
    #[serde(default)]
    unfenced: Unfenced,
    /// The host's: the text that the end user sees instead of a violation's message.
    #[serde(default, rename = "refusal")]
    _refusal: Option<String>,
}

fn codeshield() -> UseCase {
    UseCase::CodeShield
}

/// What a finding of each severity leads to.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Treatments {
    error: Treatment,
    warning: Treatment,
    advice: Treatment,
}

impl Default for Treatments {
    /// Nearly every rule is a warning, so warnings block; advice is for a reviewer.
    fn default() -> Self {
        Self { error: Treatment::Block, warning: Treatment::Block, advice: Treatment::Warn }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
enum Treatment {
    Block,
    /// Passes, with a line in the log and a count.
    Warn,
    Ignore,
}

/// What text without fences is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Unfenced {
    /// Code, in whole messages; in streams it flows.
    #[default]
    Check,
    /// Code, fences or not, in streams too.
    Always,
    /// Prose.
    Never,
}

#[derive(Deserialize)]
#[serde(try_from = "Config")]
pub struct CodeShield {
    scanner: Scanner,
    treatment: Treatments,
    language: Option<Language>,
    unfenced: Unfenced,
}

impl TryFrom<Config> for CodeShield {
    type Error = String;

    fn try_from(config: Config) -> Result<Self, String> {
        let known = |id: &String| REGEX.iter().any(|r| r.about.id == id) || SYNTAX.iter().any(|r| r.about.id == id);
        if let Some(unknown) = config.enable.iter().chain(&config.disable).find(|id| !known(id)) {
            return Err(format!("there is no rule `{unknown}`"));
        }
        let scanner = Scanner {
            use_case: config.use_case,
            languages: config.languages,
            enable: config.enable.into_iter().collect(),
            disable: config.disable.into_iter().collect(),
            compiled: Default::default(),
        };
        Ok(Self { scanner, treatment: config.treatment, language: config.language, unfenced: config.unfenced })
    }
}

impl Shield for CodeShield {
    fn hold_back(&self) -> u32 {
        HOLD_BACK as u32
    }

    fn check(&self, _: Direction, messages: Vec<Message>) -> Result<Verdict> {
        let mut issues = Vec::new();
        for part in messages.iter().flat_map(|message| &message.parts) {
            match part {
                message::Text(text) | message::Reasoning(text) => self.collect(text, &mut issues)?,
                message::ToolResult(result) => self.collect(&result.content, &mut issues)?,
                message::ToolCall(call) => {
                    let judge = |part: Part<'_>| self.scan(part, true).map(|found| issues.extend(found));
                    Fences::whole().feed(&call.arguments, true, judge).1?;
                }
                message::Image(_) => {}
            }
        }
        Ok(match self.judge(issues) {
            Some(violation) => Verdict::Block(violation),
            None => Verdict::Pass,
        })
    }

    fn session(self: Rc<Self>, channel: Channel, _: Vec<Message>) -> Result<Box<dyn Session>> {
        let code = channel == Channel::ToolCall || self.unfenced == Unfenced::Always;
        let fences = if code { Fences::whole() } else { Fences::new() };
        Ok(Box::new(Stream { shield: self, fences, escaped: channel == Channel::ToolCall }))
    }
}

/// One channel of a reply.
struct Stream {
    shield: Rc<CodeShield>,
    fences: Fences,
    /// The code stands in JSON strings.
    escaped: bool,
}

impl Session for Stream {
    fn feed(&mut self, text: &str) -> Result<Ruling> {
        self.rule(text, false)
    }
    fn finish(&mut self) -> Result<Ruling> {
        self.rule("", true)
    }
}

/// Why a stream ends.
enum End {
    Violation(Violation),
    Failed(Error),
}

impl Stream {
    fn rule(&mut self, text: &str, complete: bool) -> Result<Ruling> {
        let (shield, escaped) = (&self.shield, self.escaped);
        let (cleared, outcome) = self.fences.feed(text, complete, |part| {
            let issues = shield.scan(part, escaped).map_err(End::Failed)?;
            shield.judge(issues).map_or(Ok(()), |violation| Err(End::Violation(violation)))
        });
        match outcome {
            Ok(()) => Ok(Ruling { cleared, edits: Vec::new(), violation: None }),
            Err(End::Violation(violation)) => Ok(Ruling { cleared, edits: Vec::new(), violation: Some(violation) }),
            Err(End::Failed(error)) => Err(error),
        }
    }
}

impl CodeShield {
    /// The findings in a whole text.
    fn collect(&self, text: &str, issues: &mut Vec<Issue>) -> Result<()> {
        let mut judge = |part: Part<'_>| self.scan(part, false).map(|found| issues.extend(found));
        if self.unfenced != Unfenced::Always {
            let mut fences = Fences::new();
            fences.feed(text, true, &mut judge).1?;
            if fences.blocks > 0 || self.unfenced == Unfenced::Never {
                return Ok(());
            }
        }
        Fences::whole().feed(text, true, &mut judge).1
    }

    fn scan(&self, part: Part<'_>, escaped: bool) -> Result<Vec<Issue>> {
        let unescaped = escaped.then(|| unescape(part.code));
        let code = unescaped.as_deref().unwrap_or(part.code);
        let mut issues = match part.label {
            Label::Language(language) => self.scanner.scan(code, Some(language))?,
            Label::Foreign => self.scanner.scan_secrets(code),
            Label::None => self.scanner.scan(code, self.language.or_else(|| Language::guess(code)))?,
        };
        issues.iter_mut().for_each(|issue| issue.line += part.lines_before);
        Ok(issues)
    }

    fn treatment(&self, severity: Severity) -> Treatment {
        match severity {
            Severity::Error => self.treatment.error,
            Severity::Warning => self.treatment.warning,
            Severity::Advice => self.treatment.advice,
        }
    }

    /// What the findings lead to: a violation, or at most a line in the log.
    fn judge(&self, issues: Vec<Issue>) -> Option<Violation> {
        let treated = |wanted| issues.iter().filter(move |i| self.treatment(i.severity) == wanted);
        if treated(Treatment::Block).next().is_none() {
            for issue in treated(Treatment::Warn) {
                warn!("{} ({}), line {}: {}", issue.pattern_id, issue.cwe_id, issue.line, issue.description);
                telemetry::count("code_shield_warnings", 1.0);
            }
            return None;
        }
        let mut ids: Vec<&str> = issues.iter().map(|i| i.pattern_id).collect();
        ids.dedup();
        let worst = issues.iter().map(|i| i.severity).max();
        // As the reference has it: only an error asks for more than a warning.
        let recommended = if worst == Some(Severity::Error) { "block" } else { "warn" };
        let metadata = json!({
            "is_insecure": true,
            "recommended_treatment": recommended,
            "violation_type": ids.join(","),
            "issues": issues,
        });
        let violation = Violation::new("insecure-code", "Sorry, I found security concerns in the code.");
        Some(violation.with_metadata(&metadata))
    }
}

/// What JSON's escapes stand for, wherever they stand; the rest as it is.
fn unescape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut characters = text.chars();
    while let Some(c) = characters.next() {
        if c != '\\' {
            out.push(c);
            continue;
        }
        match characters.next() {
            Some('n') => out.push('\n'),
            Some('t') => out.push('\t'),
            Some('r') => out.push('\r'),
            Some('u') => {
                let digits: String = characters.clone().take(4).collect();
                if let Ok(code) = u32::from_str_radix(&digits, 16) {
                    out.extend(char::from_u32(code));
                    characters.nth(3);
                }
            }
            Some(other) => out.push(other),
            None => out.push('\\'),
        }
    }
    out
}

stockade_guest::export!(CodeShield as shield);

#[cfg(test)]
mod tests;
