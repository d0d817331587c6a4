//! Blocks the configured word, in conversations and streams.

use stockade_guest::prelude::*;

#[derive(Deserialize)]
struct Guest {
    word: String,
}

impl Finder for Guest {
    fn longest(&self) -> usize {
        self.word.len()
    }
    fn find(&self, text: &str) -> Result<Vec<Finding>> {
        let found = text.match_indices(&self.word);
        Ok(found
            .map(|(at, word)| Finding::block(at..at + word.len(), Violation::new("word", "a blocked word")))
            .collect())
    }
}
stockade_guest::export!(Guest as shield);
