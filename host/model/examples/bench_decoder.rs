//! Tokens per second of a decoder and where the time goes.
//!
//! ```text
//! cargo run --release -p stockade-model --example bench_decoder -- MODEL.gguf [--threads 1,2] [--prompt 256] [--decode 64] [--repeat 3] [--adapter FOLDER] [--json]
//! cargo run --release -p stockade-model --example bench_decoder -- --random 1b|135m Q4_0|Q4_1|Q8_0|Q4_K_M [--file OUT.gguf]
//! ```
//! `--random` writes a model of that shape with random weights, which other engines can load as well.

#[path = "bench_decoder/random.rs"]
mod random;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use stockade_kernels::{Pool, isa_name};
use stockade_model::adapter::AdapterPlan;
use stockade_model::llama::{self, LlamaDecoder, LoadOptions, Op};
use stockade_model::{Adapter, Checkpoint, Decoder, LogitRows, PAGE_TOKENS, Segment};

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

struct Settings {
    model: PathBuf,
    threads: Vec<usize>,
    prompt: usize,
    decode: usize,
    repeat: usize,
    /// A PEFT folder whose adapter all rows use.
    adapter: Option<PathBuf>,
    json: bool,
}

fn main() -> Result<()> {
    let settings = settings()?;
    let checkpoint = Checkpoint::open(&settings.model)?;
    let config = checkpoint.config()?;
    for &threads in &settings.threads {
        let start = Instant::now();
        let pool = Arc::new(Pool::new(threads));
        let mut decoder = llama::load(&checkpoint, &config, pool, &LoadOptions::default(), &|_, _| ())?;
        let load = start.elapsed();
        decoder.allocate_pages((settings.prompt + settings.decode).div_ceil(PAGE_TOKENS))?;
        let base = decoder.base();
        let open = |folder: &PathBuf| AdapterPlan::new(folder, &base)?.load(&|_, _| ());
        let adapter = settings.adapter.as_ref().map(open).transpose()?;
        let mut runs =
            (0..settings.repeat).map(|_| run(&mut decoder, adapter.as_ref(), &settings)).collect::<Result<Vec<_>>>()?;
        let prefill = median(&mut runs, |run| run.prefill);
        let prefill_rate = settings.prompt as f64 / prefill.prefill.as_secs_f64();
        let prefill_shares = shares(&prefill.prefill_ops);
        let decode = median(&mut runs, |run| run.decode);
        let decode_rate = settings.decode as f64 / decode.decode.as_secs_f64();
        let decode_shares = shares(&decode.decode_ops);
        let weights = decoder.spec().weight_bytes;
        if settings.json {
            println!(
                r#"{{"model":{:?},"isa":"{}","threads":{threads},"load_s":{:.2},"weight_bytes":{weights},"prompt":{},"prefill_tok_s":{prefill_rate:.2},"decode_tok_s":{decode_rate:.2}}}"#,
                settings.model.file_name().unwrap_or_default(),
                isa_name(),
                load.as_secs_f64(),
                settings.prompt,
            );
            continue;
        }
        let mib = weights as f64 / 1_048_576.0;
        println!("{} threads, {}: {mib:.1} MiB of weights loaded in {:.2} s", threads, isa_name(), load.as_secs_f64());
        println!("  prefill {:>4} tokens  {prefill_rate:8.1} tok/s   {prefill_shares}", settings.prompt);
        println!(
            "  decode  {:>4} tokens  {decode_rate:8.1} tok/s   {decode_shares}   ({:.1} GB/s of weights)",
            settings.decode,
            decode_rate * weights as f64 / 1e9
        );
    }
    Ok(())
}

struct Run {
    prefill: Duration,
    prefill_ops: Vec<(Op, Duration)>,
    decode: Duration,
    decode_ops: Vec<(Op, Duration)>,
}

fn run(decoder: &mut LlamaDecoder, adapter: Option<&Adapter>, settings: &Settings) -> Result<Run> {
    let vocab = decoder.spec().vocab as u32;
    let total = settings.prompt + settings.decode;
    let pages: Vec<u32> = (0..total.div_ceil(PAGE_TOKENS) as u32).collect();
    let tokens: Vec<u32> = (0..settings.prompt as u32).map(|i| (i * 7919 + 13) % vocab).collect();
    let mut logits = Vec::new();
    decoder.measure(true);
    let start = Instant::now();
    let prompt = Segment { tokens: &tokens, start: 0, pages: &pages, logits: LogitRows::Last, adapter };
    decoder.step(&[prompt], &mut logits, &|| false)?;
    let prefill = start.elapsed();
    let prefill_ops = decoder.measured().collect();
    decoder.measure(true);
    let start = Instant::now();
    for position in settings.prompt..total {
        // What is chosen does not matter, but it must not be guessable.
        let token = [logits.iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1)).map_or(0, |(i, _)| i as u32)];
        let segment = Segment { tokens: &token, start: position, pages: &pages, logits: LogitRows::Last, adapter };
        decoder.step(&[segment], &mut logits, &|| false)?;
    }
    Ok(Run { prefill, prefill_ops, decode: start.elapsed(), decode_ops: decoder.measured().collect() })
}

fn median(runs: &mut [Run], key: impl Fn(&Run) -> Duration) -> &Run {
    runs.sort_by_key(&key);
    &runs[runs.len() / 2]
}

fn shares(ops: &[(Op, Duration)]) -> String {
    let all: Duration = ops.iter().map(|(_, spent)| *spent).sum();
    let mut ops = ops.to_vec();
    ops.sort_by_key(|(_, spent)| std::cmp::Reverse(*spent));
    let share = |spent: Duration| 100.0 * spent.as_secs_f64() / all.as_secs_f64();
    let named = ops.iter().filter(|(_, spent)| share(*spent) >= 0.5);
    named.map(|(op, spent)| format!("{op:?} {:.0} %", share(*spent))).collect::<Vec<_>>().join(", ")
}

fn settings() -> Result<Settings> {
    let mut settings = Settings {
        model: PathBuf::new(),
        threads: vec![1, 2],
        prompt: 256,
        decode: 64,
        repeat: 3,
        adapter: None,
        json: false,
    };
    let (mut random, mut file) = (None, None);
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        let mut value = || arguments.next().ok_or_else(|| format!("{argument} wants a value"));
        match &argument[..] {
            "--threads" => {
                settings.threads = value()?.split(',').map(str::parse).collect::<std::result::Result<_, _>>()?
            }
            "--prompt" => settings.prompt = value()?.parse()?,
            "--decode" => settings.decode = value()?.parse()?,
            "--repeat" => settings.repeat = value()?.parse()?,
            "--adapter" => settings.adapter = Some(PathBuf::from(value()?)),
            "--json" => settings.json = true,
            "--file" => file = Some(PathBuf::from(value()?)),
            "--random" => random = Some((value()?, value()?)),
            "--help" | "-h" => return Err("see the head of the source file".into()),
            _ => settings.model = PathBuf::from(argument),
        }
    }
    if let Some((shape, kind)) = random {
        let file = file.unwrap_or_else(|| std::env::temp_dir().join(format!("stockade-random-{shape}-{kind}.gguf")));
        if !file.exists() {
            random::write(&file, &shape, &kind)?;
        }
        settings.model = file;
    }
    if settings.model.as_os_str().is_empty() || settings.repeat == 0 || settings.prompt == 0 || settings.decode == 0 {
        return Err("a model file or --random SHAPE TYPE is needed, and counts above zero".into());
    }
    Ok(settings)
}
