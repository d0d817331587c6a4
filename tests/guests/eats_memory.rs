//! Takes memory, a MiB at a time and touching each page, until there is no more.

fn eat() -> stockade_guest::Result<()> {
    let mut eaten: Vec<Vec<u8>> = Vec::new();
    loop {
        eaten.push(std::hint::black_box(vec![1; 1 << 20]));
    }
}
test_guests::shield_that!(eat);
