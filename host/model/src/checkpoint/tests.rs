use super::*;
use std::fs;

fn open(model: &str) -> Option<Checkpoint> {
    Some(Checkpoint::open(&crate::reference_file(model)?).unwrap())
}

#[test]
fn gguf_rows_are_those_of_the_safetensors_they_were_made_of() {
    let Some(reference) = open("fixtures/llama-micro") else {
        return;
    };
    for file in ["llama-micro-BF16.gguf", "llama-micro-F16.gguf"] {
        let gguf = open(&format!("fixtures/llama-micro/{file}")).unwrap();
        let mut compared = 0;
        for want in reference.tensors() {
            let tensor = gguf.tensor_of(&want.name, &want.shape).unwrap();
            let (got, want) = (gguf.read_f32(tensor).unwrap(), reference.read_f32(want).unwrap());
            for (got, want) in got.iter().zip(&want) {
                assert!((got - want).abs() <= 1e-3 * want.abs() + 1e-6, "{file}, {}: {got} for {want}", tensor.name);
            }
            compared += 1;
        }
        assert!(compared > 10);
    }
}

#[test]
fn any_range_of_reordered_rows_is_that_part_of_the_whole() {
    let Some(gguf) = open("fixtures/llama32-tiny-gguf/llama32-tiny-Q4_K_M.gguf") else {
        return;
    };
    for name in [
        "model.layers.1.self_attn.q_proj.weight",
        "model.layers.1.self_attn.k_proj.weight",
        "model.layers.1.mlp.up_proj.weight",
    ] {
        let tensor = gguf.tensor(name).unwrap();
        let whole = gguf.read(tensor).unwrap();
        for (start, end) in
            [(0, 1), (5, 17), (31, 33), (0, tensor.rows), (tensor.rows, tensor.rows), (tensor.rows - 1, tensor.rows)]
        {
            let mut part = vec![0; (end - start) * tensor.row_bytes];
            gguf.read_rows(tensor, start..end, &mut part).unwrap();
            assert_eq!(part, whole[start * tensor.row_bytes..end * tensor.row_bytes], "{name} {start}..{end}");
        }
        let mut short = vec![0; tensor.row_bytes];
        assert!(gguf.read_rows(tensor, 0..2, &mut short).is_err());
        assert!(gguf.read_rows(tensor, tensor.rows..tensor.rows + 1, &mut short).is_err());
    }
}

#[test]
fn shards_are_one_checkpoint_with_a_digest_of_their_own() {
    let (Some(sharded), Some(single)) = (open("fixtures/llama32-tiny-bf16"), open("fixtures/llama32-tiny")) else {
        return;
    };
    let names = |c: &Checkpoint| c.tensors().map(|t| (t.name.clone(), t.shape.clone())).collect::<Vec<_>>();
    assert_eq!(names(&sharded), names(&single));
    assert_ne!(sharded.digest().unwrap(), single.digest().unwrap());
    let bytes = fs::read(single.path().join("model.safetensors")).unwrap();
    assert_eq!(single.digest().unwrap(), sha256_of(&bytes[..]).unwrap());
    assert_eq!(single.digest().unwrap(), single.digest().unwrap(), "the second answer comes from memory");
}

/// A safetensors file of this header and so many bytes of data.
fn safetensors(header: &str, data: usize) -> Vec<u8> {
    let mut file = (header.len() as u64).to_le_bytes().to_vec();
    file.extend_from_slice(header.as_bytes());
    file.resize(file.len() + data, 7);
    file
}

fn open_bytes(name: &str, bytes: &[u8]) -> Result<Checkpoint, ModelError> {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join(name), bytes).unwrap();
    Checkpoint::open(dir.path())
}

