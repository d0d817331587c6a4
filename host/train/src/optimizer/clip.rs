//! Clipping by the global norm, as `torch.nn.utils.clip_grad_norm_` does.

/// What gradients of this norm are multiplied by so that none is longer than `max_norm`: `min(1, max_norm / (norm +
/// 1e-6))`. A `max_norm` of 0 clips nothing.
pub fn clip_scale(norm: f64, max_norm: f64) -> f32 {
    if max_norm > 0.0 { (max_norm / (norm + 1e-6)).min(1.0) as f32 } else { 1.0 }
}
