//! Questions at evaluations: what is asked of evaluators, what becomes of their scores, and of their failures.

use super::super::examiner::{Examined, Examiner};
use super::super::sampler::{Completion, Sampler};
use super::*;
use crate::data::Question;
use std::cell::{Cell, RefCell};
use std::sync::atomic::{AtomicUsize, Ordering};
use stockade_core::infer::Sampling;
use stockade_core::train::{Ending, Evaluators, Metric, Sample, Score};

/// Answers `ANSWER I` to question I, another in each round.
struct Scripted {
    rounds: Cell<usize>,
    answers: Vec<&'static str>,
    asked: RefCell<Vec<Sampling>>,
}

impl Scripted {
    fn new(answers: &[&'static str]) -> Self {
        Self { rounds: Cell::new(0), answers: answers.to_vec(), asked: RefCell::default() }
    }
}

impl Sampler for Scripted {
    fn take(&self, _: &Network) -> Result<(), TrainError> {
        Ok(())
    }

    fn sample(&self, prompts: &[&[u32]], _: &[u64], sampling: &Sampling) -> Result<Vec<Completion>, TrainError> {
        let round = self.rounds.replace(self.rounds.get() + 1);
        self.asked.borrow_mut().push(sampling.clone());
        let failed = || TrainError::Io { stage: "rollouts", source: "the disk is full".into() };
        let answer = self.answers[round.min(self.answers.len() - 1)];
        if answer == "fail" {
            return Err(failed());
        }
        Ok((0..prompts.len()).map(|i| Completion { text: format!("{answer} {i}"), ..Completion::default() }).collect())
    }
}

type Scoring = fn(&Sample) -> Result<Vec<Score>, String>;

/// Scores by the answer's text; counts its calls.
struct By {
    score: Scoring,
    calls: AtomicUsize,
}

impl By {
    fn new(score: Scoring) -> Self {
        Self { score, calls: AtomicUsize::new(0) }
    }
}

impl Evaluators for By {
    fn metrics(&self, component: &str) -> Result<Vec<Metric>, TrainError> {
        let metric = |name: &str, higher_is_better| Metric { name: name.into(), higher_is_better };
        Ok(match component {
            "odd" => vec![metric("two words", true)],
            _ => vec![metric("length", true), metric("errors", false)],
        })
    }

