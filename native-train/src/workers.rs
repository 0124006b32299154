//! Jobs of libtorch side by side on a CPU, one thread each.
//!
//! ATen shares every single operation out to all threads, which then meet before the next one. At
//! the sizes of a recommender that costs more than it brings: many operations are too small to be
//! shared, and what lies between two of them is too large for a cache. A job that stays on one
//! thread has neither trouble.

use std::panic::resume_unwind;
use std::sync::{Mutex, PoisonError};
use std::thread;

use tch::Device;

use crate::panics;

/// Does `work` on every job, on as many threads as libtorch has, and returns the results in the
/// order of the jobs. The last jobs are begun first: where jobs grow, none large is left to the end.
/// A GPU, which is shared out by itself, gets one job after the other.
pub(crate) fn map<J: Send, R: Send>(
    device: Device,
    jobs: Vec<J>,
    work: impl Fn(J) -> R + Sync,
) -> Vec<R> {
    let threads = (tch::get_num_threads().max(1) as usize).min(jobs.len());
    if threads < 2 || device != Device::Cpu {
        return jobs.into_iter().map(work).collect();
    }
    // With fewer jobs than threads, each job has several.
    let each = tch::get_num_threads() / threads as i32;
    let mut results: Vec<Option<R>> = jobs.iter().map(|_| None).collect();
    let queue = Mutex::new(jobs.into_iter().zip(&mut results).collect::<Vec<_>>());
    let next = || queue.lock().unwrap_or_else(PoisonError::into_inner).pop();
    let guard = panics::guard();
    thread::scope(|scope| {
        let workers: Vec<_> = (0..threads)
            .map(|_| {
                scope.spawn(|| {
                    guard.take_up();
                    // Of this thread alone; the caller's stays.
                    tch::set_num_threads(each);
                    while let Some((job, result)) = next() {
                        *result = Some(work(job));
                    }
                })
            })
            .collect();
        for worker in workers {
            // The caller sees the panic as if it had done the work itself.
            worker.join().unwrap_or_else(|panic| resume_unwind(panic));
        }
    });
    drop(queue);
    // No worker has panicked, so the queue is empty and every job has left its result.
    results.into_iter().flatten().collect()
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

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
