//! Reads the bucket `secret-plans` and passes on what the host answers.

fn read() -> stockade_guest::Result<()> {
    stockade_guest::state::open("secret-plans")?.get("key")?;
    Ok(())
}
test_guests::shield_that!(read);
