//! Calls the host without end.

fn storm() -> stockade_guest::Result<()> {
    loop {
        std::hint::black_box(stockade_guest::system::now());
    }
}
test_guests::shield_that!(storm);
