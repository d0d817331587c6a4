//! Texts of mixed lengths through a network in batches of texts that are alike, on threads of the network's own.

use crate::ModelError;

/// Threads that the products of an encoder run on; the calling thread waits.
pub(crate) struct Threads(rayon::ThreadPool);

impl Threads {
    /// At least one.
    pub(crate) fn start(threads: usize, name: &'static str) -> Result<Self, ModelError> {
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(threads.max(1))
            .thread_name(move |i| format!("{name}-{i}"))
            .build()
            .map_err(|e| ModelError::Tensors { stage: "starting its threads", source: candle_core::Error::wrap(e) })?;
        Ok(Self(pool))
    }

    pub(crate) fn install<R: Send>(&self, work: impl FnOnce() -> R + Send) -> R {
        self.0.install(work)
    }
}

/// Refuses texts that are empty or too long and ids without a row in the embedding.
pub(crate) fn check_texts(texts: &[Vec<u32>], max_tokens: usize, vocab: usize) -> Result<(), ModelError> {
    for text in texts {
        if text.is_empty() || text.len() > max_tokens {
            return Err(ModelError::Input(format!("a text of {} tokens is not in 1..={max_tokens}", text.len())));
        }
        if let Some(id) = text.iter().find(|&&id| id as usize >= vocab) {
            return Err(ModelError::Input(format!("token {id} is not below the vocabulary of {vocab}")));
        }
    }
    Ok(())
}

/// One row for each text, in order. Texts go through `run` shortest first, so that little is padded, as many at once as
/// `fits` admits given their number and the longest one's tokens, and at least one.
pub(crate) fn by_length(
    texts: &[Vec<u32>],
    fits: impl Fn(usize, usize) -> bool,
    mut run: impl FnMut(&[&[u32]]) -> candle_core::Result<Vec<Vec<f32>>>,
) -> Result<Vec<Vec<f32>>, ModelError> {
    let mut order: Vec<usize> = (0..texts.len()).collect();
    order.sort_by_key(|&i| texts[i].len());
    let mut rows = vec![Vec::new(); texts.len()];
    let mut rest = &order[..];
    while !rest.is_empty() {
        let n = (1..=rest.len()).take_while(|&n| fits(n, texts[rest[n - 1]].len())).last().unwrap_or(1);
        let batch: Vec<&[u32]> = rest[..n].iter().map(|&i| &texts[i][..]).collect();
        let got = run(&batch).map_err(|source| ModelError::Tensors { stage: "its forward pass", source })?;
        rest[..n].iter().zip(got).for_each(|(&i, row)| rows[i] = row);
        rest = &rest[n..];
    }
    Ok(rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_run_shortest_first_in_batches_that_fit_and_come_back_in_order() {
        let texts: Vec<Vec<u32>> = [5, 1, 3, 9, 3].iter().map(|&n| vec![n; n as usize]).collect();
        let mut batches = Vec::new();
        let rows = by_length(
            &texts,
            |n, longest| n * longest <= 6,
            |batch| {
                batches.push(batch.iter().map(|text| text.len()).collect::<Vec<_>>());
                Ok(batch.iter().map(|text| vec![text[0] as f32]).collect())
            },
        );
        assert_eq!(rows.unwrap(), [[5.0], [1.0], [3.0], [9.0], [3.0]]);
        assert_eq!(batches, [vec![1, 3], vec![3], vec![5], vec![9]]);
    }
}
