//! Activation memory that is used again from pass to pass: mapping and zeroing it anew costs a tenth of a step.

use std::ops::{Deref, DerefMut};
use std::sync::{Arc, Mutex};

/// Buffers that wait for their next use. At most as many as were ever in use at once.
#[derive(Debug, Clone, Default)]
pub(super) struct Buffers {
    idle: Arc<Mutex<Vec<Vec<f32>>>>,
}

/// f32 values that go back to their [`Buffers`] when dropped.
#[derive(Debug)]
pub(super) struct Buffer {
    values: Vec<f32>,
    home: Buffers,
}

impl Buffers {
    /// `len` values, whatever they were last: for those who write all of them.
    pub(super) fn take(&self, len: usize) -> Buffer {
        let mut values = {
            let mut idle = self.idle.lock().unwrap_or_else(|e| e.into_inner());
            let fit = (0..idle.len()).filter(|&i| idle[i].capacity() >= len).min_by_key(|&i| idle[i].capacity());
            match fit {
                Some(i) => idle.swap_remove(i),
                None => {
                    // One that is too small makes room, so that passes that grow do not pile them up.
                    idle.pop();
                    Vec::new()
                }
            }
        };
        if values.capacity() < len {
            values = vec![0.0; len];
        } else {
            values.resize(len, 0.0);
        }
        Buffer { values, home: self.clone() }
    }

    /// `len` zeros.
    pub(super) fn zeros(&self, len: usize) -> Buffer {
        let mut buffer = self.take(len);
        buffer.fill(0.0);
        buffer
    }
}

impl Deref for Buffer {
    type Target = [f32];

    fn deref(&self) -> &[f32] {
        &self.values
    }
}

impl DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut [f32] {
        &mut self.values
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        let values = std::mem::take(&mut self.values);
        self.home.idle.lock().unwrap_or_else(|e| e.into_inner()).push(values);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_come_back_and_do_not_pile_up() {
        let buffers = Buffers::default();
        for n in 1..50 {
            let (a, b) = (buffers.take(n * 10), buffers.zeros(n * 20));
            assert_eq!((a.len(), b.len()), (n * 10, n * 20));
            assert!(b.iter().all(|&x| x == 0.0));
        }
        assert!(buffers.idle.lock().unwrap().len() <= 2);
    }
}
