//! The worker threads that share one operation: a region of numbered tasks, run by whoever is free.
//!
//! One pool serves all models. The calling thread works too and is never idle while tasks are left; helpers
//! *join* a region if they are awake in time, and a region ends without those that never joined. So a helper
//! that sleeps, or that the system gave no core, costs nothing but its own help. Nothing is allocated per
//! region. Which worker runs which task is left open on purpose: results may not depend on it.

use std::any::Any;
use std::cell::UnsafeCell;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::thread::{JoinHandle, Thread};
use std::time::{Duration, Instant};

/// How long an idle helper spins before it starts to yield its core. Regions of one decode step follow
/// each other within this time; spinning longer starves other processes on a small machine.
const SPIN: Duration = Duration::from_micros(50);
/// How long an idle helper yields before it parks.
const YIELD: Duration = Duration::from_micros(200);
/// More threads than this help no product here.
const MAX_WORKERS: usize = 256;

/// Bit of the gate that says helpers may join.
const OPEN: u64 = 1 << 31;

/// A fixed set of worker threads, the caller of [`Pool::run`] among them.
pub struct Pool {
    shared: Arc<Shared>,
    helpers: Vec<JoinHandle<()>>,
    threads: Vec<Thread>,
}

type Task<'a> = dyn Fn(usize) + Sync + 'a;

struct Shared {
    /// High half: number of the region. Then [`OPEN`], then how many helpers joined.
    gate: AtomicU64,
    /// A region is running; a second caller runs its own tasks alone.
    busy: AtomicBool,
    next: AtomicUsize,
    finished: AtomicUsize,
    sleepers: AtomicUsize,
    stop: AtomicBool,
    region: UnsafeCell<Region>,
    panic: std::sync::Mutex<Option<Box<dyn Any + Send>>>,
}

struct Region {
    task: Option<*const Task<'static>>,
    tasks: usize,
}

// SAFETY: `region` is written only by the holder of `busy` while the gate is closed and no helper is inside,
// and read by helpers only between joining through the open gate and counting themselves finished.
unsafe impl Sync for Shared {}
// SAFETY: the task pointer is used only while the caller of `run` keeps the borrow behind it alive.
unsafe impl Send for Shared {}

impl Pool {
    /// Starts `workers - 1` helper threads; `workers` is cut to 1..=256. A thread the system refuses is
    /// left out.
    pub fn new(workers: usize) -> Self {
        let shared = Arc::new(Shared {
            gate: AtomicU64::new(0),
            busy: AtomicBool::new(false),
            next: AtomicUsize::new(0),
            finished: AtomicUsize::new(0),
            sleepers: AtomicUsize::new(0),
            stop: AtomicBool::new(false),
            region: UnsafeCell::new(Region { task: None, tasks: 0 }),
            panic: std::sync::Mutex::new(None),
        });
        let helpers: Vec<_> = (1..workers.clamp(1, MAX_WORKERS))
            .map_while(|id| {
                let shared = Arc::clone(&shared);
                std::thread::Builder::new().name(format!("compute-{id}")).spawn(move || shared.help()).ok()
            })
            .collect();
        let threads = helpers.iter().map(|helper| helper.thread().clone()).collect();
        Self { shared, helpers, threads }
    }

    /// The number of workers that suits this machine: the cores it may use, hyper-threads not counted.
    pub fn default_workers() -> usize {
        let usable = std::thread::available_parallelism().map_or(1, usize::from);
        physical_cores().map_or(usable, |cores| cores.min(usable))
    }

    /// Workers of this pool, the caller included.
    pub fn workers(&self) -> usize {
        self.helpers.len() + 1
    }

