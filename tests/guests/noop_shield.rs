//! Clears everything at once: what a shield costs when it does nothing.

use stockade_guest::prelude::*;
use std::rc::Rc;

#[derive(Deserialize)]
struct Noop {}

impl Shield for Noop {
    fn hold_back(&self) -> u32 {
        0
    }
    fn check(&self, _: Direction, _: Vec<Message>) -> Result<Verdict> {
        Ok(Verdict::Pass)
    }
    fn session(self: Rc<Self>, _: Channel) -> Result<Box<dyn Session>> {
        Ok(Box::new(Fed(0)))
    }
}

struct Fed(u64);

impl Session for Fed {
    fn feed(&mut self, text: &str) -> Result<Ruling> {
        self.0 += text.len() as u64;
        self.finish()
    }
    fn finish(&mut self) -> Result<Ruling> {
        Ok(Ruling {
            cleared: self.0,
            edits: Vec::new(),
            violation: None,
        })
    }
}
stockade_guest::export!(Noop as shield);
