//! Reads the secret `token` and passes on what the host answers.

fn read() -> stockade_guest::Result<()> {
    stockade_guest::secrets::get("token")?;
    Ok(())
}
test_guests::shield_that!(read);