    /// Calls `task(i)` once for every `i` in `0..tasks`, spread over the workers, and returns when all are done.
    ///
    /// A call from inside a task, or while another thread runs a region, runs its tasks on the calling
    /// thread alone.
    ///
    /// # Panics
    /// Passes on the panic of a task after every worker has left the region; tasks not yet begun are skipped.
    pub fn run(&self, tasks: usize, task: &(dyn Fn(usize) + Sync)) {
        let alone = tasks <= 1 || self.helpers.is_empty();
        if alone || self.shared.busy.swap(true, Ordering::Acquire) {
            (0..tasks).for_each(task);
            return;
        }
        let shared = &*self.shared;
        // SAFETY: only the lifetime is erased; every helper has left the region before `run` returns.
        let task_pointer = unsafe { std::mem::transmute::<&Task<'_>, &'static Task<'static>>(task) };
        // SAFETY: `busy` is ours, the gate is closed and the last region's helpers have all finished.
        unsafe { *shared.region.get() = Region { task: Some(task_pointer), tasks } };
        shared.next.store(0, Ordering::Relaxed);
        shared.finished.store(0, Ordering::Relaxed);
        let number = (shared.gate.load(Ordering::Relaxed) >> 32).wrapping_add(1);
        shared.gate.store(number << 32 | OPEN, Ordering::SeqCst);
        if shared.sleepers.load(Ordering::SeqCst) > 0 {
            self.threads.iter().for_each(Thread::unpark);
        }

        let outcome = shared.work(task, tasks);

        let joined = (shared.gate.fetch_and(!OPEN, Ordering::AcqRel) & (OPEN - 1)) as usize;
        let mut wait = Wait::new();
        while shared.finished.load(Ordering::Acquire) != joined {
            wait.pause();
        }
        let helper_panic = shared.panic.lock().unwrap_or_else(|e| e.into_inner()).take();
        shared.busy.store(false, Ordering::Release);
        if let Some(panic) = outcome.err().or(helper_panic) {
            resume_unwind(panic);
        }
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        self.threads.iter().for_each(Thread::unpark);
        for helper in self.helpers.drain(..) {
            // A helper never panics outside `catch_unwind`; there is nothing to do about it here if it did.
            let _ = helper.join();
        }
    }
}

impl std::fmt::Debug for Pool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pool").field("workers", &self.workers()).finish()
    }
}

impl Shared {
    /// Takes tasks until none is left; a panic ends the region for everybody.
    fn work(&self, task: &Task<'_>, tasks: usize) -> Result<(), Box<dyn Any + Send>> {
        catch_unwind(AssertUnwindSafe(|| {
            loop {
                let i = self.next.fetch_add(1, Ordering::Relaxed);
                if i >= tasks {
                    break;
                }
                task(i);
            }
        }))
        .inspect_err(|_| self.next.store(tasks, Ordering::Relaxed))
    }

    /// The life of a helper thread.
    fn help(&self) {
        let mut wait = Wait::new();
        let mut last = 0;
        while !self.stop.load(Ordering::Relaxed) {
            let gate = self.gate.load(Ordering::Acquire);
            if gate & OPEN != 0 && gate >> 32 != last {
                if self.gate.compare_exchange_weak(gate, gate + 1, Ordering::AcqRel, Ordering::Relaxed).is_ok() {
                    last = gate >> 32;
                    self.join_region();
                    wait = Wait::new();
                }
            } else if wait.pause() {
                self.park(last);
                wait = Wait::new();
            }
        }
    }

    fn join_region(&self) {
        // SAFETY: joined through the open gate, so the caller waits for `finished` before it changes the region.
        let (task, tasks) = unsafe { ((*self.region.get()).task, (*self.region.get()).tasks) };
        if let Some(task) = task {
            // SAFETY: `run` keeps the closure borrowed until this helper has counted itself finished.
            let outcome = self.work(unsafe { &*task }, tasks);
            if let Err(panic) = outcome {
                *self.panic.lock().unwrap_or_else(|e| e.into_inner()) = Some(panic);
            }
        }
        self.finished.fetch_add(1, Ordering::Release);
    }

    fn park(&self, last: u64) {
        self.sleepers.fetch_add(1, Ordering::SeqCst);
        let gate = self.gate.load(Ordering::SeqCst);
        let nothing_to_do = gate & OPEN == 0 || gate >> 32 == last;
        if nothing_to_do && !self.stop.load(Ordering::SeqCst) {
            std::thread::park();
        }
        self.sleepers.fetch_sub(1, Ordering::SeqCst);
    }
}

/// Spins, then yields, then says that it is time to park.
struct Wait {
    since: Option<Instant>,
    rounds: u32,
}

impl Wait {
    fn new() -> Self {
        Self { since: None, rounds: 0 }
    }

    /// One short pause; true once spinning and yielding have lasted long enough.
    fn pause(&mut self) -> bool {
        self.rounds = self.rounds.wrapping_add(1);
        if !self.rounds.is_multiple_of(16) {
            std::hint::spin_loop();
            return false;
        }
        let waited = self.since.get_or_insert_with(Instant::now).elapsed();
        if waited > SPIN {
            std::thread::yield_now();
        }
        waited > SPIN + YIELD
    }
}

/// Distinct (package, core) pairs of /proc/cpuinfo; `None` where the file does not tell.
fn physical_cores() -> Option<usize> {
    let text = std::fs::read_to_string("/proc/cpuinfo").ok()?;
    let mut cores = std::collections::BTreeSet::new();
    let mut package = 0;
    for line in text.lines() {
        let Some((key, value)) = line.split_once(':') else {
            continue;
        };
        match (key.trim(), value.trim().parse::<u32>()) {
            ("physical id", Ok(id)) => package = id,
            ("core id", Ok(id)) => drop(cores.insert((package, id))),
            _ => {}
        }
    }
    (!cores.is_empty()).then_some(cores.len())
}

