//! One served sentence embedder: a thread that owns the network, a bounded queue before it, texts of many requests
//! batched by length.
//!
//! Invariant: a request whose caller is gone costs nothing more; an error ends the requests of its batch only.

use crate::queue::{Queue, Ticket};
use crate::settings::Settings;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;
use stockade_core::id::TenantId;
use stockade_core::infer::{InferError, ModelInfo, TokenizeOptions};
use stockade_model::ModelError;
use tokio::sync::oneshot;

/// A network that turns token sequences into vectors.
pub trait TextEmbedder: Send + 'static {
    /// One L2-normalised vector for each text, in order.
    fn embed(&self, texts: &[Vec<u32>]) -> Result<Vec<Vec<f32>>, ModelError>;
}

impl TextEmbedder for stockade_model::bert::BertEmbedder {
    fn embed(&self, texts: &[Vec<u32>]) -> Result<Vec<Vec<f32>>, ModelError> {
        stockade_model::bert::BertEmbedder::embed(self, texts)
    }
}

/// What an embedder is made of.
pub struct EmbedderParts {
    pub network: Box<dyn TextEmbedder>,
    pub text: Arc<dyn crate::text::ModelText>,
    /// [`ModelInfo::context_tokens`] is the longest text, control tokens included; longer ones are cut.
    pub info: ModelInfo,
}

pub(crate) struct Embedder {
    info: ModelInfo,
    text: Arc<dyn crate::text::ModelText>,
    queue: Arc<Queue>,
    /// Absent only while dropping.
    mailbox: Option<mpsc::Sender<Request>>,
    thread: Option<JoinHandle<()>>,
}

type Vectors = Result<Vec<Vec<f32>>, InferError>;

struct Request {
    texts: Vec<Vec<u32>>,
    done: oneshot::Sender<Vectors>,
    ticket: Ticket,
}

impl Embedder {
    pub fn start(parts: EmbedderParts, settings: &Settings) -> Result<Self, InferError> {
        let EmbedderParts { network, text, info } = parts;
        let (mailbox, mail) = mpsc::channel();
        let batch_tokens = settings.embed_batch_tokens;
        let thread = std::thread::Builder::new()
            .name(format!("embed-{}", info.id).chars().take(15).collect())
            .spawn(move || serve(&*network, &mail, batch_tokens))
            .map_err(|e| InferError::Backend { stage: "starting threads", source: Box::new(e) })?;
        let queue = Queue::new(settings.max_waiting, settings.max_waiting_per_tenant);
        Ok(Self { info, text, queue, mailbox: Some(mailbox), thread: Some(thread) })
    }

    pub fn info(&self) -> &ModelInfo {
        &self.info
    }
    pub fn text(&self) -> &dyn crate::text::ModelText {
        &*self.text
    }

    /// Token ids of a text, cut to the longest the network takes; a closing control token stays at the end.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>, InferError> {
        let mut tokens = self.text.encode(text, TokenizeOptions { add_special: true, parse_special: false })?;
        let limit = self.info.context_tokens as usize;
        if tokens.len() > limit
            && let Some(last) = tokens.last().copied()
        {
            tokens.truncate(limit.saturating_sub(1));
            tokens.push(last);
        }
        Ok(tokens)
    }

    pub fn embed(&self, tenant: &TenantId, texts: Vec<Vec<u32>>) -> Result<oneshot::Receiver<Vectors>, InferError> {
        let limit = self.info.context_tokens;
        for text in &texts {
            if text.is_empty() {
                return Err(InferError::Invalid { field: "input", reason: "an input is empty".into() });
            }
            if text.len() > limit as usize {
                let prompt = u32::try_from(text.len()).unwrap_or(u32::MAX);
                return Err(InferError::ContextOverflow { prompt, requested: 0, limit });
            }
        }
        let ticket = self.queue.enter(tenant)?;
        let (done, result) = oneshot::channel();
        let gone = || InferError::Backend { stage: "queueing", source: "the embedder thread has ended".into() };
        let mailbox = self.mailbox.as_ref().ok_or_else(gone)?;
        mailbox.send(Request { texts, done, ticket }).map_err(|_| gone())?;
        Ok(result)
    }
}

impl Drop for Embedder {
    fn drop(&mut self) {
        self.mailbox = None;
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!(model = %self.info.id, "the embedder thread had panicked");
        }
    }
}

fn serve(network: &dyn TextEmbedder, mail: &mpsc::Receiver<Request>, batch_tokens: usize) {
    while let Ok(first) = mail.recv() {
        // Whatever waits by now shares the batches.
        let waiting: Vec<Request> =
            std::iter::once(first).chain(mail.try_iter()).filter(|request| !request.done.is_closed()).collect();
        run(network, waiting, batch_tokens);
    }
}

