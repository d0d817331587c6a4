//! Makes rows of numbers and their squares, as many as the job asks for: `{"rows": 100}`.

use std::rc::Rc;
use stockade_guest::prelude::*;

#[derive(Deserialize)]
struct Plugin {}

#[derive(Deserialize)]
struct Spec {
    rows: u64,
}

struct Squares(std::ops::Range<u64>);

impl Generator for Plugin {
    fn rows(self: Rc<Self>, spec: Value) -> Result<Box<dyn Rows>> {
        let spec = Spec::deserialize(spec)?;
        Ok(Box::new(Squares(0..spec.rows)))
    }
}

impl Rows for Squares {
    fn next(&mut self) -> Result<Option<Vec<Value>>> {
        let row = |n: u64| json!({"number": n, "square": n.wrapping_mul(n)});
        let batch: Vec<Value> = self.0.by_ref().take(100).map(row).collect();
        Ok(if batch.is_empty() { None } else { Some(batch) })
    }
}

stockade_guest::export!(Plugin as generator);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_many_rows_come_as_the_job_asks_for() {
        let plugin = testing::plugin::<Plugin>(json!({})).unwrap();
        let mut rows = plugin.rows(json!({"rows": 150})).unwrap();
        let sizes: Vec<usize> = std::iter::from_fn(|| rows.next().unwrap()).map(|batch| batch.len()).collect();
        assert_eq!(sizes, [100, 50]);
    }
}
