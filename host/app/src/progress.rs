//! Progress of long work on stderr: a bar on a terminal, a line now and then elsewhere.

use crate::output::is_interactive;
use indicatif::{ProgressBar, ProgressStyle};
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// How often a line is written where there is no terminal.
const LINE_EVERY: Duration = Duration::from_secs(5);

/// One piece of work that moves bytes. Its methods may be called from any thread.
pub struct Progress {
    what: String,
    bar: Option<ProgressBar>,
    last_line: Mutex<Instant>,
}

impl Progress {
    pub fn new(what: impl Into<String>) -> Self {
        let what = what.into();
        let bar = is_interactive().then(|| {
            let bar = ProgressBar::new(0).with_message(what.clone());
            let template = "{msg} [{wide_bar}] {bytes}/{total_bytes} {bytes_per_sec} {eta}";
            ProgressStyle::with_template(template).map(|style| bar.set_style(style.progress_chars("=> "))).ok();
            bar
        });
        Self { what, bar, last_line: Mutex::new(Instant::now()) }
    }

    pub fn set(&self, done: u64, total: Option<u64>) {
        if let Some(bar) = &self.bar {
            bar.set_length(total.unwrap_or(done));
            bar.set_position(done);
            return;
        }
        let Ok(mut last) = self.last_line.try_lock() else { return };
        if last.elapsed() >= LINE_EVERY {
            *last = Instant::now();
            let of = total.map(|t| format!(" of {}", t >> 20)).unwrap_or_default();
            eprintln!("{}: {}{of} MiB", self.what, done >> 20);
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
