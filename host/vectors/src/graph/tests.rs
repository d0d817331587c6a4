use super::*;
use crate::best::{Best, Near};
use std::collections::BTreeSet;
use stockade_core::vectors::Metric;

const D: usize = 8;

/// Points in a cube, pseudo-random and fixed.
fn points(n: usize) -> Vec<Row> {
    let mut x = 0x2545_f491_4f6c_dd1du64;
    let mut draw = || {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        (x >> 40) as f32 / (1 << 24) as f32
    };
    (0..n).map(|_| (0..D).map(|_| draw()).collect()).collect()
}

fn empty() -> Graph {
    let index = IndexSettings { dimensions: D as u32, metric: Metric::Euclidean };
    let settings = Settings { links: 8, build_candidates: 60, search_candidates: 60, ..Settings::default() };
    Graph::new(index, &settings).unwrap()
}

fn built(points: &[Row]) -> Graph {
    let mut graph = empty();
    points.iter().zip(0..).for_each(|(row, slot)| graph.add(slot, row.clone()).unwrap());
    graph
}

/// Share of the true ten nearest of each query that the graph finds among slots that `accept` lets through.
fn recall(graph: &Graph, points: &[Row], accept: impl Fn(u32) -> bool) -> f64 {
    let queries = self::points(100);
    let mut hits = 0;
    for query in &queries {
        let query: Vec<f32> = query.iter().map(|x| 1.0 - x).collect();
        let mut exact = Best::new(10);
        for (row, slot) in points.iter().zip(0..).filter(|(_, slot)| accept(*slot)) {
            exact.add(Near { slot, closeness: closeness(Metric::Euclidean, &query, row) });
        }
        let want: BTreeSet<u32> = exact.into_sorted().iter().map(|n| n.slot).collect();
        let found = graph.search(&query, 60, &accept).unwrap();
        assert!(found.iter().all(|slot| accept(*slot)));
        assert_eq!(found.iter().collect::<BTreeSet<_>>().len(), found.len(), "each once");
        hits += found.iter().take(10).filter(|slot| want.contains(slot)).count();
    }
    hits as f64 / 1000.0
}

#[test]
fn nearly_all_true_neighbours_are_found_closest_first() {
    let points = points(3000);
    let found = recall(&built(&points), &points, |_| true);
    assert!(found > 0.97, "{found}");
}

#[test]
fn a_filter_is_kept_while_searching_and_costs_no_recall() {
    let points = points(3000);
    let found = recall(&built(&points), &points, |slot| slot % 5 == 0);
    assert!(found > 0.97, "{found}");
}

#[test]
fn removed_slots_are_in_no_answer_and_the_others_are_still_found() {
    let points = points(3000);
    let mut graph = built(&points);
    let gone: Vec<u32> = (0..3000).filter(|n| n % 3 != 0).collect();
    gone.iter().for_each(|slot| graph.remove(*slot));
    gone.iter().for_each(|slot| graph.remove(*slot));
    assert_eq!((graph.len(), graph.removed()), (1000, 2000));
    let query = [0.5; D];
    assert!(graph.search(&query, 3000, |_| true).unwrap().iter().all(|slot| slot % 3 == 0));
    let left = recall(&graph, &points, |slot| slot % 3 == 0);
    assert!(left > 0.97, "{left}");
    // They come back with other rows.
    let mut points = points;
    for slot in gone {
        let row: Row = points[slot as usize].iter().map(|x| 1.0 - x).collect();
        graph.add(slot, row.clone()).unwrap();
        points[slot as usize] = row;
    }
    let all = recall(&graph, &points, |_| true);
    assert!(all > 0.97, "{all}");
}

#[test]
fn a_graph_keeps_the_rows_it_was_given() {
    let mut graph = empty();
    for slot in 0..FIRST as u32 * 3 {
        graph.add(slot, Row::from([slot as f32; D])).unwrap();
    }
    for slot in [0, 77, 3000] {
        assert_eq!(graph.search(&[slot as f32; D], 1, |_| true).unwrap(), [slot]);
    }
}

#[test]
fn a_graph_can_be_emptied_and_filled_again() {
    let points = points(50);
    let mut graph = built(&points);
    (0..50).for_each(|slot| graph.remove(slot));
    assert!(graph.search(&[0.0; D], 5, |_| true).unwrap().is_empty());
    graph.add(7, points[7].clone()).unwrap();
    assert_eq!(graph.search(&[0.0; D], 5, |_| true).unwrap(), [7]);
    assert!(graph.search(&[0.0; D], 5, |_| false).unwrap().is_empty());
}

#[test]
fn equal_and_huge_rows_are_all_held() {
    let mut graph = empty();
    let row = Row::from([1.0; D]);
    (0..500).for_each(|slot| graph.add(slot, row.clone()).unwrap());
    let huge = Row::from([f32::MAX; D]);
    (500..600).for_each(|slot| graph.add(slot, huge.clone()).unwrap());
    graph.add(600, Row::from([-f32::MAX; D])).unwrap();
    let found = graph.search(&row, 60, |_| true).unwrap();
    assert_eq!(found.len(), 60);
    assert!(found.iter().all(|slot| *slot < 500), "{found:?}");
}

#[test]
fn as_many_searches_run_at_once_as_the_settings_say() {
    let points = points(2000);
    let graph = built(&points);
    let threads = Settings::default().at_once;
    let searches = || (0..200).all(|slot| graph.search(&points[slot], 10, |_| true).unwrap()[0] == slot as u32);
    std::thread::scope(|scope| {
        let all: Vec<_> = (0..threads).map(|_| scope.spawn(searches)).collect();
        all.into_iter().for_each(|search| assert!(search.join().unwrap()));
    });
}

#[test]
fn a_heap_of_equal_rows_hides_no_others() {
    let centre = vec![Row::from([0.5; D]); 1000];
    for points in [[&centre[..], &points(2000)].concat(), [&points(2000)[..], &centre].concat()] {
        let graph = built(&points);
        let other = |slot: u32| points[slot as usize] != centre[0];
        // Less than without the heap: its nodes link to each other first.
        let found = recall(&graph, &points, other);
        assert!(found > 0.8, "{found}");
        assert_eq!(graph.search(&centre[0], 60, |slot| !other(slot)).unwrap().len(), 60);
    }
}
