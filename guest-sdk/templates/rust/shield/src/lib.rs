//! Masks the words of a list, in conversations and in streams.

use stockade_guest::prelude::*;

#[derive(Deserialize)]
struct Plugin {
    #[serde(default)]
    words: Vec<String>,
}

impl Finder for Plugin {
    /// Longest span in bytes: so much of a stream is held back.
    fn longest(&self) -> usize {
        self.words.iter().map(String::len).max().unwrap_or(0)
    }

    fn find(&self, text: &str) -> Result<Vec<Finding>> {
        let words = self.words.iter().filter(|word| !word.is_empty());
        let hits = words.flat_map(|word| text.match_indices(word.as_str()));
        Ok(hits.map(|(at, word)| Finding::mask(at..at + word.len(), "***")).collect())
    }
}

stockade_guest::export!(Plugin as shield);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_masked_however_the_stream_is_cut() {
        let reply = testing::every_split::<Plugin>(json!({"words": ["darn"]}), "well, darn it");
        assert_eq!(reply.sent, "well, *** it");
    }
}
