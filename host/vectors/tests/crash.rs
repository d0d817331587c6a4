//! A process killed while it writes: nothing acknowledged is lost, nothing deleted comes back.

use serde_json::Map;
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;
use stockade_core::TenantId;
use stockade_core::registry::Registry;
use stockade_core::vectors::*;
use stockade_state::{Config, State};
use stockade_vectors::{Indexes, Settings};

const CHILD_FOLDER: &str = "STOCKADE_VECTORS_CRASH_FOLDER";
const ROUNDS: u64 = 12;
const IDS: u64 = 40;
/// Several rows an entry, so that a torn one would show.
const SETTINGS: IndexSettings = IndexSettings { dimensions: 3000, metric: Metric::Euclidean };

/// An entry whose every component is `n`, and its attribute too.
fn entry(id: u64, n: u64) -> Entry {
    let attributes = Map::from_iter([("n".to_string(), n.into())]);
    Entry { id: id.to_string(), vector: vec![n as f32; SETTINGS.dimensions as usize], attributes }
}

async fn open(folder: &Path) -> (Indexes, Arc<dyn VectorIndex>) {
    let state = Arc::new(State::open(folder, Config::default()).unwrap());
    let registry = Registry::new(state.clone(), state.blobs());
    registry.ensure_default_tenant().await.unwrap();
    let settings = Settings { exact_up_to: 20, ..Settings::default() };
    let indexes = Indexes::new(state, settings);
    let index = indexes.open(&TenantId::default_tenant(), "i", SETTINGS).await.unwrap();
    (indexes, index)
}

/// Adds, replaces and deletes until killed. Says what it will do and what is acknowledged: `+ id n`, `- id`, `ok`.
async fn write_until_killed(folder: &Path, from: u64) {
    let (_indexes, index) = open(folder).await;
    for n in from.. {
        let id = n * 7919 % IDS;
        if n % 4 == 0 {
            println!("- {id}");
            index.delete(vec![id.to_string()]).await.unwrap();
        } else {
            println!("+ {id} {n}");
            index.upsert(vec![entry(id, n)]).await.unwrap();
        }
        println!("ok");
    }
}

/// What may be there: the acknowledged number of an id (`None`: deleted), and the one under way at the kill.
#[derive(Default)]
struct Told {
    acknowledged: BTreeMap<u64, Option<u64>>,
    under_way: Option<(u64, Option<u64>)>,
    writes: u64,
}

impl Told {
    fn hear(&mut self, line: &str) {
        let numbers: Vec<u64> = line.split(' ').skip(1).filter_map(|n| n.parse().ok()).collect();
        match (line.chars().next(), numbers.as_slice()) {
            (Some('+'), [id, n]) => self.under_way = Some((*id, Some(*n))),
            (Some('-'), [id]) => self.under_way = Some((*id, None)),
            (Some('o'), _) => {
                let (id, n) = self.under_way.take().expect("ok comes after what it is for");
                self.acknowledged.insert(id, n);
                self.writes += 1;
            }
            _ => {}
        }
    }
}

#[tokio::test]
async fn nothing_acknowledged_is_lost_when_the_process_is_killed() {
    if let Some(folder) = std::env::var_os(CHILD_FOLDER) {
        let from = std::env::var("FROM").unwrap().parse().unwrap();
        return write_until_killed(Path::new(&folder), from).await;
    }
    let folder = tempfile::tempdir().unwrap();
    let mut told = Told::default();
    for round in 0..ROUNDS {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "--nocapture", "nothing_acknowledged_is_lost_when_the_process_is_killed"])
            .env(CHILD_FOLDER, folder.path())
            .env("FROM", (round * 100_000).to_string())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let enough = told.writes + 10 + round * 7 % 30;
        for line in lines.map_while(Result::ok) {
            told.hear(&line);
            if told.writes == enough && line == "ok" {
                // At another moment of the next write each time.
                std::thread::sleep(Duration::from_micros(round * 700));
                child.kill().unwrap();
            }
        }
        child.wait().unwrap();

        let (_indexes, index) = open(folder.path()).await;
        let all = Query { vector: vec![0.0; SETTINGS.dimensions as usize], limit: 1000, filter: None, exact: true };
        let found: BTreeMap<u64, u64> = index.search(all).await.unwrap().iter().map(number).collect();
        for id in 0..IDS {
            let got = found.get(&id).copied();
            let acknowledged = told.acknowledged.get(&id).copied().flatten();
            let under_way = told.under_way.filter(|(other, _)| *other == id).map(|(_, n)| n);
            assert!(got == acknowledged || Some(got) == under_way, "{id}: {got:?}, not {acknowledged:?} {under_way:?}");
            told.acknowledged.insert(id, got);
        }
        told.under_way = None;
    }
    assert!(told.writes > 100, "{} writes only", told.writes);
    println!("{} acknowledged writes over {ROUNDS} kills", told.writes);
}

/// The id and the number of an entry whose parts belong together: its distance to zero is the number times the root of D.
fn number(found: &Neighbour) -> (u64, u64) {
    let n = found.attributes["n"].as_u64().unwrap();
    let component = -f64::from(found.score) / f64::from(SETTINGS.dimensions).sqrt();
    assert!((component - n as f64).abs() <= 1e-4 * n as f64, "{component} under {n}");
    (found.id.parse().unwrap(), n)
}
