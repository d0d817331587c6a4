//! Never answers.

fn spin() -> stockade_guest::Result<()> {
    let mut n = 0u64;
    loop {
        n = std::hint::black_box(n.wrapping_add(1));
    }
}
test_guests::shield_that!(spin);
