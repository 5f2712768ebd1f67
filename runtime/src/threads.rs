//! Threads that behave in a service: run inline, on a pool the caller passes in, or on a session's own small team.
//!
//! A *region* hands out the items of a slice, one at a time, to whatever threads are there, and returns when all are
//! done; it allocates nothing. The calling thread takes part and waits only for threads that have entered, so a thread
//! that the system has not woken yet (a busy machine) delays nothing. The own team is `n - 1` sleeping threads. Inside a
//! run a thread that has nothing to do waits actively for at most `spin` before it sleeps, because the regions of a run
//! follow each other within microseconds; between runs nothing spins. Threads are joined when the team is dropped.
//!
//! This is the only file of the crate with `unsafe`: the items and the closure of a region live on the caller's stack
//! and are reached by other threads through a raw pointer, which is sound because a region never returns (nor unwinds)
//! before every thread that entered it has left.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Most threads of a session.
pub const MAX_THREADS: usize = 64;

/// Where a session computes.
#[derive(Clone, Debug, Default)]
pub enum Threads {
    /// On the calling thread only.
    #[default]
    Inline,
    /// On the calling thread and `n - 1` threads of the session's own (at most [`MAX_THREADS`]).
    Own(usize),
    /// On the threads of this pool.
    Pool(Arc<rayon::ThreadPool>),
}

/// The threads of one session.
#[derive(Debug)]
pub(crate) enum Team {
    Inline,
    Own(OwnTeam),
    Pool(Arc<rayon::ThreadPool>),
}

impl Team {
    pub(crate) fn new(threads: &Threads, spin: Duration) -> io::Result<Team> {
        Ok(match threads {
            Threads::Inline | Threads::Own(0 | 1) => Team::Inline,
            Threads::Own(n) => Team::Own(OwnTeam::new((*n).min(MAX_THREADS), spin)?),
            Threads::Pool(pool) => Team::Pool(Arc::clone(pool)),
        })
    }

    /// Number of threads, at least 1.
    pub(crate) fn size(&self) -> usize {
        match self {
            Team::Inline => 1,
            Team::Own(team) => team.workers.len() + 1,
            Team::Pool(pool) => pool.current_num_threads().clamp(1, MAX_THREADS),
        }
    }

    /// Marks the beginning of a run: until the guard is dropped, idle threads of the own team wait actively.
    pub(crate) fn begin(&self) -> RunGuard<'_> {
        if let Team::Own(team) = self {
            team.shared.running.store(true, Ordering::Release);
        }
        RunGuard { team: self }
    }

    /// Calls `f(i, &mut items[i])` for every item, spread over the threads. Allocates nothing on the own team.
    /// A panic of `f` is raised again here.
    pub(crate) fn for_each<T: Send, F: Fn(usize, &mut T) + Sync>(&self, items: &mut [T], f: F) {
        match self {
            Team::Own(team) if items.len() > 1 => team.for_each(items, &f),
            Team::Pool(pool) if items.len() > 1 => {
                use rayon::iter::{
                    IndexedParallelIterator, IntoParallelRefMutIterator, ParallelIterator,
                };
                pool.install(|| {
                    items
                        .par_iter_mut()
                        .enumerate()
                        .for_each(|(i, item)| f(i, item))
                });
            }
            _ => items
                .iter_mut()
                .enumerate()
                .for_each(|(i, item)| f(i, item)),
        }
    }
}

/// Ends the active waiting of a run when dropped.
pub(crate) struct RunGuard<'a> {
    team: &'a Team,
}

impl Drop for RunGuard<'_> {
    fn drop(&mut self) {
        if let Team::Own(team) = self.team {
            team.shared.running.store(false, Ordering::Release);
        }
    }
}

/// `n - 1` sleeping threads and the calling one.
#[derive(Debug)]
pub(crate) struct OwnTeam {
    shared: Arc<Shared>,
    workers: Vec<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    /// A region has begun, or the team ends.
    start: Condvar,
    /// The last worker has left a region, or a worker has started.
    done: Condvar,
    /// Copy of `State::epoch` for active waiting.
    epoch: AtomicU64,
    /// Workers inside the current region. Rises under the lock while a job is published only.
    active: AtomicUsize,
    running: AtomicBool,
    panicked: AtomicBool,
    spin: Duration,
}

