use super::*;
use std::collections::BTreeSet;

/// Points in a plane, pseudo-random and fixed.
fn points(n: usize) -> Vec<[f32; 8]> {
    let mut x = 0x2545_f491_4f6c_dd1du64;
    let mut draw = || {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        (x >> 40) as f32 / (1 << 24) as f32
    };
    (0..n).map(|_| std::array::from_fn(|_| draw())).collect()
}

fn close(a: &[f32; 8], b: &[f32; 8]) -> f32 {
    -a.iter().zip(b).map(|(x, y)| (x - y).powi(2)).sum::<f32>()
}

fn built(points: &[[f32; 8]]) -> Graph {
    let mut graph = Graph::new(8, 60);
    for node in 0..points.len() as u32 {
        graph.insert(node, |a, b| close(&points[a as usize], &points[b as usize]));
    }
    graph
}

/// Share of the true ten nearest of each query that the graph finds among nodes that `accept` lets through.
fn recall(graph: &Graph, points: &[[f32; 8]], accept: impl Fn(u32) -> bool) -> f64 {
    let queries = super::tests::points(100);
    let mut hits = 0;
    for query in &queries {
        let closeness = |node: u32| close(query, &points[node as usize]);
        let mut exact = Best::new(10);
        let held = (0..points.len() as u32).filter(|n| accept(*n));
        held.for_each(|node| exact.add(Near { node, closeness: closeness(node) }));
        let want: BTreeSet<u32> = exact.into_sorted().iter().map(|n| n.node).collect();
        let found = graph.search(60, closeness, &accept);
        assert!(found.iter().all(|n| accept(n.node)));
        assert!(found.is_sorted_by(|a, b| a > b));
        hits += found.iter().take(10).filter(|n| want.contains(&n.node)).count();
    }
    hits as f64 / 1000.0
}

fn assert_links_hold(graph: &Graph) {
    for node in 0..graph.held.len() as u32 {
        for level in 0..=graph.level(node) {
            let links = graph.links_of(node, level);
            assert!(links.len() <= graph.most_links(level));
            assert!(links.iter().all(|&n| n != node && graph.held[n as usize] && graph.level(n) >= level));
            assert!(graph.held[node as usize] || links.is_empty());
        }
    }
}

#[test]
fn nearly_all_true_neighbours_are_found() {
    let points = points(3000);
    let graph = built(&points);
    assert_links_hold(&graph);
    let found = recall(&graph, &points, |_| true);
    assert!(found > 0.97, "{found}");
}

#[test]
fn a_filter_is_kept_while_searching_and_costs_no_recall() {
    let points = points(3000);
    let graph = built(&points);
    let found = recall(&graph, &points, |n| n % 5 == 0);
    assert!(found > 0.97, "{found}");
}

#[test]
fn removed_nodes_are_gone_and_the_others_are_still_found() {
    let points = points(3000);
    let mut graph = built(&points);
    let between = |a: u32, b: u32| close(&points[a as usize], &points[b as usize]);
    let gone: Vec<u32> = (0..3000).filter(|n| n % 3 != 0).collect();
    for batch in gone.chunks(100) {
        graph.remove(batch, between);
        assert_links_hold(&graph);
    }
    assert_eq!(graph.len(), 1000);
    let left = recall(&graph, &points, |n| n % 3 == 0);
    assert!(left > 0.97, "{left}");
    // Their slots take new nodes.
    gone.iter().for_each(|&node| graph.insert(node, between));
    assert_links_hold(&graph);
    assert!(recall(&graph, &points, |_| true) > 0.97);
}

#[test]
fn a_graph_can_be_emptied_and_filled_again() {
    let points = points(50);
    let mut graph = built(&points);
    let between = |a: u32, b: u32| close(&points[a as usize], &points[b as usize]);
    let all: Vec<u32> = (0..50).collect();
    graph.remove(&all, between);
    graph.remove(&all, between);
    assert_eq!((graph.len(), graph.entry), (0, None));
    assert!(graph.search(5, |_| 0.0, |_| true).is_empty());
    graph.insert(7, between);
    assert_eq!(graph.search(5, |_| 0.0, |_| true).len(), 1);
}
