//! GRPO and its relatives: answers of a group are judged against each other (arXiv:2402.03300).

/// What the rewards of a group are divided by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum RewardScale {
    /// The group's standard deviation.
    #[default]
    Group,
    /// The standard deviation over all answers of the step.
    Batch,
    /// Nothing: a hard prompt weighs no more than an easy one (Dr. GRPO, arXiv:2503.20783).
    None,
}

/// Added to standard deviations before they divide.
const DEVIATION_FLOOR: f64 = 1e-4;

/// Advantages of a step's answers, and what they say about its groups.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Advantages {
    /// One for each answer; `None` where there was no reward.
    pub values: Vec<Option<f64>>,
    pub groups: usize,
    /// Groups whose rewards are all alike (or of which fewer than two are known): nothing to learn from.
    pub degenerate: usize,
}

/// `(reward - mean of the group) / (deviation + 1e-4)`, the deviation with n - 1.
///
/// Groups are runs of `group` answers; an answer without a reward takes no part in its group. An advantage in a group
/// of equal rewards is exactly 0, which rounding of the mean would not give.
pub fn advantages(rewards: &[Option<f64>], group: usize, scale: RewardScale) -> Advantages {
    let batch_deviation = deviation(rewards);
    let mut result = Advantages::default();
    for answers in rewards.chunks(group.max(1)) {
        result.groups += 1;
        let known: Vec<f64> = answers.iter().flatten().copied().collect();
        if known.len() < 2 || known.iter().all(|reward| *reward == known[0]) {
            result.degenerate += 1;
            result.values.extend(answers.iter().map(|reward| reward.map(|_| 0.0)));
            continue;
        }
        let mean = known.iter().sum::<f64>() / known.len() as f64;
        let divisor = match scale {
            RewardScale::Group => deviation(answers) + DEVIATION_FLOOR,
            RewardScale::Batch => batch_deviation + DEVIATION_FLOOR,
            RewardScale::None => 1.0,
        };
        result.values.extend(answers.iter().map(|reward| reward.map(|reward| (reward - mean) / divisor)));
    }
    result
}

/// Standard deviation with n - 1 of the rewards that are known; 0 for fewer than two.
fn deviation(rewards: &[Option<f64>]) -> f64 {
    let known: Vec<f64> = rewards.iter().flatten().copied().collect();
    if known.len() < 2 {
        return 0.0;
    }
    let mean = known.iter().sum::<f64>() / known.len() as f64;
    let squares: f64 = known.iter().map(|reward| (reward - mean) * (reward - mean)).sum();
    (squares / (known.len() - 1) as f64).sqrt()
}

/// How token terms become one number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reduction {
    /// The mean over an answer's tokens, then over the step's answers (GRPO).
    Answer,
    /// The mean over the tokens of the micro-batch, then over micro-batches (BNPO).
    MicroBatch,
    /// The mean over the tokens of the whole step (DAPO, arXiv:2503.14476).
    Step,
    /// The sum divided by the step's answers times the longest answer allowed (Dr. GRPO).
    Longest,
}

/// The clipped policy objective with its settings.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct GroupPolicy {
    pub reduction: Reduction,
    /// The ratio counts from `1 - clip_low` to `1 + clip_high` only.
    pub clip_low: f64,
    pub clip_high: f64,
    /// Weight of the divergence from the reference (the estimator k3); 0 knows no reference.
    pub beta: f64,
    /// One ratio for an answer, the geometric mean of its tokens' (GSPO, arXiv:2507.18071).
    pub by_sequence: bool,
    /// Tokens of the longest answer allowed.
    pub max_tokens: usize,
}

/// An answer's log-probabilities, one for each token, and its advantage.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Answer<'a> {
    /// Under the policy that is trained.
    pub new: &'a [f32],
    /// Under the policy that wrote the answer.
    pub old: &'a [f32],
    /// Under the reference; `None` without divergence.
    pub reference: Option<&'a [f32]>,
    /// `None` masks the answer: it counts as an answer, its tokens do not count.
    pub advantage: Option<f64>,
}

/// What a step's terms are divided by. Tokens are those of answers that are not masked, answers are all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GroupTotals {
    pub answers: usize,
    pub tokens: u64,
    pub micro_batches: usize,
    /// Of the micro-batch that the answers belong to.
    pub micro_batch_tokens: u64,
}

/// What some answers of a step add.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct GroupLoss {
    /// Already divided as the reduction says, so that the parts of a step add up.
    pub loss: f64,
    /// Derivative by each of [`Answer::new`], answer after answer.
    pub d_new: Vec<Vec<f32>>,
    /// Tokens that are not masked, and sums over them.
    pub tokens: u64,
    pub divergence: f64,
    /// Tokens whose ratio was clipped, hence without gradient.
    pub clipped: u64,
}

impl GroupPolicy {
    /// The loss of answers that go through the network together, a micro-batch or a part of one.
    pub fn evaluate(&self, answers: &[Answer<'_>], totals: GroupTotals) -> GroupLoss {
        let mut result = GroupLoss::default();
        for answer in answers {
            let n = answer.new.len();
            let Some(advantage) = answer.advantage else {
                result.d_new.push(vec![0.0; n]);
                continue;
            };
            let divisor = match self.reduction {
                Reduction::Answer => n as f64 * totals.answers as f64,
                Reduction::MicroBatch => totals.micro_batch_tokens as f64 * totals.micro_batches as f64,
                Reduction::Step => totals.tokens as f64,
                Reduction::Longest => totals.answers as f64 * self.max_tokens as f64,
            };
            result.add(self, answer, advantage, 1.0 / divisor.max(1.0));
        }
        result
    }
}

impl GroupLoss {
    /// Adds an answer, each of whose tokens has the weight `share`.
    fn add(&mut self, policy: &GroupPolicy, answer: &Answer<'_>, advantage: f64, share: f64) {
        let n = answer.new.len();
        let log_ratio = |t: usize| f64::from(answer.new[t]) - f64::from(answer.old[t]);
        let sequence = policy.by_sequence.then(|| (0..n).map(log_ratio).sum::<f64>() / n.max(1) as f64);
        let mut d_new = Vec::with_capacity(n);
        let mut through_sequence = 0.0;
        for t in 0..n {
            let ratio = bounded(sequence.unwrap_or_else(|| log_ratio(t))).exp();
            let clamped = ratio.clamp(1.0 - policy.clip_low, 1.0 + policy.clip_high);
            let (free, held) = (ratio * advantage, clamped * advantage);
            let clipped = held < free;
            self.clipped += u64::from(clipped);
            self.loss -= share * free.min(held);
            let slope = if clipped { 0.0 } else { -share * free };
            let mut d = if sequence.is_some() { 0.0 } else { slope };
            through_sequence += slope / n as f64;
            if let Some(reference) = answer.reference {
                let x = bounded(f64::from(reference[t]) - f64::from(answer.new[t]));
                let k3 = x.exp_m1() - x;
                self.divergence += k3;
                self.loss += share * policy.beta * k3;
                d -= share * policy.beta * x.exp_m1();
            }
            d_new.push(d);
        }
        if sequence.is_some() {
            d_new.iter_mut().for_each(|d| *d += through_sequence);
        }
        self.tokens += n as u64;
        self.d_new.push(d_new.into_iter().map(|d| d as f32).collect());
    }
}

/// Differences of log-probabilities beyond this are cut, so that exp stays finite.
fn bounded(log_ratio: f64) -> f64 {
    log_ratio.clamp(-60.0, 60.0)
}
