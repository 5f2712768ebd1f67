//! Threads that behave in a service: run inline, on a pool the caller passes in, or on a session's own small team.
//!
//! A run is one parallel *region* (`Team::region`), with all its steps and bands in it. Within it the calling thread
//! goes through the program and publishes *phases* (`Team::for_each`): the items of a slice, taken one at a time by
//! whatever threads are there, thread i beginning with item i, so that rows stay in the cache of the core that made
//! them. A phase ends when all its items are done. What is serial (moving the windows of a band,
//! cutting maps into parts) the calling thread does between two phases, because the items and what they borrow live on
//! its stack. Threads of the own team wake up once, at the first phase of a region, and then go from phase to phase: a
//! phase costs a few stores to publish it and two atomic operations per item, no lock, and nothing is allocated.
//!
//! * The calling thread waits only for items that somebody has begun. A thread that the system has not woken yet (a
//!   busy machine) delays nothing: the calling thread does all items itself, and the late one joins at the phase that
//!   is on when it comes.
//! * A thread with nothing to do waits actively for at most `spin`, because phases follow each other within
//!   microseconds, then it sleeps; with `spin` zero it sleeps at once. Between regions nothing spins.
//! * With a rayon pool the region enters the pool once and phases are joins of rayon inside it. Threads do not wait for
//!   each other at barriers there: a pool's thread may be busy with other work of the application and never come. The
//!   price is rayon's: a thread that waits for the end of a phase may take a foreign job of the pool first.
//!
//! This is the only file of the crate with `unsafe`: the items and the closure of a phase live on the caller's stack and
//! are reached by other threads through a raw pointer. The protocol that makes it sound is described at `Shared`.

use std::any::Any;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicU64, AtomicUsize, Ordering};
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

    /// Calls `f` as one parallel region: phases within it find the threads awake.
    pub(crate) fn region<R: Send>(&self, f: impl FnOnce() -> R + Send) -> R {
        match self {
            Team::Inline => f(),
            Team::Own(team) => {
                let _open = Open::new(&team.shared);
                f()
            }
            Team::Pool(pool) => pool.install(f),
        }
    }

    /// One phase: calls `f(i, &mut items[i])` for every item, spread over the threads. Allocates nothing on the own
    /// team. A panic of `f` is raised again here. A phase within an item of another one, one that comes while another
    /// thread's is on, and one of more than [`MAX_THREADS`] items run on the calling thread.
    pub(crate) fn for_each<T: Send, F: Fn(usize, &mut T) + Sync>(&self, items: &mut [T], f: F) {
        match self {
            Team::Own(team) if items.len() > 1 => team.for_each(items, &f),
            Team::Pool(pool) if items.len() > 1 => {
                pool.install(|| halves(0, items, &f));
            }
            _ => inline(items, &f),
        }
    }
}

/// All items on the threads of the current rayon pool, `first` being the number of the first one.
fn halves<T: Send, F: Fn(usize, &mut T) + Sync>(first: usize, items: &mut [T], f: &F) {
    if let [item] = items {
        return f(first, item);
    }
    let (low, high) = items.split_at_mut(items.len() / 2);
    let second = first + low.len();
    rayon::join(|| halves(first, low, f), || halves(second, high, f));
}

/// All items on the calling thread.
fn inline<T, F: Fn(usize, &mut T)>(items: &mut [T], f: &F) {
    for (i, item) in items.iter_mut().enumerate() {
        f(i, item);
    }
}

/// An open region: idle threads wait actively until it is dropped.
struct Open<'a>(&'a Shared);

impl Open<'_> {
    fn new(shared: &Shared) -> Open<'_> {
        shared.open.store(true, Ordering::Release);
        Open(shared)
    }
}

impl Drop for Open<'_> {
    fn drop(&mut self) {
        self.0.open.store(false, Ordering::Release);
    }
}

/// `n - 1` sleeping threads and the calling one.
#[derive(Debug)]
pub(crate) struct OwnTeam {
    shared: Arc<Shared>,
    workers: Vec<JoinHandle<()>>,
}

