//! The network once more, naive and in f64: what the fast one is held against.

use std::collections::BTreeMap;

use stockade_kernels::Pool;

use super::super::dropout::Draw;
use super::super::*;

/// All values of a network in f64, by name; parameters and frozen tensors alike.
pub struct Reference<'a> {
    network: &'a Network,
    pub values: BTreeMap<String, Vec<f64>>,
    /// DoRA's norms by module, which do not follow the values.
    norms: BTreeMap<String, Vec<f64>>,
    mode: Mode,
    targets: Vec<String>,
}

/// What one document gives: states after the final norm, a row for each token.
type Rows = Vec<Vec<f64>>;

impl<'a> Reference<'a> {
    pub fn new(network: &'a Network, mode: Mode) -> Self {
        let wide = |values: &[f32]| values.iter().map(|&x| f64::from(x)).collect::<Vec<_>>();
        let mut values: BTreeMap<_, _> =
            network.tensors().map(|(name, _)| (name.to_owned(), wide(&network.tensor(name).unwrap()))).collect();
        let mut targets = Vec::new();
        for (i, parameter) in network.parameters().iter().enumerate() {
            values.insert(parameter.name.clone(), wide(network.values(i)));
            if let Some(module) = parameter.name.strip_suffix(".lora_A.weight") {
                targets.push(module.to_owned());
            }
        }
        let mut reference = Self { network, values, norms: BTreeMap::new(), mode, targets };
        for module in reference.targets.clone() {
            let rows = reference.rows_of(&module);
            let norm = |row: &Vec<f64>| row.iter().map(|x| x * x).sum::<f64>().sqrt();
            reference.norms.insert(module, rows.iter().map(norm).collect());
        }
        reference
    }

    fn get(&self, name: &str) -> &[f64] {
        &self.values[name]
    }

    /// `W + sBA` by rows, of an adapted module.
    fn rows_of(&self, module: &str) -> Rows {
        let base = module.trim_start_matches("base_model.model.");
        let (rank, scale) = (self.network.rank, f64::from(self.network.scale));
        let (a, b) = (self.get(&format!("{module}.lora_A.weight")), self.get(&format!("{module}.lora_B.weight")));
        let cols = a.len() / rank;
        let weight = self.get(&format!("{base}.weight"));
        let row = |(row, b): (&[f64], &[f64])| {
            (0..cols).map(|c| row[c] + scale * (0..rank).map(|r| b[r] * a[r * cols + c]).sum::<f64>()).collect()
        };
        weight.chunks_exact(cols).zip(b.chunks_exact(rank)).map(row).collect()
    }

    /// A module's output for rows that begin at token `at`; `input` numbers what dropout draws for.
    fn linear(&self, layer: usize, block: &str, x: &Rows, at: usize, input: u64) -> Rows {
        let name = format!("model.layers.{layer}.{block}");
        let weight = self.get(&format!("{name}.weight"));
        let cols = x[0].len();
        let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
        let mut y: Rows = x.iter().map(|x| weight.chunks_exact(cols).map(|w| dot(x, w)).collect()).collect();
        let module = format!("base_model.model.{name}");
        if self.targets.contains(&module) {
            let (rank, scale) = (self.network.rank, f64::from(self.network.scale));
            let (a, b) = (self.get(&format!("{module}.lora_A.weight")), self.get(&format!("{module}.lora_B.weight")));
            let mask = self.mask(layer, input, at + x.len(), cols);
            for (n, (x, y)) in x.iter().zip(&mut y).enumerate() {
                let dropped: Vec<f64> = x.iter().zip(&mask[(at + n) * cols..]).map(|(x, m)| x * m).collect();
                let t: Vec<f64> = a.chunks_exact(cols).map(|a| scale * dot(&dropped, a)).collect();
                y.iter_mut().zip(b.chunks_exact(rank)).for_each(|(y, b)| *y += dot(&t, b));
            }
            if let Some(magnitude) = self.values.get(&format!("{module}.lora_magnitude_vector")) {
                let scales: Vec<f64> = magnitude.iter().zip(&self.norms[&module]).map(|(m, norm)| m / norm).collect();
                y.iter_mut().for_each(|y| y.iter_mut().zip(&scales).for_each(|(y, s)| *y *= s));
            }
        }
        if let Some(bias) = self.values.get(&format!("{name}.bias")) {
            y.iter_mut().for_each(|y| y.iter_mut().zip(bias).for_each(|(y, b)| *y += b));
        }
        y
    }

    fn mask(&self, layer: usize, input: u64, rows: usize, cols: usize) -> Vec<f64> {
        let draw = match self.mode {
            Mode::Train { seed, step, row } => Draw::new(self.network.dropout, (seed, step, row), layer, input),
            Mode::Eval => None,
        };
        let mut mask = vec![1.0; rows * cols];
        if let Some(draw) = draw {
            let ones = mask.clone();
            draw.apply(&Pool::new(1), &ones, cols, &mut mask);
        }
        mask.into_iter().map(f64::from).collect()
    }

    fn norm(&self, name: &str, x: &[f64]) -> Vec<f64> {
        let gain = self.get(name);
        let mean = |x: &[f64]| x.iter().map(|x| x * x).sum::<f64>() / x.len() as f64;
        x.chunks_exact(gain.len())
            .flat_map(|x| {
                let scale = 1.0 / (mean(x) + f64::from(self.network.config.norm_eps)).sqrt();
                x.iter().zip(gain).map(move |(x, g)| x * scale * g)
            })
            .collect()
    }

