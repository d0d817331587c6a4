//! Opens spans without end and keeps them all.

fn leak() -> stockade_guest::Result<()> {
    let mut spans = Vec::new();
    loop {
        spans.push(stockade_guest::telemetry::Span::new("leak"));
    }
}
test_guests::shield_that!(leak);