/// What the threads of a team share.
///
/// `ticket` is the number of the phase that is on, or was the last one. Item i may be taken in phase n while its slot
/// holds n. To take it a thread reads the ticket (acquire), then `phase`, and exchanges the slot's n for zero. Item 0 is
/// the calling thread's. That thread ends a phase when `unfinished` is zero (acquire; every finished item lowers it,
/// release). From this follows:
///
/// * A thread that has taken an item of phase n has the pointer of phase n. Not an older one: `phase` is written before
///   ticket n (release), which the thread has read (acquire). Not a newer one: `phase` changes only after `unfinished`
///   was seen as zero, hence after this item is finished, and its end comes after the read. Numbers do not come again (64
///   bits), so that the exchange fails for a thread that slept through a phase.
/// * What it points at is alive until the item is finished, because the calling thread waits for that before it leaves
///   [`OwnTeam::for_each`], panicking or not. Thereafter the thread touches only this structure, which it owns a share of.
/// * No two threads take the same item, since only one exchange of n for zero succeeds.
/// * What one phase writes, the next one sees: finished items (release), `unfinished` (acquire) in the calling thread, its
///   ticket (release), the ticket in other threads (acquire).
/// * Nobody sleeps through work. A thread that goes to sleep counts itself in `sleepers`, then looks at the ticket; the
///   calling thread writes the ticket, then looks at `sleepers`; all four are sequentially consistent, so one of them
///   sees the other. The lock is held from counting until the wait begins and is taken before the notification, so the
///   notification does not come between. The same with `waiting` and `unfinished` the other way round.
#[derive(Debug)]
struct Shared {
    current: Line<Current>,
    /// Items of it that are not finished.
    unfinished: Line<AtomicUsize>,
    /// The calling thread sleeps until they are.
    waiting: AtomicBool,
    panicked: AtomicBool,
    /// A region is open.
    open: AtomicBool,
    /// A phase is on.
    busy: AtomicBool,
    /// Workers asleep on `start`.
    sleepers: Line<AtomicUsize>,
    state: Mutex<State>,
    /// There are items, or the team ends.
    start: Condvar,
    /// The last item is finished, or a worker has started.
    done: Condvar,
    spin: Duration,
}

/// What threads look at to find work.
#[derive(Debug)]
struct Current {
    ticket: AtomicU64,
    /// The phase that is on; dangling between phases.
    phase: AtomicPtr<Head>,
    /// How many items it has, or a later one: a bound for who looks for some.
    items: AtomicUsize,
    /// One per item. The first few share a line with the ticket.
    slots: [AtomicU64; MAX_THREADS],
}

/// Starts a line of the cache, so that what threads wait for does not share one with what others write.
#[derive(Debug, Default)]
#[repr(align(64))]
struct Line<T>(T);

#[derive(Debug, Default)]
struct State {
    started: usize,
    shutdown: bool,
}

/// What threads know of a phase without knowing its types.
#[derive(Debug)]
struct Head {
    /// Computes item `i`; see [`item`].
    call: unsafe fn(*const Head, usize),
}

#[repr(C)]
struct Phase<'a, T, F> {
    head: Head,
    items: *mut T,
    f: &'a F,
}

