//! Asks the host's default model and passes on what the host answers.

fn ask() -> stockade_guest::Result<()> {
    stockade_guest::inference::Chat::new("").user("hello").max_tokens(1).ask()?;
    Ok(())
}
test_guests::shield_that!(ask);