/// A slice whose disjoint parts are written by different tasks of one region.
pub(crate) struct Shards<'a, T> {
    start: *mut T,
    len: usize,
    borrow: std::marker::PhantomData<&'a mut [T]>,
}

// SAFETY: access goes only through `range`, whose caller promises disjoint parts.
unsafe impl<T: Send> Sync for Shards<'_, T> {}

impl<'a, T> Shards<'a, T> {
    pub fn new(slice: &'a mut [T]) -> Self {
        Self { start: slice.as_mut_ptr(), len: slice.len(), borrow: std::marker::PhantomData }
    }

    /// The elements `first..first + len`.
    ///
    /// # Safety
    /// No two live results may overlap.
    #[allow(clippy::mut_from_ref, reason = "that is the purpose: disjoint parts, by the caller's promise")]
    pub unsafe fn range(&self, first: usize, len: usize) -> &'a mut [T] {
        assert!(first <= self.len && len <= self.len - first, "shard outside its slice");
        // SAFETY: inside the slice by the assertion, not aliased by the caller's promise.
        unsafe { std::slice::from_raw_parts_mut(self.start.add(first), len) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_task_runs_once_for_any_number_of_workers() {
        for workers in [1, 2, 3, 8] {
            let pool = Pool::new(workers);
            for tasks in [0, 1, 2, 7, 500] {
                let counts: Vec<AtomicUsize> = (0..tasks).map(|_| AtomicUsize::new(0)).collect();
                pool.run(tasks, &|i| {
                    counts[i].fetch_add(1, Ordering::Relaxed);
                });
                assert!(counts.iter().all(|n| n.load(Ordering::Relaxed) == 1), "{workers} workers, {tasks} tasks");
            }
        }
    }

    #[test]
    fn helpers_take_part_and_wake_after_parking() {
        let pool = Pool::new(2);
        std::thread::sleep(Duration::from_millis(20));
        let names = std::sync::Mutex::new(std::collections::BTreeSet::new());
        pool.run(8, &|_| {
            names.lock().unwrap().insert(std::thread::current().name().map(String::from));
            std::thread::sleep(Duration::from_millis(10));
        });
        assert_eq!(names.into_inner().unwrap().len(), 2);
    }

    #[test]
    fn panic_of_any_worker_reaches_the_caller_and_the_pool_lives_on() {
        let pool = Pool::new(3);
        for bad in [0, 5, 63] {
            let caught = catch_unwind(AssertUnwindSafe(|| {
                pool.run(64, &|i| assert_ne!(i, bad, "planned"));
            }));
            assert!(caught.is_err());
            let sum = AtomicUsize::new(0);
            pool.run(10, &|i| {
                sum.fetch_add(i, Ordering::Relaxed);
            });
            assert_eq!(sum.into_inner(), 45);
        }
    }

    #[test]
    fn regions_of_callers_that_take_turns_never_mix_with_more_workers_than_cores() {
        let pool = Pool::new(9);
        std::thread::scope(|scope| {
            for caller in 0..3usize {
                let pool = &pool;
                scope.spawn(move || {
                    // Plain writes: a task that ran for another region, twice or not at all leaves a wrong number.
                    let mut numbers = vec![0; 40];
                    for round in 0..3000usize {
                        let tasks = 1 + (round * 7 + caller) % 40;
                        let shards = Shards::new(&mut numbers);
                        pool.run(tasks, &|i| {
                            // SAFETY: each task has an element of its own.
                            unsafe { shards.range(i, 1)[0] += caller * 1_000_000 + round * tasks + i };
                        });
                        for (i, number) in numbers.iter_mut().enumerate() {
                            let want = if i < tasks { caller * 1_000_000 + round * tasks + i } else { 0 };
                            assert_eq!(std::mem::take(number), want, "caller {caller}, region {round}, task {i}");
                        }
                    }
                });
            }
        });
    }

    #[test]
    fn nested_and_concurrent_regions_finish() {
        let pool = Pool::new(2);
        let count = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| {
                    for _ in 0..200 {
                        pool.run(4, &|_| {
                            pool.run(3, &|_| {
                                count.fetch_add(1, Ordering::Relaxed);
                            })
                        });
                    }
                });
            }
        });
        assert_eq!(count.into_inner(), 3 * 200 * 12);
    }
}
