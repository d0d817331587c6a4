//! The choice of a route.

use crate::{Route, Router};
use agent::history;
use regex_lite::RegexBuilder;
use stockade_guest::inference::Chat;
use stockade_guest::prelude::*;

/// Most bytes of the message that rules and embeddings look at.
const MAX_MESSAGE: usize = 16 << 10;
/// Most bytes of a compiled pattern.
const MAX_PATTERN: usize = 1 << 20;
/// Most texts of an embedding call, the host's bound.
const MAX_TEXTS: usize = 256;
/// Most tokens of a route's name.
const NAME_TOKENS: u32 = 32;

/// A way to decide.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Way {
    /// The first route with a keyword or pattern that the message has.
    Rules,
    /// The route of the example that is nearest to the message.
    Similarity,
    /// A model reads the descriptions and names a route; decoding allows nothing but the names.
    Model,
}

/// What was decided, and how.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Choice {
    /// The route's name.
    pub route: String,
    /// `None`: the default, since nothing decided.
    by: Option<Way>,
    /// The cosine, for similarity.
    score: Option<f32>,
}

pub fn choose(router: &Router, turn: &Turn) -> Result<Choice> {
    let message = agent::question(&turn.messages);
    let message = agent::steps::cut_at(&message, MAX_MESSAGE);
    for &way in &router.by {
        let (route, score) = match way {
            Way::Rules => (by_rules(router, message)?, None),
            Way::Similarity => match by_similarity(router, message)? {
                Some((route, score)) => (Some(route), Some(score)),
                None => (None, None),
            },
            Way::Model => (by_model(router, message)?, None),
        };
        if let Some(route) = route {
            return Ok(Choice { route: route.name.clone(), by: Some(way), score });
        }
    }
    Ok(Choice { route: router.default.clone(), by: None, score: None })
}

fn by_rules<'a>(router: &'a Router, message: &str) -> Result<Option<&'a Route>> {
    let lower = message.to_lowercase();
    for route in &router.routes {
        if route.keywords.iter().any(|keyword| has_word(&lower, &keyword.to_lowercase())) {
            return Ok(Some(route));
        }
        if let Some(pattern) = &route.pattern {
            let compiled = RegexBuilder::new(pattern).size_limit(MAX_PATTERN).build();
            let compiled = compiled.map_err(|e| Error::Invalid(format!("config: pattern of `{}`: {e}", route.name)))?;
            if compiled.is_match(message) {
                return Ok(Some(route));
            }
        }
    }
    Ok(None)
}

/// Whether `word` stands in the text with no letter or digit beside it.
fn has_word(text: &str, word: &str) -> bool {
    let stands_alone = |(at, _): (usize, &str)| {
        let before = text[..at].chars().next_back();
        let after = text[at + word.len()..].chars().next();
        ![before, after].into_iter().flatten().any(char::is_alphanumeric)
    };
    !word.is_empty() && text.match_indices(word).any(stands_alone)
}

fn by_similarity<'a>(router: &'a Router, message: &str) -> Result<Option<(&'a Route, f32)>> {
    let examples = router.routes.iter().flat_map(|route| route.examples.iter().map(move |e| (route, e)));
    let examples: Vec<(&Route, &String)> = examples.take(MAX_TEXTS - 1).collect();
    if examples.is_empty() {
        return Ok(None);
    }
    let mut texts = vec![message.to_string()];
    texts.extend(examples.iter().map(|(_, text)| (*text).clone()));
    let vectors = inference::embed(&router.embedder, &texts)?;
    let Some((asked, rest)) = vectors.split_first() else { return Ok(None) };
    // Vectors are normalised: the product is the cosine.
    let cosine = |v: &Vec<f32>| asked.iter().zip(v).map(|(a, b)| a * b).sum::<f32>();
    let scores = examples.iter().zip(rest).map(|((route, _), vector)| (*route, cosine(vector)));
    let best = scores.max_by(|a, b| a.1.total_cmp(&b.1));
    Ok(best.filter(|(_, score)| *score >= router.threshold))
}

fn by_model<'a>(router: &'a Router, message: &str) -> Result<Option<&'a Route>> {
    let lines: String = router.routes.iter().map(|r| format!("- {}: {}\n", r.name, r.description)).collect();
    let names: Vec<String> = router.routes.iter().map(|r| regex_lite::escape(&r.name)).collect();
    let request = Chat::new(&*router.classifier)
        .system(format!("You sort messages into categories. The categories:\n{lines}"))
        .user(format!("Message:\n{message}\n\nAnswer with the name of the one category that fits best."))
        .sampling(agent::inner_sampling(NAME_TOKENS))
        .constraint(Some(Constraint::Regex(names.join("|"))));
    let answer = history::start(&request)?.collect()?.text;
    Ok(router.routes.iter().find(|r| r.name == answer.trim()))
}

#[cfg(test)]
mod tests {
    use super::has_word;

    #[test]
    fn keywords_are_whole_words() {
        for (text, word, want) in [
            ("my bill is wrong", "bill", true),
            ("billing", "bill", false),
            ("a BILL, please".to_lowercase().as_str(), "bill", true),
            ("größe", "größe", true),
            ("übergröße", "größe", false),
            ("pay back", "pay back", true),
            ("x", "", false),
        ] {
            assert_eq!(has_word(text, word), want, "{word} in {text}");
        }
    }
}
