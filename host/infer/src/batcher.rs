//! A network that takes whole texts, served: a thread that owns it, a bounded queue before it, texts of many requests
//! batched by length.
//!
//! Invariant: a request whose caller is gone costs nothing more; an error ends the requests of its batch only.

use crate::queue::{Queue, Ticket};
use crate::settings::Settings;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;
use stockade_core::id::{ModelId, TenantId};
use stockade_core::infer::InferError;
use stockade_model::ModelError;
use tokio::sync::oneshot;

/// A network that turns token sequences into rows of numbers: an embedding, or a score for each label.
pub trait TextNetwork: Send + 'static {
    /// One row for each text, in order.
    fn rows(&self, texts: &[Vec<u32>]) -> Result<Vec<Vec<f32>>, ModelError>;
}

impl TextNetwork for stockade_model::bert::BertEmbedder {
    fn rows(&self, texts: &[Vec<u32>]) -> Result<Vec<Vec<f32>>, ModelError> {
        self.embed(texts)
    }
}

impl TextNetwork for stockade_model::deberta::DebertaClassifier {
    fn rows(&self, texts: &[Vec<u32>]) -> Result<Vec<Vec<f32>>, ModelError> {
        self.scores(texts)
    }
}

pub(crate) struct Batcher {
    id: ModelId,
    /// Most tokens of a text.
    limit: u32,
    queue: Arc<Queue>,
    /// Absent only while dropping.
    mailbox: Option<mpsc::Sender<Request>>,
    thread: Option<JoinHandle<()>>,
}

pub(crate) type Rows = Result<Vec<Vec<f32>>, InferError>;

struct Request {
    texts: Vec<Vec<u32>>,
    done: oneshot::Sender<Rows>,
    ticket: Ticket,
}

impl Batcher {
    /// Serves `network` for model `id`, which takes texts of up to `limit` tokens. `stage` names its work in errors.
    pub fn start(
        network: Box<dyn TextNetwork>,
        id: &ModelId,
        limit: u32,
        stage: &'static str,
        settings: &Settings,
    ) -> Result<Self, InferError> {
        let (mailbox, mail) = mpsc::channel();
        let batch_tokens = settings.embed_batch_tokens;
        let thread = std::thread::Builder::new()
            .name(format!("{stage}-{id}").chars().take(15).collect())
            .spawn(move || serve(&*network, &mail, batch_tokens, stage))
            .map_err(|e| InferError::Backend { stage: "starting threads", source: Box::new(e) })?;
        let queue = Queue::new(settings.max_waiting, settings.max_waiting_per_tenant);
        Ok(Self { id: id.clone(), limit, queue, mailbox: Some(mailbox), thread: Some(thread) })
    }

    /// Queues texts; their rows come back in order.
    pub fn submit(&self, tenant: &TenantId, texts: Vec<Vec<u32>>) -> Result<oneshot::Receiver<Rows>, InferError> {
        for text in &texts {
            if text.is_empty() {
                return Err(InferError::Invalid { field: "input", reason: "an input is empty".into() });
            }
            if text.len() > self.limit as usize {
                let prompt = u32::try_from(text.len()).unwrap_or(u32::MAX);
                return Err(InferError::ContextOverflow { prompt, requested: 0, limit: self.limit });
            }
        }
        let ticket = self.queue.enter(tenant)?;
        let (done, result) = oneshot::channel();
        let gone = || InferError::Backend { stage: "queueing", source: "the model's thread has ended".into() };
        let mailbox = self.mailbox.as_ref().ok_or_else(gone)?;
        mailbox.send(Request { texts, done, ticket }).map_err(|_| gone())?;
        Ok(result)
    }
}

impl Drop for Batcher {
    fn drop(&mut self) {
        self.mailbox = None;
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!(model = %self.id, "the model's thread had panicked");
        }
    }
}

fn serve(network: &dyn TextNetwork, mail: &mpsc::Receiver<Request>, batch_tokens: usize, stage: &'static str) {
    while let Ok(first) = mail.recv() {
        // Whatever waits by now shares the batches.
        let waiting: Vec<Request> =
            std::iter::once(first).chain(mail.try_iter()).filter(|request| !request.done.is_closed()).collect();
        run(network, waiting, batch_tokens, stage);
    }
}

/// Runs the texts of all requests, shortest first, in batches of about `batch_tokens` padded rows.
fn run(network: &dyn TextNetwork, requests: Vec<Request>, batch_tokens: usize, stage: &'static str) {
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
        let rows = catch_unwind(AssertUnwindSafe(|| network.rows(&texts)))
            .map_err(|_| "the network panicked".to_owned())
            .and_then(|result| result.map_err(|e| e.to_string()))
            .and_then(|rows| if rows.len() == texts.len() { Ok(rows) } else { Err("rows are missing".into()) });
        match rows {
            Ok(rows) => {
                for ((r, t), row) in batch.into_iter().zip(rows) {
                    if let Ok(own) = &mut results[*r] {
                        own[*t] = row;
                    }
                }
            }
            Err(error) => {
                tracing::error!(error, stage, "a batch failed");
                batch.into_iter().for_each(|(r, _)| results[*r] = Err(error.clone()));
            }
        }
    }
    for (request, result) in requests.into_iter().zip(results) {
        let result = result.map_err(|e| InferError::Backend { stage, source: e.into() });
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

    impl TextNetwork for Echo {
        fn rows(&self, texts: &[Vec<u32>]) -> Result<Vec<Vec<f32>>, ModelError> {
            self.0.lock().push(texts.iter().map(Vec::len).collect());
            assert!(texts.iter().all(|text| text[0] != 14), "asked to panic");
            if texts.iter().any(|text| text[0] == 13) {
                return Err(ModelError::Input("13".into()));
            }
            Ok(texts.iter().map(|text| vec![text[0] as f32]).collect())
        }
    }

    fn requests(texts: &[&[(u32, usize)]]) -> (Vec<Request>, Vec<oneshot::Receiver<Rows>>) {
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
        run(&network, requests, 12, "embedding");
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
            run(&network, requests, 9, "embedding");
            let mut outcomes = results.into_iter().map(|r| r.blocking_recv().unwrap());
            assert_eq!(outcomes.next().unwrap().unwrap(), [[1.0]]);
            assert!(matches!(outcomes.next().unwrap(), Err(InferError::Backend { stage: "embedding", .. })));
            assert_eq!(outcomes.next().unwrap().unwrap(), [[3.0]]);
            assert_eq!(*network.0.lock(), [vec![2], vec![9], vec![40]], "the rest of the failed one never ran");
        }
    }
}
