use super::*;
use std::collections::BTreeMap;
use stockade_core::vectors::Metric;

const INDEX: IndexSettings = IndexSettings { dimensions: 2, metric: Metric::Euclidean };

/// Slots and their rows, as `Contents` has them.
#[derive(Default)]
struct Plain(BTreeMap<u32, Row>);

impl Plain {
    fn slots(&self) -> Vec<u32> {
        self.0.keys().copied().collect()
    }
    fn put(&mut self, graphs: &mut Graphs, slot: u32, x: f32) {
        if self.0.insert(slot, Row::from([x, 0.0])).is_some() {
            graphs.remove(&[slot]);
        }
        graphs.add(slot);
    }
    fn build(&self, graphs: &mut Graphs) {
        graphs.build(|| self.slots(), |slot| self.0.get(&slot).cloned()).unwrap();
    }
    fn build_all(&self, graphs: &mut Graphs) {
        while !graphs.is_built() {
            self.build(graphs);
        }
    }
    /// Each graph holds or waits for every slot, once.
    fn check(&self, graphs: &Graphs) {
        for growing in [Some(&graphs.serving), graphs.successor.as_ref()].into_iter().flatten() {
            assert_eq!(growing.slots(), self.0.len());
            let held = growing.graph.search(&[0.0, 0.0], 2 * self.0.len() + 1, |_| true).unwrap();
            let mut all: Vec<u32> = held.iter().chain(&growing.waiting).copied().collect();
            all.sort_unstable();
            assert_eq!(all, self.slots());
        }
    }
}

fn graphs(plain: &Plain) -> Graphs {
    Graphs::new(INDEX, Settings::default(), plain.slots()).unwrap()
}

#[test]
fn a_graph_half_of_removed_nodes_is_replaced_while_it_serves() {
    let mut plain = Plain((0..300).map(|n| (n, Row::from([n as f32, 0.0]))).collect());
    let mut graphs = graphs(&plain);
    plain.build_all(&mut graphs);
    for slot in 0..160 {
        plain.put(&mut graphs, slot, slot as f32 + 0.5);
    }
    assert!(!graphs.is_built());
    let spare = graphs.spare_bytes(8, 100);
    assert_eq!(spare, 160 * 108);
    while graphs.successor.as_ref().is_none_or(|s| s.graph.len() < 100) {
        plain.build(&mut graphs);
    }
    let (serving, waiting) = graphs.serving();
    assert_eq!((serving.len(), waiting.len()), (300, 0), "the old one serves whole");
    plain.check(&graphs);
    plain.build_all(&mut graphs);
    assert_eq!((graphs.serving().0.len(), graphs.spare_bytes(8, 100)), (300, 0));
    plain.check(&graphs);
}

#[test]
fn memory_is_bounded_however_fast_slots_are_replaced() {
    let mut plain = Plain::default();
    let mut graphs = graphs(&plain);
    (0..200).for_each(|slot| plain.put(&mut graphs, slot, slot as f32));
    plain.build_all(&mut graphs);
    let mut most = 0;
    for n in 0..20_000u32 {
        // One build for one write: the builder never gets ahead.
        plain.put(&mut graphs, n * 7919 % 200, n as f32);
        plain.build(&mut graphs);
        most = most.max(graphs.spare_bytes(1, 0));
    }
    assert!(most > 100, "it was replaced");
    assert!(most <= 2 * 200, "{most} removed");
    plain.build_all(&mut graphs);
    plain.check(&graphs);
}