/// Runs the texts of all requests, shortest first, in batches of about `batch_tokens` padded rows.
fn run(network: &dyn TextEmbedder, requests: Vec<Request>, batch_tokens: usize) {
    let mut order: Vec<(usize, usize)> = Vec::new();
    let mut results: Vec<Result<Vec<Vec<f32>>, String>> = Vec::new();
    for (request, of) in requests.iter().enumerate() {
        order.extend((0..of.texts.len()).map(|text| (request, text)));
        results.push(Ok(vec![Vec::new(); of.texts.len()]));
    }
    let length = |&(request, text): &(usize, usize)| requests[request].texts[text].len();
    order.sort_by_key(length);
    let mut rest = &order[..];
    while !rest.is_empty() {
        let fits = |n: usize| n == 1 || n * length(&rest[n - 1]) <= batch_tokens;
        let count = (1..=rest.len()).take_while(|&n| fits(n)).last().unwrap_or(1);
        let (batch, after) = rest.split_at(count);
        rest = after;
        // Only what somebody still waits for and that has not failed.
        let batch: Vec<_> =
            batch.iter().filter(|(r, _)| !requests[*r].done.is_closed() && results[*r].is_ok()).collect();
        let texts: Vec<Vec<u32>> = batch.iter().map(|(r, t)| requests[*r].texts[*t].clone()).collect();
        if texts.is_empty() {
            continue;
        }
        let vectors = catch_unwind(AssertUnwindSafe(|| network.embed(&texts)))
            .map_err(|_| "the network panicked".to_owned())
            .and_then(|result| result.map_err(|e| e.to_string()))
            .and_then(|v| if v.len() == texts.len() { Ok(v) } else { Err("vectors are missing".into()) });
        match vectors {
            Ok(vectors) => {
                for ((r, t), vector) in batch.into_iter().zip(vectors) {
                    if let Ok(own) = &mut results[*r] {
                        own[*t] = vector;
                    }
                }
            }
            Err(error) => {
                tracing::error!(error, "an embedding batch failed");
                batch.into_iter().for_each(|(r, _)| results[*r] = Err(error.clone()));
            }
        }
    }
    for (request, result) in requests.into_iter().zip(results) {
        let result = result.map_err(|e| InferError::Backend { stage: "embedding", source: e.into() });
        drop(request.ticket);
        request.done.send(result).ok();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use parking_lot::Mutex;

    /// Answers a text's first token; fails a batch that holds a 13, panics at a 14.
    #[derive(Default)]
    struct Echo(Mutex<Vec<Vec<usize>>>);

    impl TextEmbedder for Echo {
        fn embed(&self, texts: &[Vec<u32>]) -> Result<Vec<Vec<f32>>, ModelError> {
            self.0.lock().push(texts.iter().map(Vec::len).collect());
            assert!(texts.iter().all(|text| text[0] != 14), "asked to panic");
            if texts.iter().any(|text| text[0] == 13) {
                return Err(ModelError::Input("13".into()));
            }
            Ok(texts.iter().map(|text| vec![text[0] as f32]).collect())
        }
    }

    fn requests(texts: &[&[(u32, usize)]]) -> (Vec<Request>, Vec<oneshot::Receiver<Vectors>>) {
        let queue = Queue::new(100, 100);
        let tenant = TenantId::new("a").unwrap();
        let one = |texts: &&[(u32, usize)]| {
            let (done, result) = oneshot::channel();
            let texts = texts.iter().map(|&(token, length)| vec![token; length]).collect();
            (Request { texts, done, ticket: queue.enter(&tenant).unwrap() }, result)
        };
        texts.iter().map(one).unzip()
    }

    #[test]
    fn texts_are_batched_by_length_over_requests_and_come_back_in_order() {
        let network = Echo::default();
        let (requests, results) = requests(&[&[(1, 9), (2, 3)], &[(3, 4), (4, 30), (5, 3)]]);
        run(&network, requests, 12);
        let vectors: Vec<_> = results.into_iter().map(|r| r.blocking_recv().unwrap().unwrap()).collect();
        assert_eq!(vectors, [vec![vec![1.0], vec![2.0]], vec![vec![3.0], vec![4.0], vec![5.0]]]);
        assert_eq!(*network.0.lock(), [vec![3, 3, 4], vec![9], vec![30]]);
    }

    #[test]
    fn an_error_ends_the_requests_of_its_batch_and_a_request_without_a_caller_is_skipped() {
        for bad in [13, 14] {
            let network = Echo::default();
            let (requests, mut results) = requests(&[&[(1, 2)], &[(bad, 9), (2, 20)], &[(3, 40)], &[(4, 50)]]);
            drop(results.pop());
            run(&network, requests, 9);
            let mut outcomes = results.into_iter().map(|r| r.blocking_recv().unwrap());
            assert_eq!(outcomes.next().unwrap().unwrap(), [[1.0]]);
            assert!(matches!(outcomes.next().unwrap(), Err(InferError::Backend { stage: "embedding", .. })));
            assert_eq!(outcomes.next().unwrap().unwrap(), [[3.0]]);
            assert_eq!(*network.0.lock(), [vec![2], vec![9], vec![40]], "the rest of the failed one never ran");
        }
    }
}
