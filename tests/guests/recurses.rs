//! Calls itself without end.
#![allow(unconditional_recursion, reason = "that is what this guest is for")]

fn recurse() -> stockade_guest::Result<()> {
    fn deeper(n: u64) -> u64 {
        let frame = std::hint::black_box([n; 32]);
        deeper(n.wrapping_add(1)).wrapping_add(frame[(n % 32) as usize])
    }
    std::hint::black_box(deeper(0));
    Ok(())
}
test_guests::shield_that!(recurse);