    fn evaluate(&self, component: &str, samples: &[Sample]) -> Result<Vec<Vec<Score>>, TrainError> {
        self.calls.fetch_add(1, Ordering::Relaxed);
        let fail = |reason| TrainError::Evaluator { component: component.into(), reason };
        samples.iter().map(|sample| (self.score)(sample).map_err(fail)).collect()
    }
}

fn score(metric: &str, value: f64) -> Score {
    Score { metric: metric.into(), value }
}

fn questions(n: u32) -> Vec<Question> {
    let question = |i: u32| Question {
        tokens: vec![1, 5 + i],
        messages: vec![stockade_core::chat::Message::text(stockade_core::chat::Role::User, format!("Q{i}\u{e9}"))],
        expected: Some(json!(i)),
        input: json!({ "n": i }),
    };
    (0..n).map(question).collect()
}

fn evaluating(eval: Value) -> Job {
    job("sft", json!({ "data": { "eval": "steps" }, "eval": eval, "checkpoint": { "every": 1 } }))
}

/// What 20 questions come to, and the notes of it.
fn examine(eval: Value, answers: &[&'static str], by: &By) -> Option<(Examined, Vec<String>, Vec<Sampling>)> {
    let job = evaluating(eval);
    let network = open("llama-micro", &job, &Objective::Documents { z_loss: 0.0 })?;
    let (sampler, listener) = (Scripted::new(answers), Listener::default());
    let examiner = Examiner::new(&job.eval, 1, questions(20), &sampler, by).unwrap();
    let examined = examiner.examine(&network, 7, &listener);
    Some((examined, listener.notes.into_inner().unwrap(), sampler.asked.take()))
}

#[test]
fn metrics_are_means_over_the_answers_that_they_apply_to() {
    let by = By::new(|sample| {
        let i = sample.expected.as_ref().unwrap().as_u64().unwrap();
        assert_eq!((sample.output.clone(), &sample.input), (format!("yes {i}"), &json!({ "n": i })));
        let mut scores = vec![score("length", i as f64)];
        scores.extend((i < 2).then(|| score("errors", 0.5)));
        Ok(scores)
    });
    let eval =
        json!({ "evaluators": ["x/by.wasm"], "best_by": "by/errors", "samples": 20, "show": 1, "max_tokens": 9 });
    let Some((examined, notes, asked)) = examine(eval, &["yes"], &by) else { return };
    assert_eq!(examined.means.into_iter().collect::<Vec<_>>(), [("by/errors".into(), 0.5), ("by/length".into(), 9.5)]);
    assert_eq!((examined.judged, by.calls.into_inner()), (Some(0.5), 2), "calls of at most 16 answers");
    assert_eq!((asked[0].max_tokens, asked[0].temperature, asked[0].ignore_eos), (Some(9), 0.0, false));
    assert!(notes.is_empty());
    let [shown] = examined.shown.as_slice() else { panic!("{:?}", examined.shown) };
    assert_eq!((shown.step, shown.prompt.as_str(), shown.answer.as_str()), (7, "Q0\u{e9}", "yes 0"));
    assert_eq!((shown.expected.as_deref(), shown.scores["by/errors"]), (Some("0"), 0.5));
}

#[test]
fn what_fails_is_told_and_leaves_the_rest() {
    let eval = || json!({ "evaluators": ["a"], "best_by": "a/length", "show": 1 });
    let failing: [(Scoring, &str); 4] = [
        (|_| Err("trapped".into()), "after step 7: evaluator `a` failed: trapped"),
        (|_| Ok(vec![score("other", 1.0)]), "after step 7: evaluator `a` failed: `other` is none of its metrics"),
        (
            |_| Ok(vec![score("length", f64::NAN)]),
            "after step 7: evaluator `a` failed: NaN of length is no finite number",
        ),
        (|_| Ok(Vec::new()), ""),
    ];
    for (score, note) in failing {
        let Some((examined, notes, _)) = examine(eval(), &["yes"], &By::new(score)) else { return };
        assert_eq!(notes.join("\n"), note);
        assert_eq!((examined.means.len(), examined.judged, examined.shown.len()), (0, None, 1));
    }
    let by = By::new(|_| Ok(Vec::new()));
    let (examined, notes, _) = examine(eval(), &["fail"], &by).unwrap();
    assert_eq!(examined, Examined::default());
    let want = "the weights after step 7 could not be asked: training failed in rollouts: the disk is full";
    assert_eq!(notes, [want]);
}

#[test]
fn a_metric_without_a_sound_name_is_refused() {
    let job = evaluating(json!({ "evaluators": ["odd"] }));
    let (sampler, by) = (Scripted::new(&["yes"]), By::new(|_| Ok(Vec::new())));
    let error = Examiner::new(&job.eval, 1, questions(1), &sampler, &by).err().expect("refused");
    assert!(error.to_string().starts_with("evaluator `odd` failed: a metric's name"), "{error}");
}

/// Answers get longer and shorter again while the loss falls all the time, and one evaluation fails.
#[test]
fn the_best_evaluation_is_told_by_a_metric_on_wish() {
    let by = By::new(|sample| match sample.output.as_str() {
        "odd 0" => Err("trapped".into()),
        text => Ok(vec![score("length", text.len() as f64)]),
    });
    let job = evaluating(
        json!({ "evaluators": ["by"], "samples": 1, "every": 1, "patience": 2, "best_by": "by/length", "show": 1 }),
    );
    let objective = Objective::Documents { z_loss: 0.0 };
    let Some(network) = open("llama-micro", &job, &objective) else { return };
    let folder = tempfile::tempdir().unwrap();
    let step = step_of(vec![Example::Text(sequence(&[4, 9, 16, 25], 1))], 1);
    let (source, evaluation) = (Steps(vec![step.clone(); 9]), Steps(vec![step]));
    let (listener, sampler) = (Listener::default(), Scripted::new(&["start", "a", "longest", "odd", "b", "c"]));
    let mut run = run(&job, objective, network, &source, folder.path(), &listener);
    run.evaluation = Some(&evaluation);
    run.examiner = Some(Examiner::new(&job.eval, 1, questions(1), &sampler, &by).unwrap());
    let Ending::Finished { steps: 5, eval_loss: Some(loss), .. } = run.train().unwrap() else { panic!("stops early") };
    let steps = listener.steps.lock().unwrap();
    let losses: Vec<f64> = steps.iter().map(|line| line.eval_loss.unwrap()).collect();
    assert!(losses.windows(2).all(|pair| pair[1] < pair[0]), "{losses:?}");
    assert_eq!(loss, losses[1], "of the best step");
    let lengths: Vec<Option<f64>> =
        steps.iter().map(|line| line.more.get("eval/by/length").and_then(Value::as_f64)).collect();
    assert_eq!(lengths, [Some(3.0), Some(9.0), None, Some(3.0), Some(3.0)]);
    let told: Vec<Vec<(u64, &str)>> = steps
        .iter()
        .map(|line| line.samples.iter().map(|sample| (sample.step, sample.answer.as_str())).collect())
        .collect();
    assert_eq!(told[..2], [vec![(0, "start 0"), (1, "a 0")], vec![(2, "longest 0")]]);
    let notes = listener.notes.lock().unwrap();
    assert!(notes.contains(&"the result is that of step 2, which was the best by by/length".to_owned()), "{notes:?}");
}
