//! Cross entropy over a classifier's labels.

#[derive(Debug, Clone, PartialEq)]
pub struct ClassLoss {
    pub loss: f64,
    /// Derivative by each score.
    pub d_scores: Vec<f64>,
    /// The label with the highest score; the first of equals.
    pub best: usize,
}

/// `-log softmax(scores)[label]`. `label` is an index of `scores`.
pub fn cross_entropy_of_classes(scores: &[f32], label: usize) -> ClassLoss {
    let (mut best, mut largest) = (0, f64::NEG_INFINITY);
    for (index, &score) in scores.iter().enumerate() {
        if f64::from(score) > largest {
            (best, largest) = (index, f64::from(score));
        }
    }
    let mut d_scores: Vec<f64> = scores.iter().map(|&score| (f64::from(score) - largest).exp()).collect();
    let total: f64 = d_scores.iter().sum();
    let loss = total.ln() + largest - f64::from(scores[label]);
    d_scores.iter_mut().for_each(|mass| *mass /= total);
    d_scores[label] -= 1.0;
    ClassLoss { loss, d_scores, best }
}