/// Computes item `i` of a phase.
///
/// # Safety
/// `phase` points at the head of a live `Phase<T, F>`, whose items are live and reached through it only, and no other
/// call has or gets the same item `i`, which exists.
unsafe fn item<T: Send, F: Fn(usize, &mut T) + Sync>(phase: *const Head, i: usize) {
    // SAFETY: the caller passes a live phase of these types; the head is its first field (`repr(C)`).
    let phase = unsafe { &*phase.cast::<Phase<'_, T, F>>() };
    // SAFETY: the item exists, and nobody else has it.
    let item = unsafe { &mut *phase.items.add(i) };
    (phase.f)(i, item);
}

impl OwnTeam {
    fn new(threads: usize, spin: Duration) -> io::Result<OwnTeam> {
        let shared = Arc::new(Shared {
            current: Line(Current {
                ticket: AtomicU64::new(0),
                phase: AtomicPtr::new(ptr::null_mut()),
                items: AtomicUsize::new(0),
                slots: [const { AtomicU64::new(0) }; MAX_THREADS],
            }),
            unfinished: Line::default(),
            waiting: AtomicBool::new(false),
            panicked: AtomicBool::new(false),
            open: AtomicBool::new(false),
            busy: AtomicBool::new(false),
            sleepers: Line::default(),
            state: Mutex::default(),
            start: Condvar::new(),
            done: Condvar::new(),
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
            team.workers
                .push(builder.spawn(move || work(&shared, thread))?);
        }
        // No run pays for the start of a thread.
        let mut state = team.shared.lock();
        while state.started < team.workers.len() {
            state = wait(&team.shared.done, state);
        }
        drop(state);
        Ok(team)
    }

    fn for_each<T: Send, F: Fn(usize, &mut T) + Sync>(&self, items: &mut [T], f: &F) {
        let shared = &*self.shared;
        if items.is_empty() || items.len() > MAX_THREADS || !shared.enter() {
            return inline(items, f);
        }
        let phase = Phase {
            head: Head { call: item::<T, F> },
            items: items.as_mut_ptr(),
            f,
        };
        // SAFETY: the phase lives on this frame, and `enter` has left it to this call alone.
        unsafe { shared.run((&raw const phase).cast(), items.len()) };
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        // The state is plain data that is consistent between any two statements.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins a phase unless one is on. All items of earlier ones are finished then.
    fn enter(&self) -> bool {
        !self.busy.swap(true, Ordering::Acquire)
    }

    /// A whole phase of so many items, from `enter` on. A panic of an item is raised when all are finished.
    ///
    /// # Safety
    /// `phase` is the head of a live phase with so many items, at least one and at most [`MAX_THREADS`], that nobody else
    /// runs, and `enter` has allowed it.
    unsafe fn run(&self, phase: *const Head, items: usize) {
        let number = self.publish(phase, items);
        // Nothing leaves this frame before `finish` returns: panics of items are caught.
        // SAFETY: item 0 can be taken here only; the phase lives.
        let panic = unsafe { self.compute(phase, 0) }.or(self.take_all(number, 1));
        self.finish();
        let worker_panicked = self.panicked.swap(false, Ordering::Relaxed);
        self.busy.store(false, Ordering::Release);
        match panic {
            Some(payload) => resume_unwind(payload),
            None if worker_panicked => resume_unwind(Box::new("a worker thread panicked")),
            None => {}
        }
    }

    /// Hands out the items of a phase but the first. Its number.
    fn publish(&self, phase: *const Head, items: usize) -> u64 {
        let current = &self.current.0;
        let number = current.ticket.load(Ordering::Relaxed) + 1;
        current.phase.store(phase.cast_mut(), Ordering::Relaxed);
        current.items.store(items, Ordering::Relaxed);
        for slot in current.slots.iter().take(items).skip(1) {
            slot.store(number, Ordering::Relaxed);
        }
        self.unfinished.0.store(items, Ordering::Relaxed);
        current.ticket.store(number, Ordering::SeqCst);
        let sleepers = self.sleepers.0.load(Ordering::SeqCst);
        if sleepers > 0 {
            drop(self.lock());
            if items > sleepers {
                self.start.notify_all();
            } else {
                (1..items).for_each(|_| self.start.notify_one());
            }
        }
        number
    }

    /// Computes item `i`. What it panicked with.
    ///
    /// # Safety
    /// The caller has taken this item of the phase that `phase` points at.
    unsafe fn compute(&self, phase: *const Head, i: usize) -> Option<Panic> {
        // SAFETY: the phase lives until `unfinished` is lowered below, and nobody else has this item (see `Shared`).
        let outcome = catch_unwind(AssertUnwindSafe(|| unsafe { ((*phase).call)(phase, i) }));
        if outcome.is_err() {
            self.panicked.store(true, Ordering::Relaxed);
        }
        let last = self.unfinished.0.fetch_sub(1, Ordering::SeqCst) == 1;
        if last && self.waiting.load(Ordering::SeqCst) {
            drop(self.lock());
            self.done.notify_one();
        }
        outcome.err()
    }

    /// Takes items of phase `number`, which the ticket has shown, and computes them, until there is none, from item
    /// `first` on; the first panic, all items being computed nevertheless.
    fn take_all(&self, number: u64, first: usize) -> Option<Panic> {
        let current = &self.current.0;
        let phase = current.phase.load(Ordering::Relaxed);
        let items = current.items.load(Ordering::Relaxed);
        let mut panic = None;
        for i in (first..items).chain(1..first.min(items)) {
            let take = |slot: &AtomicU64| {
                // Looks first: a look leaves the line to the others.
                slot.load(Ordering::Relaxed) == number
                    && slot
                        .compare_exchange(number, 0, Ordering::Acquire, Ordering::Relaxed)
                        .is_ok()
            };
            if current.slots.get(i).is_some_and(take) {
                // SAFETY: this thread has taken the item, so `phase` belongs to it (see `Shared`).
                panic = panic.or(unsafe { self.compute(phase, i) });
            }
        }
        panic
    }

    /// Waits, actively at first, until all items are finished.
    fn finish(&self) {
        if self.spin_until(|| self.unfinished.0.load(Ordering::Acquire) == 0) {
            return;
        }
        let mut state = self.lock();
        self.waiting.store(true, Ordering::SeqCst);
        while self.unfinished.0.load(Ordering::SeqCst) != 0 {
            state = wait(&self.done, state);
        }
        self.waiting.store(false, Ordering::Relaxed);
    }

    /// Waits actively while a region is open, for at most `spin`; says whether the condition came true.
    fn spin_until(&self, condition: impl Fn() -> bool) -> bool {
        if condition() {
            return true;
        }
        if self.spin.is_zero() || !self.open.load(Ordering::Acquire) {
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
            if !self.open.load(Ordering::Acquire) || begin.elapsed() >= self.spin {
                return condition();
            }
        }
    }
}

type Panic = Box<dyn Any + Send>;

fn wait<'a>(condvar: &Condvar, guard: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
    condvar.wait(guard).unwrap_or_else(PoisonError::into_inner)
}

/// The life of thread `own` of a team.
fn work(shared: &Shared, own: usize) {
    let ticket = &shared.current.0.ticket;
    let mut seen = 0;
    shared.lock().started += 1;
    shared.done.notify_one();
    loop {
        if !shared.spin_until(|| ticket.load(Ordering::Relaxed) != seen) {
            let mut state = shared.lock();
            shared.sleepers.0.fetch_add(1, Ordering::SeqCst);
            while ticket.load(Ordering::SeqCst) == seen && !state.shutdown {
                state = wait(&shared.start, state);
            }
            shared.sleepers.0.fetch_sub(1, Ordering::SeqCst);
            if state.shutdown {
                return;
            }
        }
        seen = ticket.load(Ordering::Acquire);
        // The calling thread learns of panics from `panicked`.
        drop(shared.take_all(seen, own));
    }
}

impl Drop for OwnTeam {
    fn drop(&mut self) {
        self.shared.lock().shutdown = true;
        self.shared.start.notify_all();
        for worker in self.workers.drain(..) {
            // Workers catch panics of the items they compute, so joining cannot fail for a reason that matters here.
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
            let round = |round: usize| {
                let mut items = vec![0usize; round % 9];
                team.for_each(&mut items, |i, item| *item += i + 1);
                assert!(items.iter().enumerate().all(|(i, &item)| item == i + 1));
            };
            (0..200).for_each(round);
            team.region(|| (0..200).for_each(round));
        }
    }

    /// Thousands of phases that each read what all items of the one before wrote: none may be missed, done twice or seen
    /// too early, whether threads wait actively, sleep after every phase, or are many more than processors.
    #[test]
    fn phases_see_each_other() {
        const LEN: usize = 24;
        let expected = |phases: usize| {
            let mut values = [1u64; LEN];
            for phase in 0..phases {
                let sum = values.iter().fold(0u64, |a, &v| a.rotate_left(5) ^ v);
                for (i, value) in values.iter_mut().enumerate().take(phase % (LEN + 1)) {
                    *value = value.wrapping_mul(31).wrapping_add(sum ^ i as u64);
                }
            }
            values
        };
        for (threads, spin, phases) in [
            (2, 0, 2000),
            (2, 50, 20_000),
            (3, 1, 5000),
            (16, 0, 500),
            (16, 100, 500),
            (MAX_THREADS, 5, 200),
        ] {
            let team = Team::new(&Threads::Own(threads), Duration::from_micros(spin)).unwrap();
            for _ in 0..3 {
                let mut values = [1u64; LEN];
                team.region(|| {
                    for phase in 0..phases {
                        let sum = values.iter().fold(0u64, |a, &v| a.rotate_left(5) ^ v);
                        let items = &mut values[..phase % (LEN + 1)];
                        team.for_each(items, |i, value| {
                            *value = value.wrapping_mul(31).wrapping_add(sum ^ i as u64);
                        });
                    }
                });
                assert_eq!(values, expected(phases), "{threads} threads, spin {spin}");
            }
        }
    }

    #[test]
    fn caller_alone_and_a_late_thread() {
        // A team whose threads never come.
        let mut team = OwnTeam::new(1, Duration::from_micros(20)).unwrap();
        for round in 0..100 {
            let mut items = vec![0; round % 5];
            team.for_each(&mut items, &|i, item: &mut usize| *item = i + 1);
            assert!(items.iter().enumerate().all(|(i, &item)| item == i + 1));
        }
        // One comes while the first item is computed, and takes the second.
        let (late, joined) = (Mutex::new(None), AtomicBool::new(false));
        let own = std::thread::current().id();
        team.for_each(&mut [0; 2], &|i, _: &mut i32| {
            if i == 0 {
                let shared = Arc::clone(&team.shared);
                *late.lock().unwrap() = Some(std::thread::spawn(move || work(&shared, 1)));
                while !joined.load(Ordering::Acquire) {
                    std::thread::yield_now();
                }
            } else {
                assert_ne!(std::thread::current().id(), own);
                joined.store(true, Ordering::Release);
            }
        });
        team.workers.extend(late.into_inner().unwrap());
    }

    #[test]
    fn phase_within_a_phase() {
        let team = Team::new(&Threads::Own(3), Duration::from_micros(20)).unwrap();
        let mut sums = [0usize; 8];
        team.region(|| {
            team.for_each(&mut sums, |i, sum| {
                let mut inner = [0usize; 4];
                team.for_each(&mut inner, |j, item| *item = i * j);
                *sum = inner.iter().sum();
            });
        });
        assert_eq!(sums, [0, 6, 12, 18, 24, 30, 36, 42]);
    }

    #[test]
    fn callers_at_once() {
        let team = Team::new(&Threads::Own(3), Duration::ZERO).unwrap();
        std::thread::scope(|scope| {
            for caller in 0..4usize {
                let team = &team;
                scope.spawn(move || {
                    for round in 0..500 {
                        let mut items = [0usize; 7];
                        team.for_each(&mut items, |i, item| *item = caller + round + i);
                        assert_eq!(items, std::array::from_fn(|i| caller + round + i));
                    }
                });
            }
        });
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
        let mut region = || team.for_each(&mut items, |i, item| *item = i);
        region();
        team.region(region);
        assert_eq!(items, [0, 1, 2, 3, 4, 5, 6]);
    }

    #[test]
    fn panic_is_raised_and_team_survives() {
        let team = Team::new(&Threads::Own(3), Duration::ZERO).unwrap();
        for bad in 0..3 {
            let mut done = [0; 3];
            let result = catch_unwind(AssertUnwindSafe(|| {
                team.region(|| {
                    team.for_each(&mut done, |i, item| {
                        assert_ne!(i, bad, "on purpose");
                        *item = 1;
                    });
                });
            }));
            assert!(result.is_err());
            let expected: [i32; 3] = std::array::from_fn(|i| i32::from(i != bad));
            assert_eq!(done, expected);
            let mut items = [0; 3];
            team.for_each(&mut items, |_, item| *item = 1);
            assert_eq!(items, [1; 3]);
        }
    }
}
