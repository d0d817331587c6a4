//! Saves, debris, fallbacks, refusals.

use super::*;
use std::cell::RefCell;
use std::io::{Read, Seek, SeekFrom};

fn state(step: u64) -> State {
    State {
        identity: identity("data"),
        program: "here".into(),
        step,
        applied: step,
        skipped_in_row: 0,
        tokens: 8 * step,
        loss: 0.1 + 0.2,
        evaluation: Some(Evaluated { step, loss: 1.0 / 3.0, judged: -2.0 / 3.0 }),
        best: Some(Evaluated { step: 1, loss: 0.25, judged: 0.25 }),
        without_better: 2,
    }
}

fn identity(data: &str) -> Identity {
    Identity { job: "j".into(), base: "b".into(), data: data.into(), evaluation: None }
}

fn save(checkpoints: &Checkpoints, step: u64) -> PathBuf {
    let write = |folder: &Path| {
        let tensors = [("a".to_owned(), &[1.5f32, -0.0, f32::MIN_POSITIVE][..]), ("b".to_owned(), &[][..])];
        write_tensors(&folder.join("weights.safetensors"), tensors.into_iter()).map_err(|e| failed("weights", e))?;
        fs::create_dir(folder.join("model"))
            .and_then(|()| fs::write(folder.join("model/config.json"), "{}"))
            .map_err(|e| failed("model", e))
    };
    checkpoints.save(&state(step), &write).unwrap()
}

#[test]
fn what_is_saved_is_found_bit_for_bit() {
    let folder = tempfile::tempdir().unwrap();
    let checkpoints = Checkpoints::open(folder.path()).unwrap();
    assert_eq!(checkpoints.newest(&|_| ()).unwrap(), None);
    let path = save(&checkpoints, 7);
    let found = checkpoints.newest(&|_| ()).unwrap().unwrap();
    assert_eq!(found, Found { path: path.clone(), state: state(7) });
    let mut values = [0.0f32; 3];
    read_tensors(&path.join("weights.safetensors"), [("a".into(), &mut values[..]), ("b".into(), &mut [])].into_iter())
        .unwrap();
    assert_eq!(values.map(f32::to_bits), [1.5f32, -0.0, f32::MIN_POSITIVE].map(f32::to_bits));
    for (name, length) in [("c", 3), ("a", 2)] {
        let mut other = vec![0.0; length];
        let tensors = [(name.to_owned(), &mut other[..]), ("b".into(), &mut [])].into_iter();
        assert!(read_tensors(&path.join("weights.safetensors"), tensors).is_err(), "{name} {length}");
    }
}

#[test]
fn a_damaged_checkpoint_falls_back_to_the_one_before() {
    type Damage = fn(&Path) -> io::Result<()>;
    let damages: [(&str, Damage); 5] = [
        ("a flipped bit", |path| {
            let mut file = File::options().read(true).write(true).open(path.join("weights.safetensors"))?;
            let mut byte = [0];
            file.seek(SeekFrom::End(-1))?;
            file.read_exact(&mut byte)?;
            file.seek(SeekFrom::End(-1))?;
            file.write_all(&[byte[0] ^ 1])
        }),
        ("a cut file", |path| File::options().write(true).open(path.join("weights.safetensors"))?.set_len(9)),
        ("a missing file", |path| fs::remove_file(path.join("model/config.json"))),
        ("no manifest", |path| fs::remove_file(path.join("manifest.json"))),
        ("a manifest that is not JSON", |path| fs::write(path.join("manifest.json"), "{")),
    ];
    for (name, damage) in damages {
        let folder = tempfile::tempdir().unwrap();
        let checkpoints = Checkpoints::open(folder.path()).unwrap();
        save(&checkpoints, 5);
        damage(&save(&checkpoints, 10)).unwrap();
        let notes = RefCell::new(Vec::new());
        let found = checkpoints.newest(&|note| notes.borrow_mut().push(note.to_owned())).unwrap().unwrap();
        assert_eq!((found.state.step, notes.borrow().len()), (5, 1), "{name}: {notes:?}");
        assert!(notes.borrow()[0].contains("step 10"), "{name}");
        assert_eq!(save(&checkpoints, 10), checkpoints.newest(&|_| ()).unwrap().unwrap().path, "{name}: saved again");
    }
}

#[test]
fn a_failed_save_leaves_nothing_and_harms_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let checkpoints = Checkpoints::open(folder.path()).unwrap();
    save(&checkpoints, 1);
    let full = |to: &Path| {
        fs::write(to.join("half"), "x").unwrap();
        Err(failed("weights", io::Error::from(io::ErrorKind::StorageFull)))
    };
    assert!(checkpoints.save(&state(2), &full).is_err());
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    assert_eq!(checkpoints.newest(&|_| ()).unwrap().unwrap().state.step, 1);
}

#[test]
fn what_a_crash_left_is_removed_when_the_run_opens() {
    let folder = tempfile::tempdir().unwrap();
    save(&Checkpoints::open(folder.path()).unwrap(), 3);
    fs::create_dir(folder.path().join("step-00000004.tmp")).unwrap();
    let checkpoints = Checkpoints::open(folder.path()).unwrap();
    assert_eq!(checkpoints.steps().unwrap(), [3]);
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
}

#[test]
fn the_newest_and_the_best_stay() {
    let folder = tempfile::tempdir().unwrap();
    let checkpoints = Checkpoints::open(folder.path()).unwrap();
    (1..=6).for_each(|step| _ = save(&checkpoints, step));
    checkpoints.prune(2, Some(2)).unwrap();
    let mut steps = checkpoints.steps().unwrap();
    steps.sort_unstable();
    assert_eq!(steps, [2, 5, 6]);
    checkpoints.prune(0, None).unwrap();
    assert_eq!(checkpoints.steps().unwrap(), [6], "the last one always stays");
}

#[test]
fn another_run_is_refused_with_both_digests() {
    assert!(identity("data").same_as(&identity("data")).is_ok());
    let error = identity("new").same_as(&identity("old")).unwrap_err().to_string();
    assert_eq!(error, "cannot resume: the data was old and is new");
    let with = Identity { evaluation: Some("e".into()), ..identity("data") };
    assert!(with.same_as(&identity("data")).unwrap_err().to_string().contains("was none and is e"));
}

#[test]
fn a_manifest_reaches_nothing_outside_its_folder() {
    let folder = tempfile::tempdir().unwrap();
    let checkpoints = Checkpoints::open(&folder.path().join("c")).unwrap();
    let path = save(&checkpoints, 1);
    fs::write(folder.path().join("outside"), "").unwrap();
    let empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
    fs::write(
        path.join("manifest.json"),
        format!(r#"{{"files":{{"../../outside":{{"bytes":0,"sha256":"{empty}"}}}}}}"#),
    )
    .unwrap();
    assert!(checkpoints.load(1).is_err());
}
