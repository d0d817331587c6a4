//! Passes and clears everything at once: what a shield costs when it does nothing.

fn nothing() -> stockade_guest::Result<()> {
    Ok(())
}
test_guests::shield_that!(nothing);
