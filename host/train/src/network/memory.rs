//! What a pass takes, before it is tried.

use super::{Network, head};

impl Network {
    /// Bytes that training on `tokens` at once takes at most besides what is held already: what the layers keep, what
    /// comes and goes beside it, and gradients and two moments of what is trained.
    pub fn training_bytes(&self, tokens: u64) -> u64 {
        let (config, trained) = (&self.config, self.masters.len() as u64);
        let (c, f) = (config.hidden_size as u64, config.intermediate_size as u64);
        let q = (config.heads * config.head_dim) as u64;
        let kv = 2 * (config.kv_heads * config.head_dim) as u64;
        let raw = if config.qk_norm { q + kv / 2 } else { 0 };
        let inner = q + kv + raw + config.heads as u64 + q + c + 2 * f;
        let layers = config.layers as u64;
        // One layer's own is there in any case: it is being computed.
        let kept = if self.checkpointing { layers * c + inner } else { layers * (c + inner) };
        let passing = 6 * c + 4 * f + 2 * (q + kv);
        let row = kept.saturating_add(passing).saturating_mul(4);
        row.saturating_mul(tokens).saturating_add(12 * trained).saturating_add(4 * head::LOGITS as u64)
    }
}
