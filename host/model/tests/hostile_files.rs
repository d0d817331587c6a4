//! Broken and hostile model files: whatever the bytes, opening ends in a value or an error, and takes memory in
//! proportion to the file, not to what the file claims.

use proptest::prelude::*;
use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::path::Path;
use stockade_model::{Checkpoint, ModelConfig, Tokenizer};

/// Counts what the current thread takes, so that tests beside each other do not disturb.
struct Counting;

thread_local! {
    static TAKEN: Cell<usize> = const { Cell::new(0) };
    static PEAK: Cell<usize> = const { Cell::new(0) };
}

fn count(change: isize) {
    // `try_with`: the allocator also runs while a thread ends.
    let _ = TAKEN.try_with(|taken| {
        let now = taken.get().saturating_add_signed(change);
        taken.set(now);
        let _ = PEAK.try_with(|peak| peak.set(peak.get().max(now)));
    });
}

// SAFETY: every call is passed on to the system allocator unchanged; counting does not allocate.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size() as isize);
        // SAFETY: the caller's promise for `layout` is the system allocator's.
        unsafe { System.alloc(layout) }
    }
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count(layout.size() as isize);
        // SAFETY: as above.
        unsafe { System.alloc_zeroed(layout) }
    }
    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        count(-(layout.size() as isize));
        // SAFETY: `pointer` came from the system allocator with this layout.
        unsafe { System.dealloc(pointer, layout) }
    }
    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count(size as isize - layout.size() as isize);
        // SAFETY: as for `dealloc`; `size` is the caller's promise.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// What opening may take besides the file's own size: read buffers and error texts.
const ALLOWANCE: usize = 1 << 20;
/// In-memory form of a header against its bytes: names, nodes of maps.
const GROWTH: usize = 24;

/// Opens `bytes` as a model and reads all that can be read of it.
fn open_all(folder: &Path, name: &str, bytes: &[u8]) -> Result<(), String> {
    let file = folder.join(name);
    std::fs::write(&file, bytes).unwrap();
    let before = TAKEN.get();
    PEAK.set(before);
    let result = Checkpoint::open(folder);
    let peak = PEAK.get() - before;
    assert!(peak <= ALLOWANCE + GROWTH * bytes.len(), "{peak} bytes taken for a file of {}", bytes.len());
    let checkpoint = result.map_err(|e| e.to_string())?;
    for tensor in checkpoint.tensors() {
        assert!(tensor.size_bytes() <= bytes.len(), "{} is larger than its file", tensor.name);
        checkpoint.read_f32(tensor).map_err(|e| e.to_string())?;
    }
    let config = checkpoint.config().map(|_: ModelConfig| ());
    let tokenizer = Tokenizer::open(&checkpoint).map(|t| {
        let ids = t.encode("a b <s>", Default::default());
        ids.map(|ids| t.decode(&ids, true)).ok();
    });
    config.and(tokenizer).map_err(|e| e.to_string())
}

#[derive(Default)]
struct Gguf(Vec<u8>);

impl Gguf {
    fn bytes(&mut self, bytes: &[u8]) -> &mut Self {
        self.0.extend_from_slice(bytes);
        self
    }
    fn u32(&mut self, n: u32) -> &mut Self {
        self.bytes(&n.to_le_bytes())
    }
    fn u64(&mut self, n: u64) -> &mut Self {
        self.bytes(&n.to_le_bytes())
    }
    fn string(&mut self, text: &str) -> &mut Self {
        self.u64(text.len() as u64).bytes(text.as_bytes())
    }
    fn pair_string(&mut self, key: &str, value: &str) -> &mut Self {
        self.string(key).u32(8).string(value)
    }
    fn pair_u32(&mut self, key: &str, value: u32) -> &mut Self {
        self.string(key).u32(4).u32(value)
    }
    fn tensor(&mut self, name: &str, dims: &[u64], ty: u32, offset: u64) -> &mut Self {
        self.string(name).u32(dims.len() as u32);
        dims.iter().for_each(|&d| {
            self.u64(d);
        });
        self.u32(ty).u64(offset)
    }
    fn data(&mut self, bytes: usize) -> Vec<u8> {
        let start = self.0.len().next_multiple_of(32);
        self.0.resize(start + bytes, 1);
        std::mem::take(&mut self.0)
    }
}

