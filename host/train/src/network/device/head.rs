//! The heads: log-probabilities of labels, scores, and their ways back.
//!
//! Only rows that carry a label see the language head, so many at once as fit into a piece; backward computes their
//! logits again.

use std::ops::Range;

use candle_core::{D, Result, Tensor};

use super::pass::DevicePass;
use super::{DeviceNetwork, add_to};
use crate::network::{Gradients, LogProbs, Network};

impl DeviceNetwork {
    pub(super) fn log_probs_of(&self, pass: &mut DevicePass) -> Result<LogProbs> {
        let mut all = LogProbs::default();
        for rows in self.pieces(pass) {
            let logits = self.products.multiply(&self.label_states(pass, rows.clone())?, &self.language_head().t()?)?;
            let largest = logits.max_keepdim(D::Minus1)?;
            let exps = logits.broadcast_sub(&largest)?.exp()?;
            let total = exps.sum_keepdim(D::Minus1)?;
            let sums = (largest + total.log()?)?;
            let mean = ((exps * &logits)?.sum_keepdim(D::Minus1)? / total)?;
            let labels = logits.gather(&self.labels(pass, rows)?, 1)?;
            let values = |column: Tensor| column.flatten_all()?.to_vec1::<f32>();
            all.log_probs.extend(values((labels - &sums)?)?);
            all.entropy.extend(values((&sums - mean)?)?);
            all.log_sum_exp.extend(values(sums)?);
        }
        if pass.keeps() {
            pass.sums = Some(all.log_sum_exp.clone());
        }
        Ok(all)
    }

    /// The gradient of the states `[N, C]`; adds the head's.
    pub(super) fn log_probs_back(
        &self,
        network: &Network,
        pass: &DevicePass,
        d_log_probs: &[f32],
        d_log_sum_exp: Option<&[f32]>,
        gradients: &mut Gradients,
    ) -> Result<Tensor> {
        let sums = pass.sums.as_ref().expect("log-probabilities of a training pass come before its backward");
        let m = pass.packed.targets.len();
        assert_eq!(d_log_probs.len(), m, "a derivative for each target");
        assert!(d_log_sum_exp.is_none_or(|d| d.len() == m), "a derivative for each target");
        let (head, parameter) = (self.language_head(), network.layout.head.and_then(|tensor| network.master(tensor)));
        let mut d_states = pass.states.zeros_like()?;
        let mut d_head = None;
        for rows in self.pieces(pass) {
            let column = |values: &[f32]| self.products.upload(&values[rows.clone()], &[rows.len(), 1]);
            let states = self.label_states(pass, rows.clone())?;
            let logits = self.products.multiply(&states, &head.t()?)?;
            let d_label = column(d_log_probs)?;
            // Of the log-sum-exp, which stands in every log-probability with a minus.
            let d_sum = match d_log_sum_exp {
                Some(d) => (column(d)? - &d_label)?,
                None => d_label.neg()?,
            };
            let d_logits = logits.broadcast_sub(&column(sums)?)?.exp()?.broadcast_mul(&d_sum)?;
            let d_logits = d_logits.scatter_add(&self.labels(pass, rows.clone())?, &d_label, 1)?;
            if parameter.is_some() {
                let d = self.products.multiply(&d_logits.t()?, &states)?;
                d_head = Some(match d_head {
                    Some(sum) => (sum + d)?,
                    None => d,
                });
            }
            let d_rows = (self.products.multiply(&d_logits, head)? / f64::from(pass.temperature))?;
            d_states = d_states.index_add(&self.seen(pass, rows)?, &d_rows, 0)?;
        }
        if let (Some(parameter), Some(d_head)) = (parameter, d_head) {
            add_to(gradients.get_mut(parameter), &d_head)?;
        }
        Ok(d_states)
    }

    pub(super) fn scores_at(&self, pass: &DevicePass, positions: &[usize]) -> Result<Vec<f32>> {
        let states = pass.states.index_select(&self.at(positions)?, 0)?;
        self.products.multiply(&states, &self.score_head().t()?)?.flatten_all()?.to_vec1()
    }

    /// The gradient of the states `[N, C]`; adds the head's.
    pub(super) fn scores_back(
        &self,
        network: &Network,
        pass: &DevicePass,
        positions: &[usize],
        d_scores: &[f32],
        gradients: &mut Gradients,
    ) -> Result<Tensor> {
        let (at, head) = (self.at(positions)?, self.score_head());
        let d_scores = self.products.upload(d_scores, &[positions.len(), head.dim(0)?])?;
        let states = pass.states.index_select(&at, 0)?;
        let d_head = self.products.multiply(&d_scores.t()?, &states)?;
        add_to(gradients.get_mut(network.score_head()), &d_head)?;
        pass.states.zeros_like()?.index_add(&at, &self.products.multiply(&d_scores, head)?, 0)
    }

    pub(super) fn logits_at(&self, pass: &DevicePass, positions: &[usize]) -> Result<Vec<f32>> {
        let states = pass.states.index_select(&self.at(positions)?, 0)?;
        self.products.multiply(&states, &self.language_head().t()?)?.flatten_all()?.to_vec1()
    }

    fn language_head(&self) -> &Tensor {
        self.head.as_ref().expect("the network has a language head")
    }

    fn score_head(&self) -> &Tensor {
        self.score.as_ref().expect("the network has a score head")
    }

    /// The targets in pieces.
    fn pieces(&self, pass: &DevicePass) -> impl Iterator<Item = Range<usize>> + use<> {
        let m = pass.packed.targets.len();
        let rows = (self.piece / self.language_head().dims()[0]).max(1);
        (0..m).step_by(rows).map(move |start| start..m.min(start + rows))
    }

    /// Tokens that predict labels.
    fn seen(&self, pass: &DevicePass, rows: Range<usize>) -> Result<Tensor> {
        let before: Vec<usize> = pass.packed.targets[rows].iter().map(|target| target - 1).collect();
        self.at(&before)
    }

    /// `[rows, 1]`
    fn labels(&self, pass: &DevicePass, rows: Range<usize>) -> Result<Tensor> {
        let labels: Vec<u32> = pass.packed.targets[rows].iter().map(|&target| pass.packed.tokens[target]).collect();
        self.products.indices(&labels)?.unsqueeze(1)
    }

    /// The states that predict labels over the temperature, `[rows, C]`: dividing these divides the logits.
    fn label_states(&self, pass: &DevicePass, rows: Range<usize>) -> Result<Tensor> {
        pass.states.index_select(&self.seen(pass, rows)?, 0)? / f64::from(pass.temperature)
    }

    fn at(&self, positions: &[usize]) -> Result<Tensor> {
        let positions: Vec<u32> = positions.iter().map(|&position| position as u32).collect();
        self.products.indices(&positions)
    }
}
