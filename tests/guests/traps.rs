//! Panics, which is a trap with a log line before it.

fn panic() -> stockade_guest::Result<()> {
    panic!("this guest always panics")
}
test_guests::shield_that!(panic);