/// A small Llama with a SentencePiece tokenizer, complete and valid.
fn valid_gguf() -> Vec<u8> {
    let mut file = Gguf::default();
    file.bytes(b"GGUF").u32(3).u64(3).u64(14);
    file.pair_string("general.architecture", "llama").pair_u32("general.alignment", 32);
    for (key, value) in [
        ("block_count", 1),
        ("embedding_length", 32),
        ("feed_forward_length", 32),
        ("attention.head_count", 2),
        ("attention.head_count_kv", 1),
        ("context_length", 64),
    ] {
        file.pair_u32(&format!("llama.{key}"), value);
    }
    file.string("llama.attention.layer_norm_rms_epsilon").u32(6).bytes(&1e-5f32.to_le_bytes());
    file.pair_string("tokenizer.ggml.model", "llama").pair_u32("tokenizer.ggml.bos_token_id", 1);
    file.string("tokenizer.ggml.tokens").u32(9).u32(8).u64(4);
    for token in ["<unk>", "<s>", "a", "\u{2581}b"] {
        file.string(token);
    }
    file.string("tokenizer.ggml.scores").u32(9).u32(6).u64(4).bytes(&[0; 16]);
    file.string("tokenizer.ggml.token_type").u32(9).u32(5).u64(4);
    [2u32, 3, 1, 1].iter().for_each(|&ty| {
        file.u32(ty);
    });
    file.tensor("token_embd.weight", &[32, 4], 8, 0) // Q8_0: 4 rows of 34 bytes
        .tensor("blk.0.attn_q.weight", &[32, 32], 2, 160) // Q4_0: 32 rows of 18 bytes
        .tensor("output_norm.weight", &[32], 0, 736);
    file.data(736 + 128)
}

fn valid_safetensors() -> Vec<u8> {
    let header = r#"{"a":{"dtype":"F32","shape":[2,3],"data_offsets":[0,24]},"b":{"dtype":"BF16","shape":[4],"data_offsets":[24,32]},"c":{"dtype":"I64","shape":[],"data_offsets":[32,40]}}"#;
    let mut file = (header.len() as u64).to_le_bytes().to_vec();
    file.extend_from_slice(header.as_bytes());
    file.resize(file.len() + 40, 3);
    file
}

#[test]
fn the_files_that_are_broken_below_are_good_before() {
    let dir = tempfile::tempdir().unwrap();
    open_all(dir.path(), "m.gguf", &valid_gguf()).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let error = open_all(dir.path(), "model.safetensors", &valid_safetensors()).unwrap_err();
    assert!(error.contains("config.json"), "only its configuration is missing: {error}");
}

#[test]
fn every_truncation_is_refused() {
    for (name, bytes) in [("m.gguf", valid_gguf()), ("model.safetensors", valid_safetensors())] {
        let dir = tempfile::tempdir().unwrap();
        for length in 0..bytes.len() {
            let error = open_all(dir.path(), name, &bytes[..length]).expect_err(&format!("{name} of {length} bytes"));
            assert!(error.contains(name), "{length}: {error}");
        }
    }
}

