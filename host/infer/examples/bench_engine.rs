//! Tokens a second, time to the first token and time between tokens of a model file at 1, 4 and 8 streams.
//!
//! `cargo run --release -p stockade-infer --example bench_engine -- MODEL [--tokens 128] [--threads N] [--json]`

use std::error::Error;
use std::path::PathBuf;
use std::time::{Duration, Instant};
use stockade_core::chat::{Message, Role};
use stockade_core::event::Event;
use stockade_core::id::{ModelId, TenantId};
use stockade_core::infer::{ChatPrompt, GenerateRequest, Inference, Prompt, Sampling};
use stockade_infer::{Engine, ModelOptions, Settings};

type Failure = Box<dyn Error + Send + Sync>;

/// What one stream saw.
struct Seen {
    first: Duration,
    gaps: Vec<Duration>,
    tokens: u32,
}

fn main() -> Result<(), Failure> {
    let (mut path, mut tokens, mut threads, mut json) = (None, 128u32, None, false);
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        let mut value = || args.next().ok_or(format!("{arg} needs a value"));
        match arg.as_str() {
            "--tokens" => tokens = value()?.parse()?,
            "--threads" => threads = Some(value()?.parse()?),
            "--json" => json = true,
            _ => path = Some(PathBuf::from(arg)),
        }
    }
    let path = path.ok_or("a model folder or .gguf file is needed")?;
    let engine = Engine::new(Settings { threads, ..Settings::default() });
    let model = ModelId::new("bench")?;
    let begin = Instant::now();
    engine.load_model(model.clone(), &path, &ModelOptions::default(), &|_, _| {})?;
    let load = begin.elapsed();
    if !json {
        println!("loaded in {:.2} s", load.as_secs_f64());
        println!("streams   tok/s   TTFT p50/max ms   between tokens p50/p99 ms");
    }
    for streams in [1usize, 4, 8] {
        let begin = Instant::now();
        let readers: Vec<_> = (0..streams)
            .map(|i| {
                let stream = engine.generate(request(&model, i, streams, tokens))?;
                Ok(std::thread::spawn(move || read(stream, begin)))
            })
            .collect::<Result<_, Failure>>()?;
        let mut seen = Vec::new();
        for reader in readers {
            seen.push(reader.join().map_err(|_| "a reader panicked")??);
        }
        let seconds = begin.elapsed().as_secs_f64();
        let total: u32 = seen.iter().map(|s| s.tokens).sum();
        let mut firsts: Vec<Duration> = seen.iter().map(|s| s.first).collect();
        let mut gaps: Vec<Duration> = seen.into_iter().flat_map(|s| s.gaps).collect();
        let rate = f64::from(total) / seconds;
        let [p50, max] = [0.5, 1.0].map(|q| quantile(&mut firsts, q));
        let [gap50, gap99] = [0.5, 0.99].map(|q| quantile(&mut gaps, q));
        if json {
            println!(
                "{{\"streams\":{streams},\"tokens_per_second\":{rate:.1},\"ttft_p50_ms\":{p50:.1},\"ttft_max_ms\":{max:.1},\
                 \"gap_p50_ms\":{gap50:.2},\"gap_p99_ms\":{gap99:.2}}}"
            );
        } else {
            println!("{streams:7} {rate:7.1} {p50:9.1} / {max:<7.1} {gap50:9.2} / {gap99:<7.2}");
        }
    }
    Ok(())
}

/// A prompt of some hundred tokens that no other stream shares.
fn request(model: &ModelId, stream: usize, streams: usize, tokens: u32) -> GenerateRequest {
    let story = format!("Story {stream} of {streams}. {}", "The quick brown fox jumps over the lazy dog. ".repeat(20));
    let messages = vec![Message::text(Role::User, format!("{story} Go on with it at length."))];
    let sampling =
        Sampling { max_tokens: Some(tokens), seed: Some(stream as u64), ignore_eos: true, ..Sampling::default() };
    GenerateRequest {
        model: model.clone(),
        tenant: TenantId::default_tenant(),
        prompt: Prompt::Chat(ChatPrompt { messages, ..ChatPrompt::default() }),
        sampling,
        constraint: None,
    }
}

fn read(mut stream: stockade_core::infer::EventStream, begin: Instant) -> Result<Seen, Failure> {
    let mut seen = Seen { first: Duration::ZERO, gaps: Vec::new(), tokens: 0 };
    let mut last: Option<Instant> = None;
    while let Some(event) = stream.blocking_recv() {
        let now = Instant::now();
        if let Event::End(end) = event? {
            seen.tokens = end.usage.completion_tokens;
            break;
        }
        match last.replace(now) {
            None => seen.first = now - begin,
            Some(last) => seen.gaps.push(now - last),
        }
    }
    Ok(seen)
}

/// In milliseconds.
fn quantile(times: &mut [Duration], q: f64) -> f64 {
    times.sort_unstable();
    let at = ((times.len().saturating_sub(1)) as f64 * q).round() as usize;
    times.get(at).map_or(0.0, |t| t.as_secs_f64() * 1e3)
}
