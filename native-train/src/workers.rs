//! Jobs of libtorch side by side on a CPU, one thread each.
//!
//! ATen shares every single operation out to all threads, which then meet before the next one. At
//! the sizes of a recommender that costs more than it brings: many operations are too small to be
//! shared, and what lies between two of them is too large for a cache. A job that stays on one
//! thread has neither trouble.

use std::collections::BTreeMap;
use std::panic::resume_unwind;
use std::sync::{Mutex, PoisonError};
use std::thread;

use tch::Device;

use crate::panics;

/// Does `work` with one thread of libtorch: a factorisation shares its sums out to threads, so its
/// last bits, and the signs of singular vectors, depend on how many there are.
pub(crate) fn on_one_torch_thread<R>(work: impl FnOnce() -> R) -> R {
    let threads = tch::get_num_threads();
    tch::set_num_threads(1);
    let result = work();
    tch::set_num_threads(threads);
    result
}

/// Does `work` on every job and returns the results in the order of the jobs; see [`backwards`].
pub(crate) fn map<J: Send, R: Send>(
    device: Device,
    jobs: Vec<J>,
    work: impl Fn(J) -> R + Sync,
) -> Vec<R> {
    let mut results = Vec::with_capacity(jobs.len());
    backwards(device, jobs, work, |result| results.push(result));
    results.reverse();
    results
}

/// Does `work` on every job, on as many threads as libtorch has, and gives `take` the results, the
/// last job's first: where jobs grow, none large is left to the end. Results are taken as soon as it
/// is their turn, so of jobs that take about as long, few wait. A GPU, which is shared out by
/// itself, gets one job after the other.
pub(crate) fn backwards<J: Send, R: Send>(
    device: Device,
    jobs: Vec<J>,
    work: impl Fn(J) -> R + Sync,
    mut take: impl FnMut(R) + Send,
) {
    let threads = (tch::get_num_threads().max(1) as usize).min(jobs.len());
    if threads < 2 || device != Device::Cpu {
        return jobs.into_iter().rev().for_each(|job| take(work(job)));
    }
    // With fewer jobs than threads, each job has several.
    let each = tch::get_num_threads() / threads as i32;
    let turns = Mutex::new(Turns { left: jobs.len(), waiting: BTreeMap::new(), take });
    let queue = Mutex::new(jobs.into_iter().enumerate().collect::<Vec<_>>());
    let next = || queue.lock().unwrap_or_else(PoisonError::into_inner).pop();
    let do_all = || {
        while let Some((number, job)) = next() {
            let result = work(job);
            turns.lock().unwrap_or_else(PoisonError::into_inner).add(number, result);
        }
    };
    let guard = panics::guard();
    thread::scope(|scope| {
        let do_share = || {
            guard.take_up();
            // Of this thread alone; the caller's stays.
            tch::set_num_threads(each);
            do_all();
        };
        let spawn = || thread::Builder::new().spawn_scoped(scope, do_share);
        // As many as the system grants.
        let workers: Vec<_> = (0..threads).map_while(|_| spawn().ok()).collect();
        if workers.is_empty() {
            do_all();
        }
        for worker in workers {
            // The caller sees the panic as if it had done the work itself.
            worker.join().unwrap_or_else(|panic| resume_unwind(panic));
        }
    });
}

/// Results that wait until all behind them have been taken.
struct Turns<R, T> {
    /// Results that have not been taken.
    left: usize,
    waiting: BTreeMap<usize, R>,
    take: T,
}

impl<R, T: FnMut(R)> Turns<R, T> {
    fn add(&mut self, number: usize, result: R) {
        self.waiting.insert(number, result);
        while let Some(result) = self.left.checked_sub(1).and_then(|at| self.waiting.remove(&at)) {
            (self.take)(result);
            self.left -= 1;
        }
    }
}

#[cfg(test)]
pub(crate) mod testing {
    /// What `work` gives with each of these numbers of threads of libtorch.
    pub(crate) fn with_threads<R, const N: usize>(
        threads: [i32; N],
        work: impl Fn() -> R,
    ) -> [R; N] {
        let before = tch::get_num_threads();
        let results = threads.map(|threads| {
            tch::set_num_threads(threads);
            work()
        });
        tch::set_num_threads(before);
        results
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::time::Duration;

    use tch::{Kind, Tensor};

    use super::*;

    #[test]
    fn results_come_in_the_order_of_the_jobs() {
        for count in [0, 1, 2, 3, 50] {
            let jobs: Vec<i64> = (0..count).collect();
            let squares = map(Device::Cpu, jobs, |i| Tensor::from(i).square().int64_value(&[]));
            assert_eq!(squares, (0..count).map(|i| i * i).collect::<Vec<_>>());
        }
    }

    #[test]
    fn results_are_taken_from_the_last_to_the_first_whichever_is_ready_first() {
        let mut order = Vec::new();
        let work = |job: u64| {
            thread::sleep(Duration::from_micros(300 * (job % 3)));
            job
        };
        backwards(Device::Cpu, (0..100).collect(), work, |job| order.push(job));
        assert_eq!(order, (0..100).rev().collect::<Vec<_>>());
    }

    #[test]
    fn the_caller_keeps_its_threads() {
        let before = tch::get_num_threads();
        let threads =
            map(Device::Cpu, vec![(); 8], |()| (thread::current().id(), tch::get_num_threads()));
        assert_eq!(tch::get_num_threads(), before);
        assert!(threads.iter().all(|&(_, each)| each == 1 || before == 1), "{threads:?}");
        let used: HashSet<_> = threads.iter().map(|(id, _)| id).collect();
        assert!(used.len() <= before.max(1) as usize);
    }

    #[test]
    fn what_libtorch_throws_in_a_worker_is_the_callers_error() {
        let torn = |rows| Tensor::ones([2, 3], (Kind::Float, Device::Cpu)).reshape([rows]);
        let all = |rows| panics::torch(|| map(Device::Cpu, rows, |rows| torn(rows).numel()));
        assert!(all(vec![6, 7, 6]).unwrap_err().contains("invalid for input of size 6"));
        assert_eq!(all(vec![6, 6]), Ok(vec![6, 6]));
    }
}