    fn turned(&self, x: &[f64], position: usize) -> Vec<f64> {
        let d = self.network.config.head_dim;
        let frequencies = self.network.config.rope.as_ref().unwrap().inverse_frequencies(d);
        x.chunks_exact(d)
            .flat_map(|head| {
                let angle = |i: usize| f64::from(position as f32 * frequencies[i % (d / 2)]);
                let other = |i: usize| if i < d / 2 { -head[i + d / 2] } else { head[i - d / 2] };
                (0..d).map(|i| head[i] * angle(i).cos() + other(i) * angle(i).sin()).collect::<Vec<_>>()
            })
            .collect()
    }

    /// States after the final norm of all documents.
    pub fn states(&self, packed: &Packed) -> Rows {
        let mut start = 0;
        let mut all = Vec::new();
        for &end in &packed.ends {
            all.extend(self.document(&packed.tokens[start..end], start));
            start = end;
        }
        all
    }

    fn document(&self, tokens: &[u32], at: usize) -> Rows {
        let config = &self.network.config;
        let (c, d) = (config.hidden_size, config.head_dim);
        let group = config.heads / config.kv_heads;
        let embedding = self.get("model.embed_tokens.weight");
        let mut x: Rows = tokens.iter().map(|&t| embedding[t as usize * c..][..c].to_vec()).collect();
        for layer in 0..config.layers {
            let name = |part: &str| format!("model.layers.{layer}.{part}.weight");
            let h: Rows = x.iter().map(|x| self.norm(&name("input_layernorm"), x)).collect();
            let [mut q, mut k, v] =
                ["q", "k", "v"].map(|p| self.linear(layer, &format!("self_attn.{p}_proj"), &h, at, 0));
            for (rows, norm) in [(&mut q, "self_attn.q_norm"), (&mut k, "self_attn.k_norm")] {
                for (position, row) in rows.iter_mut().enumerate() {
                    if config.qk_norm {
                        *row = self.norm(&name(norm), row);
                    }
                    *row = self.turned(row, position);
                }
            }
            let attended: Rows = (0..x.len())
                .map(|i| {
                    let first = config.windows[layer].map_or(0, |w| (i + 1).saturating_sub(w as usize));
                    (0..config.heads)
                        .flat_map(|head| {
                            let (own, shared) = (head * d, head / group * d);
                            let score = |j: usize| {
                                (0..d).map(|e| q[i][own + e] * k[j][shared + e]).sum::<f64>() / (d as f64).sqrt()
                            };
                            let weights: Vec<f64> = (first..=i).map(|j| score(j).exp()).collect();
                            let sum: f64 = weights.iter().sum();
                            let value = |e: usize| {
                                (first..=i).zip(&weights).map(|(j, w)| w / sum * v[j][shared + e]).sum::<f64>()
                            };
                            (0..d).map(value).collect::<Vec<_>>()
                        })
                        .collect()
                })
                .collect();
            add(&mut x, &self.linear(layer, "self_attn.o_proj", &attended, at, 1));
            let h: Rows = x.iter().map(|x| self.norm(&name("post_attention_layernorm"), x)).collect();
            let [gate, up] = ["gate", "up"].map(|p| self.linear(layer, &format!("mlp.{p}_proj"), &h, at, 2));
            let gated: Rows = gate
                .iter()
                .zip(&up)
                .map(|(g, u)| g.iter().zip(u).map(|(g, u)| g / (1.0 + (-g).exp()) * u).collect())
                .collect();
            add(&mut x, &self.linear(layer, "mlp.down_proj", &gated, at, 3));
        }
        x.iter().map(|x| self.norm("model.norm.weight", x)).collect()
    }

    /// Log-probability and log-sum-exp at each target, of logits over `temperature`.
    pub fn log_probs(&self, packed: &Packed, temperature: f64) -> Vec<(f64, f64)> {
        let states = self.states(packed);
        let head = self.values.get("lm_head.weight").unwrap_or(&self.values["model.embed_tokens.weight"]);
        packed
            .targets
            .iter()
            .map(|&target| {
                let state = &states[target - 1];
                let logits: Vec<f64> =
                    head.chunks_exact(state.len()).map(|w| w.iter().zip(state).map(|(w, x)| w * x).sum()).collect();
                let logits: Vec<f64> = logits.into_iter().map(|l: f64| l / temperature).collect();
                let largest = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
                let sum = largest + logits.iter().map(|l| (l - largest).exp()).sum::<f64>().ln();
                (logits[packed.tokens[target] as usize] - sum, sum)
            })
            .collect()
    }

    /// `[positions][labels]`
    pub fn scores(&self, packed: &Packed, positions: &[usize], head: &str) -> Rows {
        let states = self.states(packed);
        let score = |&position: &usize| {
            let state = &states[position];
            self.get(head).chunks_exact(state.len()).map(|w| w.iter().zip(state).map(|(w, x)| w * x).sum()).collect()
        };
        positions.iter().map(score).collect()
    }
}

fn add(x: &mut Rows, y: &Rows) {
    x.iter_mut().zip(y).for_each(|(x, y)| x.iter_mut().zip(y).for_each(|(x, y)| *x += y));
}
