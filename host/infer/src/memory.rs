//! How much memory models may take, and what one model needs: weights, rows, logits, and the rest for KV pages.

use crate::settings::Settings;
use stockade_model::decoder::{DecoderSpec, PAGE_TOKENS};

/// Left to the host and its components: one fifth.
const MODELS_SHARE: (u64, u64) = (4, 5);

/// What a model takes; `pages` are what the limit leaves, at most what was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MemoryPlan {
    pub pages: usize,
    pub bytes: u64,
}

/// A model that does not fit, with the sum.
#[derive(Debug, Clone, Default, PartialEq, Eq, thiserror::Error)]
#[error(
    "needs {total} bytes of memory and {available} are left: {weights} weights + {rows} rows of a step + {logits} logits + \
     {kv} keys and values for {kv_tokens} tokens"
)]
pub struct DoesNotFit {
    pub available: u64,
    pub total: u64,
    pub weights: u64,
    pub rows: u64,
    pub logits: u64,
    pub kv: u64,
    pub kv_tokens: u64,
}

/// Splits what is left for a model. It is refused when not even `least_tokens` of KV fit.
pub fn plan(
    spec: &DecoderSpec,
    settings: &Settings,
    want_tokens: usize,
    least_tokens: usize,
    available: u64,
) -> Result<MemoryPlan, DoesNotFit> {
    let product = |a: usize, b: usize| (a as u64).saturating_mul(b as u64);
    let weights = spec.weight_bytes as u64;
    let rows = product(spec.row_bytes, settings.max_step_tokens.max(settings.max_running));
    // The engine's copy and the sampler's scratch of a row.
    let logits = product(spec.vocab * 4, settings.max_running + settings.score_rows + 2);
    let fixed = weights.saturating_add(rows).saturating_add(logits);
    let least = least_tokens.min(want_tokens).div_ceil(PAGE_TOKENS).max(1);
    let kv = product(spec.page_bytes, least);
    let total = fixed.saturating_add(kv);
    if total > available {
        let kv_tokens = product(least, PAGE_TOKENS);
        return Err(DoesNotFit { available, total, weights, rows, logits, kv, kv_tokens });
    }
    let fit = (available - fixed) / (spec.page_bytes.max(1) as u64);
    let pages = want_tokens.div_ceil(PAGE_TOKENS).max(1).min(usize::try_from(fit).unwrap_or(usize::MAX));
    Ok(MemoryPlan { pages, bytes: fixed + product(spec.page_bytes, pages) })
}

/// Bytes that models may take on this machine: a share of the smallest of physical memory and the limits of the control
/// groups this process is in.
pub fn machine_limit() -> u64 {
    let physical = read("/proc/meminfo").and_then(|text| meminfo(&text, "MemTotal:")).unwrap_or(4 << 30);
    let groups = read("/proc/self/cgroup").unwrap_or_default();
    let limit =
        group_files(&groups).iter().filter_map(|path| read(path)?.trim().parse::<u64>().ok()).min().unwrap_or(u64::MAX);
    physical.min(limit) / MODELS_SHARE.1 * MODELS_SHARE.0
}

/// Bytes that this machine has left now, by its own account and by those of this process's control groups.
pub fn left_now() -> u64 {
    let machine = read("/proc/meminfo").and_then(|text| meminfo(&text, "MemAvailable:")).unwrap_or(u64::MAX);
    let groups = read("/proc/self/cgroup").unwrap_or_default();
    let number = |path: &str| read(path)?.trim().parse::<u64>().ok();
    let left = group_files(&groups).into_iter().filter_map(|limit| {
        let used = limit.replace("memory.max", "memory.current").replace("limit_in_bytes", "usage_in_bytes");
        Some(number(&limit)?.saturating_sub(number(&used)?))
    });
    left.min().unwrap_or(u64::MAX).min(machine)
}

fn read(path: &str) -> Option<String> {
    std::fs::read_to_string(path).ok()
}

/// A line of `/proc/meminfo` in bytes.
fn meminfo(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

/// The files that hold the limits of a process's control groups (version 2 and 1), from `/proc/self/cgroup`.
fn group_files(groups: &str) -> Vec<String> {
    let mut files =
        vec!["/sys/fs/cgroup/memory.max".to_owned(), "/sys/fs/cgroup/memory/memory.limit_in_bytes".to_owned()];
    for line in groups.lines() {
        let mut fields = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(path)) = (fields.next(), fields.next()) else {
            continue;
        };
        if controllers.is_empty() {
            files.push(format!("/sys/fs/cgroup{path}/memory.max"));
        } else if controllers.split(',').any(|c| c == "memory") {
            files.push(format!("/sys/fs/cgroup/memory{path}/memory.limit_in_bytes"));
        }
    }
    files
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec() -> DecoderSpec {
        DecoderSpec { vocab: 100, context_tokens: 1024, page_bytes: 1000, weight_bytes: 50_000, row_bytes: 10 }
    }

    #[test]
    fn pages_get_what_is_left_and_a_model_that_cannot_fit_is_refused_with_the_sum() {
        let settings = Settings { max_step_tokens: 100, max_running: 10, score_rows: 8, ..Settings::default() };
        let fixed = 50_000 + 10 * 100 + 400 * 20;
        let all = plan(&spec(), &settings, 320, 32, 1_000_000).unwrap();
        assert_eq!(all, MemoryPlan { pages: 10, bytes: fixed + 10_000 });
        let some = plan(&spec(), &settings, 320, 32, fixed + 3_500).unwrap();
        assert_eq!(some, MemoryPlan { pages: 3, bytes: fixed + 3_000 });
        let refused = plan(&spec(), &settings, 320, 32, fixed + 999).unwrap_err();
        assert_eq!((refused.total, refused.available), (fixed + 1_000, fixed + 999));
        assert_eq!(refused.weights + refused.rows + refused.logits + refused.kv, refused.total);
    }

    #[test]
    fn limits_are_read_from_both_versions_of_control_groups() {
        assert_eq!(meminfo("MemFree: 1 kB\nMemTotal:       24 kB\n", "MemTotal:"), Some(24 << 10));
        assert!(left_now() > 1 << 20);
        let files = group_files("0::/a/b\n5:cpu,memory:/c\n6:pids:/d\n");
        assert!(files.contains(&"/sys/fs/cgroup/a/b/memory.max".to_owned()));
        assert!(files.contains(&"/sys/fs/cgroup/memory/c/memory.limit_in_bytes".to_owned()));
        assert_eq!(files.len(), 4);
        assert!(machine_limit() > 1 << 20);
    }
}
