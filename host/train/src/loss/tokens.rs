//! Cross entropy over label tokens, the loss of pretraining and supervised finetuning.

/// What one pass adds to a step's loss.
#[derive(Debug, Clone, PartialEq)]
pub struct TokenLoss {
    /// Nats, already divided by the step's label tokens, so that the passes of a step add up to its loss.
    pub loss: f64,
    /// Derivative by each log-probability.
    pub d_log_probs: Vec<f32>,
    /// Derivative by each log-sum-exp; `None` without z-loss.
    pub d_log_sum_exp: Option<Vec<f32>>,
}

/// `(sum of -log p + z * log_sum_exp^2) / label_tokens` over a pass.
///
/// `label_tokens` counts those of the whole step, all micro-batches together: dividing each by its own number would
/// give a token in a short micro-batch more weight (transformers#34191). z-loss holds the normaliser of the softmax
/// near 1 (PaLM, arXiv:2204.02311, with z = 1e-4); 0 leaves it out.
///
/// # Shapes
/// `log_probs` and `log_sum_exp`: one for each label token of the pass; the latter may be empty without z-loss.
pub fn cross_entropy(log_probs: &[f32], log_sum_exp: &[f32], z: f64, label_tokens: u64) -> TokenLoss {
    let share = 1.0 / label_tokens.max(1) as f64;
    let mut loss = -log_probs.iter().map(|&log_prob| f64::from(log_prob)).sum::<f64>();
    let d_log_sum_exp = (z > 0.0).then(|| {
        loss += z * log_sum_exp.iter().map(|&x| f64::from(x) * f64::from(x)).sum::<f64>();
        log_sum_exp.iter().map(|&x| (2.0 * z * f64::from(x) * share) as f32).collect()
    });
    TokenLoss { loss: loss * share, d_log_probs: vec![-share as f32; log_probs.len()], d_log_sum_exp }
}
