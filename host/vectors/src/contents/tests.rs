use super::*;
use proptest::prelude::*;
use serde_json::json;

fn settings(exact_up_to: usize) -> Settings {
    Settings { exact_up_to, ..Settings::default() }
}

fn contents(metric: Metric, exact_up_to: usize) -> Contents {
    Contents::new(IndexSettings { dimensions: 4, metric }, settings(exact_up_to))
}

fn entry(id: u32, vector: [f32; 4]) -> (Entry, usize) {
    let Value::Object(attributes) = json!({"n": id, "third": id.is_multiple_of(3)}) else { unreachable!() };
    (Entry { id: id.to_string(), vector: vector.to_vec(), attributes }, 20)
}

fn ids(found: &[Neighbour]) -> Vec<&str> {
    found.iter().map(|n| n.id.as_str()).collect()
}

#[test]
fn scores_are_those_of_the_metric() {
    for (metric, want) in [(Metric::Cosine, 0.6), (Metric::Dot, 12.0), (Metric::Euclidean, -17f32.sqrt())] {
        let mut contents = contents(metric, 10);
        contents.upsert(vec![entry(1, [3.0, 4.0, 0.0, 0.0])]);
        let found = contents.search(vec![4.0, 0.0, 0.0, 0.0], 1, None, false);
        assert!((found[0].score - want).abs() < 1e-5, "{metric:?}: {}", found[0].score);
    }
}

#[test]
fn a_rare_filter_finds_what_a_graph_search_would_miss() {
    let mut contents = contents(Metric::Euclidean, 100);
    let far = |i: u32| [i as f32, (i % 7) as f32, 0.0, 0.0];
    contents.upsert((0..2000).map(|i| entry(i, far(i))).collect());
    while contents.build(100) {}
    let only = Filter::parse(&json!({"n": 1999})).unwrap();
    assert_eq!(ids(&contents.search(vec![0.0; 4], 5, Some(&only), false)), ["1999"]);
    let third = Filter::parse(&json!({"third": true})).unwrap();
    let found = contents.search(vec![0.0; 4], 5, Some(&third), false);
    assert_eq!(ids(&found), ["0", "3", "6", "9", "12"]);
}

#[test]
fn what_waits_for_the_graph_is_found_already() {
    let mut contents = contents(Metric::Euclidean, 100);
    contents.upsert((0..200).map(|i| entry(i, [i as f32, 0.0, 0.0, 0.0])).collect());
    assert!(contents.build(150));
    for i in [0, 60, 199] {
        assert_eq!(ids(&contents.search(vec![i as f32, 0.0, 0.0, 0.0], 1, None, false)), [i.to_string()]);
    }
}

#[test]
fn graphs_give_back_what_they_keep_of_removed_entries() {
    let mut contents = contents(Metric::Euclidean, 100);
    let at = |i: u32, y: f32| entry(i, [i as f32, y, 0.0, 0.0]);
    contents.upsert((0..200).map(|i| at(i, 0.0)).collect());
    while contents.build(100) {}
    let alone = contents.bytes();
    contents.upsert((0..50).map(|i| at(i, 0.1)).collect());
    assert!(contents.spare_bytes() > 50 * 16 && contents.bytes() == alone + contents.spare_bytes());
    let nearest = |contents: &Contents| contents.search(vec![7.0, 0.1, 0.0, 0.0], 1, None, false)[0].score;
    assert_eq!(nearest(&contents), -0.0);
    contents.shed();
    assert_eq!((contents.spare_bytes(), contents.bytes(), contents.is_built()), (0, alone, false));
    assert_eq!(nearest(&contents), -0.0);
    while contents.build(100) {}
    assert_eq!(nearest(&contents), -0.0);
}

#[test]
fn memory_is_counted_up_and_down_to_nothing() {
    let mut contents = contents(Metric::Cosine, 10);
    contents.upsert((0..50).map(|i| entry(i, [1.0, i as f32, 0.0, 0.0])).collect());
    assert!(contents.bytes() > 50 * 16);
    let all: Vec<String> = (0..50).map(|i| i.to_string()).collect();
    assert_eq!(contents.delete(&all), 50);
    assert_eq!((contents.bytes(), contents.len()), (0, 0));
    assert!(contents.slots.iter().all(Option::is_none));
    assert_eq!(contents.delete(&all), 0);
}

proptest! {
    /// Whatever was added, replaced, removed and built in whatever order: the answers are those of a plain list.
    #[test]
    fn answers_are_those_of_a_plain_list(
        steps in prop::collection::vec((0u32..60, -1f32..1.0, -1f32..1.0, 0usize..4), 1..200),
        query in prop::array::uniform4(-1f32..1.0),
    ) {
        let mut contents = contents(Metric::Euclidean, 10);
        let mut plain: std::collections::BTreeMap<u32, [f32; 4]> = Default::default();
        for (id, x, y, what) in steps {
            match what {
                0 => {
                    let was = plain.remove(&id).is_some();
                    prop_assert_eq!(contents.delete(&[id.to_string()]), usize::from(was));
                }
                1 => { contents.build(3); }
                _ => {
                    plain.insert(id, [x, y, x * y, id as f32 / 60.0]);
                    contents.upsert(vec![entry(id, plain[&id])]);
                }
            }
        }
        prop_assert_eq!(contents.len(), plain.len());
        let far = |v: &[f32; 4]| v.iter().zip(&query).map(|(a, b)| (a - b).powi(2)).sum::<f32>().sqrt();
        let mut want: Vec<f32> = plain.values().map(|v| -far(v)).collect();
        want.sort_by(|a, b| b.total_cmp(a));
        want.truncate(5);
        for exact in [true, false] {
            let found = contents.search(query.to_vec(), 5, None, exact);
            let got: Vec<f32> = found.iter().map(|n| n.score).collect();
            prop_assert_eq!(got.len(), want.len());
            prop_assert!(got.iter().zip(&want).all(|(g, w)| (g - w).abs() < 1e-5), "{:?} {:?}", got, want);
        }
    }
}
