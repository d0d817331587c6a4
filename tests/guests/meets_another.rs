//! A shield that passes nothing before a second one judges as well: they meet in the bucket `meeting`. One that waits in
//! vain for ten seconds fails.

use stockade_guest::prelude::*;
use stockade_guest::system;

/// In milliseconds.
const PATIENCE: u64 = 10_000;

fn meet() -> Result<()> {
    let bucket = state::open("meeting")?;
    let began = system::now();
    let mut came = false;
    while system::now() - began < PATIENCE {
        let (here, expect) = match bucket.get_json::<u32>("here")? {
            Some((here, revision)) => (here, state::Expectation::Revision(revision)),
            None => (0, state::Expectation::Absent),
        };
        if here >= 2 {
            return Ok(());
        }
        // Where another came at the same time, it is looked at again.
        came = came || bucket.set_json("here", &(here + 1), expect).is_ok();
    }
    Err(Error::Timeout)
}

test_guests::shield_that!(meet);