#[test]
fn safetensors_of_other_types_are_skipped_and_named_when_asked_for() {
    let header = r#"{"__metadata__":{"format":"pt"},"w":{"dtype":"F32","shape":[2,3],"data_offsets":[0,24]},
        "ids":{"dtype":"I64","shape":[2],"data_offsets":[24,40]},"new":{"dtype":"F2","shape":[4],"data_offsets":[40,41]},
        "none":{"dtype":"F32","shape":[0,3],"data_offsets":[41,41]}}  "#;
    let checkpoint = open_bytes("model.safetensors", &safetensors(header, 41)).unwrap();
    assert_eq!(checkpoint.tensors().map(|t| t.name.as_str()).collect::<Vec<_>>(), ["w"]);
    let error = checkpoint.tensor("ids").unwrap_err().to_string();
    assert!(error.contains("ids") && error.contains("I64"), "{error}");
    assert!(matches!(checkpoint.tensor("nothing"), Err(ModelError::NoTensor { .. })));
    assert!(checkpoint.tensor_of("w", &[3, 2]).unwrap_err().to_string().contains("[2, 3]"));
}

#[test]
fn broken_safetensors_are_refused_with_the_reason() {
    let w =
        |offsets: &str, shape: &str| format!(r#"{{"w":{{"dtype":"F32","shape":{shape},"data_offsets":{offsets}}}}}"#);
    for (header, data, want) in [
        (w("[0,24]", "[2,3]"), 23, "exceed"),
        (w("[0,24]", "[2,3]"), 25, "25 bytes"),
        (w("[4,28]", "[2,3]"), 28, "hole"),
        (w("[0,20]", "[2,3]"), 20, "does not take"),
        (w("[24,0]", "[2,3]"), 24, "hole"),
        (w("[0,24]", "[4611686018427387904,4611686018427387904]"), 24, "overflows"),
        (w("[0,24]", "[1,1,1,1,1,1,1,2,3]"), 24, "dimensions"),
        (r#"{"w":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"w":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}}"#.into(), 8, "twice"),
        (r#"[1]"#.into(), 0, "{"),
        (r#"{"w":1}"#.into(), 0, "header"),
        ("{".into(), 0, "header"),
        (format!("{{\"{}\":{{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]}}}}", "n".repeat(513)), 4, "513"),
    ] {
        let error = open_bytes("model.safetensors", &safetensors(&header, data)).expect_err(&header).to_string();
        assert!(error.contains(want) && error.contains("model.safetensors"), "{header}: {error}");
    }
    let huge = [u64::MAX.to_le_bytes().as_slice(), b"{}"].concat();
    assert!(open_bytes("model.safetensors", &huge).is_err());
    assert!(open_bytes("model.safetensors", b"short").is_err());
}

#[test]
fn a_shard_index_names_plain_files_and_what_they_hold() {
    let shard = safetensors(r#"{"w":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}"#, 4);
    for (file, tensor, good) in [
        ("a.safetensors", "w", true),
        ("a.safetensors", "v", false),
        ("../a.safetensors", "w", false),
        ("/a.safetensors", "w", false),
        ("b.safetensors", "w", false),
        ("a.bin", "w", false),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("m");
        fs::create_dir(&folder).unwrap();
        fs::write(folder.join("a.safetensors"), &shard).unwrap();
        fs::write(dir.path().join("a.safetensors"), &shard).unwrap();
        let index = serde_json::json!({"weight_map": {tensor: file}});
        fs::write(folder.join("model.safetensors.index.json"), index.to_string()).unwrap();
        assert_eq!(Checkpoint::open(&folder).is_ok(), good, "{file} {tensor}");
    }
}

#[test]
fn a_folder_without_a_model_says_what_it_looked_for() {
    let dir = tempfile::tempdir().unwrap();
    let error = Checkpoint::open(dir.path()).unwrap_err().to_string();
    assert!(error.contains("model.safetensors") && error.contains(".gguf"), "{error}");
    let error = Checkpoint::open(&dir.path().join("nothing")).unwrap_err().to_string();
    assert!(error.contains("no such"), "{error}");
}

#[test]
fn a_file_cut_after_opening_is_a_read_error() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("model.safetensors");
    fs::write(&file, safetensors(r#"{"w":{"dtype":"F32","shape":[2,3],"data_offsets":[0,24]}}"#, 24)).unwrap();
    let checkpoint = Checkpoint::open(dir.path()).unwrap();
    fs::OpenOptions::new().write(true).open(&file).unwrap().set_len(40).unwrap();
    let tensor = checkpoint.tensor("w").unwrap();
    assert!(matches!(checkpoint.read(tensor), Err(ModelError::Read { .. })));
}
