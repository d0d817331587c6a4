//! Clears more than it was fed.

use std::rc::Rc;
use stockade_guest::prelude::*;

#[derive(Deserialize)]
struct Guest {}

impl Shield for Guest {
    fn hold_back(&self) -> u32 {
        0
    }
    fn check(&self, _: Direction, _: Vec<Message>) -> Result<Verdict> {
        Ok(Verdict::Pass)
    }
    fn session(self: Rc<Self>, _: Channel, _: Vec<Message>) -> Result<Box<dyn Session>> {
        Ok(Box::new(Ahead))
    }
}

struct Ahead;

impl Session for Ahead {
    fn feed(&mut self, _: &str) -> Result<Ruling> {
        self.finish()
    }
    fn finish(&mut self) -> Result<Ruling> {
        Ok(Ruling { cleared: 1 << 40, edits: Vec::new(), violation: None })
    }
}
stockade_guest::export!(Guest as shield);