#[derive(Debug, Default)]
struct State {
    /// Number of regions so far.
    epoch: u64,
    /// The region that workers may enter.
    job: Option<Job>,
    /// Workers asleep on `start`.
    sleepers: usize,
    started: usize,
    shutdown: bool,
}

/// A region as the workers see it.
#[derive(Clone, Copy, Debug)]
struct Job {
    call: unsafe fn(*const ()),
    data: *const (),
}

// SAFETY: `data` points at a `Region<T, F>` with `T: Send` and `F: Sync`, whose items are handed out once each;
// `OwnTeam::for_each` keeps the region alive until every worker that entered it has left.
unsafe impl Send for Job {}

struct Region<'a, T, F> {
    items: *mut T,
    len: usize,
    /// The next item nobody has taken.
    next: AtomicUsize,
    f: &'a F,
}

/// Processes items of a region until none is left.
///
/// # Safety
/// `data` points at a live `Region<T, F>` whose items are live and reached through it only.
unsafe fn call<T: Send, F: Fn(usize, &mut T) + Sync>(data: *const ()) {
    // SAFETY: the caller passes a live region of these types.
    let region = unsafe { &*data.cast::<Region<'_, T, F>>() };
    loop {
        let i = region.next.fetch_add(1, Ordering::Relaxed);
        if i >= region.len {
            return;
        }
        // SAFETY: `i < len`, and the counter gives every index to one thread only.
        let item = unsafe { &mut *region.items.add(i) };
        (region.f)(i, item);
    }
}

impl OwnTeam {
    fn new(threads: usize, spin: Duration) -> io::Result<OwnTeam> {
        let shared = Arc::new(Shared {
            state: Mutex::default(),
            start: Condvar::new(),
            done: Condvar::new(),
            epoch: AtomicU64::new(0),
            active: AtomicUsize::new(0),
            running: AtomicBool::new(false),
            panicked: AtomicBool::new(false),
            spin,
        });
        let mut team = OwnTeam {
            shared,
            workers: Vec::with_capacity(threads - 1),
        };
        for thread in 1..threads {
            let shared = Arc::clone(&team.shared);
            // Kernels keep their blocks in the session's buffers, so a small stack is enough.
            let builder = std::thread::Builder::new()
                .name(format!("dcz-{thread}"))
                .stack_size(512 << 10);
            // When a spawn fails, dropping `team` stops the threads that exist.
            team.workers.push(builder.spawn(move || work(&shared))?);
        }
        // No run pays for the start of a thread.
        let mut state = team.shared.lock();
        while state.started < team.workers.len() {
            state = team
                .shared
                .done
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
        drop(state);
        Ok(team)
    }

    fn for_each<T: Send, F: Fn(usize, &mut T) + Sync>(&self, items: &mut [T], f: &F) {
        let region = Region {
            items: items.as_mut_ptr(),
            len: items.len(),
            next: AtomicUsize::new(0),
            f,
        };
        let data = (&raw const region).cast::<()>();
        let shared = &*self.shared;
        let sleepers = {
            let mut state = shared.lock();
            state.job = Some(Job {
                call: call::<T, F>,
                data,
            });
            state.epoch += 1;
            shared.epoch.store(state.epoch, Ordering::Release);
            state.sleepers
        };
        if sleepers > 0 {
            shared.start.notify_all();
        }
        // SAFETY: the region lives on this stack frame until `close` below has seen every worker leave it.
        let own = catch_unwind(AssertUnwindSafe(|| unsafe { call::<T, F>(data) }));
        shared.close();
        let worker_panicked = shared.panicked.swap(false, Ordering::AcqRel);
        match own {
            Err(payload) => resume_unwind(payload),
            Ok(()) if worker_panicked => resume_unwind(Box::new("a worker thread panicked")),
            Ok(()) => {}
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        // The state is plain data that is consistent between any two statements.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets no further worker into the region and waits, actively at first, for those inside. A worker that the
    /// system has not woken yet is not waited for.
    fn close(&self) {
        self.lock().job = None;
        if self.spin_until(|| self.active.load(Ordering::Acquire) == 0) {
            return;
        }
        let mut state = self.lock();
        while self.active.load(Ordering::Acquire) != 0 {
            state = self
                .done
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Waits actively while a run is on, for at most `spin`; says whether the condition came true.
    fn spin_until(&self, condition: impl Fn() -> bool) -> bool {
        if condition() {
            return true;
        }
        if self.spin.is_zero() || !self.running.load(Ordering::Acquire) {
            return false;
        }
        let begin = Instant::now();
        loop {
            for _ in 0..64 {
                if condition() {
                    return true;
                }
                std::hint::spin_loop();
            }
            if !self.running.load(Ordering::Acquire) || begin.elapsed() >= self.spin {
                return condition();
            }
        }
    }
}

fn work(shared: &Shared) {
    let mut seen = 0;
    shared.lock().started += 1;
    shared.done.notify_one();
    loop {
        shared.spin_until(|| shared.epoch.load(Ordering::Acquire) != seen);
        let job = {
            let mut state = shared.lock();
            while state.epoch == seen && !state.shutdown {
                state.sleepers += 1;
                state = shared
                    .start
                    .wait(state)
                    .unwrap_or_else(PoisonError::into_inner);
                state.sleepers -= 1;
            }
            if state.shutdown {
                return;
            }
            seen = state.epoch;
            if state.job.is_some() {
                shared.active.fetch_add(1, Ordering::AcqRel);
            }
            state.job
        };
        let Some(Job { call, data }) = job else {
            continue;
        };
        // SAFETY: this thread entered while the job was published, under the lock, so `close` waits for it before the
        // region ends.
        let result = catch_unwind(AssertUnwindSafe(|| unsafe { call(data) }));
        if result.is_err() {
            shared.panicked.store(true, Ordering::Release);
        }
        if shared.active.fetch_sub(1, Ordering::AcqRel) == 1 {
            // Taking the lock orders this notification after the caller's check of `active`.
            drop(shared.lock());
            shared.done.notify_one();
        }
    }
}

impl Drop for OwnTeam {
    fn drop(&mut self) {
        self.shared.lock().shutdown = true;
        self.shared.start.notify_all();
        for worker in self.workers.drain(..) {
            // Workers catch panics of the jobs they run, so joining cannot fail for a reason that matters here.
            let _ = worker.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_item_once() {
        for threads in [Threads::Inline, Threads::Own(2), Threads::Own(5)] {
            let team = Team::new(&threads, Duration::from_micros(20)).unwrap();
            for round in 0..200 {
                let _run = (round % 2 == 0).then(|| team.begin());
                let mut items = vec![0usize; round % 9];
                team.for_each(&mut items, |i, item| *item += i + 1);
                assert!(items.iter().enumerate().all(|(i, &item)| item == i + 1));
            }
        }
    }

    #[test]
    fn passed_in_pool() {
        let pool = Arc::new(
            rayon::ThreadPoolBuilder::new()
                .num_threads(3)
                .build()
                .unwrap(),
        );
        let team = Team::new(&Threads::Pool(pool), Duration::ZERO).unwrap();
        assert_eq!(team.size(), 3);
        let mut items = [0usize; 7];
        team.for_each(&mut items, |i, item| *item = i);
        assert_eq!(items, [0, 1, 2, 3, 4, 5, 6]);
    }

    #[test]
    fn panic_is_raised_and_team_survives() {
        let team = Team::new(&Threads::Own(3), Duration::ZERO).unwrap();
        for bad in 0..3 {
            let result = catch_unwind(AssertUnwindSafe(|| {
                team.for_each(&mut [0; 3], |i, _| assert_ne!(i, bad, "on purpose"));
            }));
            assert!(result.is_err());
            let mut items = [0; 3];
            team.for_each(&mut items, |_, item| *item = 1);
            assert_eq!(items, [1; 3]);
        }
    }
}