#[test]
fn hostile_headers_are_refused_by_what_is_wrong_with_them() {
    let dir = tempfile::tempdir().unwrap();
    let head = |tensors: u64, pairs: u64| {
        let mut file = Gguf::default();
        file.bytes(b"GGUF").u32(3).u64(tensors).u64(pairs);
        file
    };
    let one = |dims: &[u64], ty: u32, offset: u64, data: usize| head(1, 0).tensor("w", dims, ty, offset).data(data);
    let aligned = |alignment: u32| {
        let mut file = head(1, 1);
        file.pair_u32("general.alignment", alignment).tensor("w", &[8], 0, 0);
        file.data(64)
    };
    let array = |ty: u32, count: u64| head(0, 1).string("k").u32(9).u32(ty).u64(count).data(64);
    let cases: Vec<(&str, Vec<u8>, &str)> = vec![
        ("magic", b"GGML\x03\0\0\0".to_vec(), "GGUF"),
        ("version 1", Gguf::default().bytes(b"GGUF").u32(1).data(64), "version"),
        ("tensors", head(u64::MAX, 0).data(64), "tensors"),
        ("pairs", head(0, u64::MAX).data(64), "pairs"),
        ("string", head(0, 1).u64(u64::MAX).data(64), "string"),
        ("key twice", head(0, 2).pair_u32("k", 1).pair_u32("k", 2).data(64), "twice"),
        ("key empty", head(0, 1).pair_u32("", 1).data(64), "empty"),
        ("not UTF-8", head(0, 1).u64(1).bytes(b"\xff").u32(4).u32(1).data(64), "UTF-8"),
        ("value type", head(0, 1).string("k").u32(13).data(64), "13"),
        ("bool", head(0, 1).string("k").u32(7).bytes(&[2]).data(64), "bool"),
        ("array", array(10, u64::MAX / 8), "array items"),
        ("strings", array(8, 1 << 24), "array items"),
        ("nested", array(9, 1), "arrays of arrays"),
        ("alignment 0", aligned(0), "alignment"),
        ("alignment 7", aligned(7), "alignment"),
        ("alignment 48", aligned(48), "alignment"),
        ("alignment huge", aligned(1 << 31), "alignment"),
        ("no dims", one(&[], 0, 0, 64), "dimensions"),
        ("5 dims", one(&[1, 1, 1, 1, 1], 0, 0, 64), "dimensions"),
        ("dim 0", one(&[8, 0], 0, 0, 64), "empty"),
        ("overflow", one(&[1 << 33, 1 << 33], 0, 0, 64), "overflows"),
        ("size overflow", one(&[1 << 62, 2], 0, 0, 64), "overflows"),
        ("too long", one(&[1 << 20], 0, 0, 64), "exceed"),
        ("part of a block", one(&[33], 8, 0, 64), "blocks"),
        ("offset unaligned", one(&[8], 0, 8, 64), "multiple"),
        ("offset outside", one(&[8], 0, 1 << 40, 64), "exceed"),
        ("offset overflow", one(&[8], 0, u64::MAX - 31, 64), "exceed"),
        ("overlap", head(2, 0).tensor("a", &[16], 0, 0).tensor("b", &[8], 0, 32).data(96), "overlap"),
        ("same name", head(2, 0).tensor("a", &[8], 0, 0).tensor("a", &[8], 0, 32).data(96), "twice"),
        (
            "mapped twice",
            head(2, 0).tensor("output.weight", &[8], 0, 0).tensor("lm_head.weight", &[8], 0, 32).data(96),
            "twice",
        ),
        ("long name", head(1, 0).tensor(&"n".repeat(64), &[8], 0, 0).data(64), "64 bytes"),
        (
            "vocabulary",
            {
                let mut file = head(1, 1);
                file.string("tokenizer.ggml.tokens").u32(9).u32(8).u64(3).string("a").string("b").string("c");
                file.tensor("token_embd.weight", &[8, 2], 0, 0);
                file.data(64)
            },
            "vocabulary of 3",
        ),
    ];
    for (name, bytes, want) in cases {
        let error = open_all(dir.path(), "m.gguf", &bytes).expect_err(name);
        assert!(error.contains(want) && error.contains("m.gguf"), "{name}: {error}");
    }
    // A type nobody knows is passed over; it is refused when it is asked for.
    std::fs::write(dir.path().join("m.gguf"), one(&[8], 99, 0, 64)).unwrap();
    let error = Checkpoint::open(dir.path()).unwrap().tensor("w").unwrap_err().to_string();
    assert!(error.contains("99"), "{error}");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 3000, ..ProptestConfig::default() })]

    #[test]
    fn flipped_bytes_never_panic_nor_take_more_memory_than_the_file_is_worth(
        gguf in any::<bool>(),
        flips in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        cut in proptest::option::of(any::<prop::sample::Index>()),
    ) {
        let (name, mut bytes) = if gguf { ("m.gguf", valid_gguf()) } else { ("model.safetensors", valid_safetensors()) };
        for (at, value) in flips {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        if let Some(cut) = cut {
            bytes.truncate(cut.index(bytes.len()));
        }
        let dir = tempfile::tempdir().unwrap();
        let _ = open_all(dir.path(), name, &bytes);
    }

    #[test]
    fn any_json_header_is_answered(text in "[\\[\\]{}\",:0-9a-zF_]{0,80}") {
        let dir = tempfile::tempdir().unwrap();
        let mut bytes = (text.len() as u64).to_le_bytes().to_vec();
        bytes.extend_from_slice(text.as_bytes());
        let _ = open_all(dir.path(), "model.safetensors", &bytes);
    }
}
