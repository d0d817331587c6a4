//! Logs 64 KiB lines without end.

fn flood() -> stockade_guest::Result<()> {
    let line = "x".repeat(64 << 10);
    loop {
        stockade_guest::info!("{line}");
    }
}
test_guests::shield_that!(flood);
