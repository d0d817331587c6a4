//! Activation memory that is used again from pass to pass: mapping and zeroing it anew costs a tenth of a step.

use std::ops::{Deref, DerefMut};
use std::sync::{Arc, Mutex};

use super::product::Line;

/// Buffers that wait for their next use. At most as many as were ever in use at once.
#[derive(Clone, Default)]
pub(super) struct Buffers {
    idle: Arc<Mutex<Vec<Vec<Line>>>>,
}

/// f32 values, aligned to 64 bytes, that go back to their [`Buffers`] when dropped.
pub(super) struct Buffer {
    lines: Vec<Line>,
    len: usize,
    home: Buffers,
}

impl Buffers {
    /// `len` values, whatever they were last: for those who write all of them.
    pub(super) fn take(&self, len: usize) -> Buffer {
        let needed = len.div_ceil(16);
        let mut lines = {
            let mut idle = self.idle.lock().unwrap_or_else(|e| e.into_inner());
            let fit = (0..idle.len()).filter(|&i| idle[i].len() >= needed).min_by_key(|&i| idle[i].len());
            match fit {
                Some(i) => idle.swap_remove(i),
                None => {
                    // One that is too small makes room, so that passes that grow do not pile them up.
                    idle.pop();
                    Vec::new()
                }
            }
        };
        if lines.len() < needed {
            lines = vec![Line([0.0; 16]); needed];
        }
        Buffer { lines, len, home: self.clone() }
    }

    /// Bytes of all that is idle.
    #[cfg(test)]
    pub(super) fn idle_bytes(&self) -> u64 {
        let idle = self.idle.lock().unwrap_or_else(|e| e.into_inner());
        idle.iter().map(|lines| size_of_val(lines.as_slice()) as u64).sum()
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
        // SAFETY: a line is 16 values without gaps, and there are enough of them.
        unsafe { std::slice::from_raw_parts(self.lines.as_ptr().cast(), self.len) }
    }
}

impl DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut [f32] {
        // SAFETY: as above.
        unsafe { std::slice::from_raw_parts_mut(self.lines.as_mut_ptr().cast(), self.len) }
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        let lines = std::mem::take(&mut self.lines);
        self.home.idle.lock().unwrap_or_else(|e| e.into_inner()).push(lines);
    }
}

impl std::fmt::Debug for Buffers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Buffers").finish_non_exhaustive()
    }
}

impl std::fmt::Debug for Buffer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Buffer").field("len", &self.len).finish_non_exhaustive()
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
