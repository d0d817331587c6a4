//! Writes each target's seeds into `FOLDER/TARGET/`, where libFuzzer begins from them.

fn main() -> std::io::Result<()> {
    let folder =
        std::env::args_os().nth(1).map_or_else(|| "tests/fuzz/libfuzzer/corpus".into(), std::path::PathBuf::from);
    for target in stockade_fuzz::TARGETS {
        let folder = folder.join(target.name);
        std::fs::create_dir_all(&folder)?;
        for (i, seed) in (target.seeds)().iter().enumerate() {
            std::fs::write(folder.join(format!("seed-{i}")), seed)?;
        }
    }
    Ok(())
}
