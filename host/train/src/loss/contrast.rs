//! InfoNCE: an anchor's embedding is nearer to its positive than to all others (van den Oord et al. 2018,
//! arXiv:1807.03748).

#[derive(Debug, Clone, PartialEq)]
pub struct ContrastLoss {
    /// Sum over the anchors.
    pub loss: f64,
    pub d_anchors: Vec<f64>,
    pub d_candidates: Vec<f64>,
    /// Anchors whose positive is the nearest candidate.
    pub hits: usize,
}

/// Sum over anchors i of `-log softmax(cosine(anchor_i, candidate_j) / temperature)_i`: candidate i is the positive of
/// anchor i, all others, hard negatives after the positives included, are negatives.
///
/// # Shapes
/// `anchors` `[n, width]`, `candidates` `[m, width]` with `m >= n`; not normalised, which is part of the derivative.
pub fn info_nce(anchors: &[f32], candidates: &[f32], width: usize, temperature: f64) -> ContrastLoss {
    let (anchors, anchor_norms) = unit_rows(anchors, width);
    let (candidates, candidate_norms) = unit_rows(candidates, width);
    let mut d_anchors = vec![0.0; anchors.len()];
    let mut d_candidates = vec![0.0; candidates.len()];
    let (mut loss, mut hits) = (0.0, 0);
    for (i, anchor) in anchors.chunks_exact(width).enumerate() {
        let similarities: Vec<f64> =
            candidates.chunks_exact(width).map(|candidate| dot(anchor, candidate) / temperature).collect();
        let largest = similarities.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let total: f64 = similarities.iter().map(|s| (s - largest).exp()).sum();
        loss += total.ln() + largest - similarities[i];
        hits += usize::from(similarities[i] == largest);
        for (j, similarity) in similarities.iter().enumerate() {
            let mass = (similarity - largest).exp() / total - f64::from(u8::from(i == j));
            let slope = mass / temperature;
            let candidate = &candidates[j * width..(j + 1) * width];
            add_scaled(&mut d_anchors[i * width..(i + 1) * width], candidate, slope);
            add_scaled(&mut d_candidates[j * width..(j + 1) * width], anchor, slope);
        }
    }
    through_unit(&mut d_anchors, &anchors, &anchor_norms, width);
    through_unit(&mut d_candidates, &candidates, &candidate_norms, width);
    ContrastLoss { loss, d_anchors, d_candidates, hits }
}

/// Shorter rows count as this long, so that a zero row has a finite direction.
const SHORTEST: f64 = 1e-12;

fn unit_rows(rows: &[f32], width: usize) -> (Vec<f64>, Vec<f64>) {
    let mut unit: Vec<f64> = rows.iter().map(|&x| f64::from(x)).collect();
    let norms = unit
        .chunks_exact_mut(width)
        .map(|row| {
            let norm = dot(row, row).sqrt().max(SHORTEST);
            row.iter_mut().for_each(|x| *x /= norm);
            norm
        })
        .collect();
    (unit, norms)
}

/// From the derivative by unit rows to that by the rows they came from: `(d - u (u . d)) / |row|`.
fn through_unit(derivative: &mut [f64], unit: &[f64], norms: &[f64], width: usize) {
    for ((d, u), norm) in derivative.chunks_exact_mut(width).zip(unit.chunks_exact(width)).zip(norms) {
        let along = dot(d, u);
        for (d, u) in d.iter_mut().zip(u) {
            *d = (*d - u * along) / norm;
        }
    }
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

fn add_scaled(to: &mut [f64], from: &[f64], scale: f64) {
    to.iter_mut().zip(from).for_each(|(to, from)| *to += scale * from);
}
