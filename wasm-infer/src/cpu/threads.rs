//! Work on rows, shared out to threads where there are any: natively, but not in a page.
//!
//! Rows do not depend on each other, so the result does not depend on the number of threads.

use std::sync::{Mutex, MutexGuard, PoisonError};

use tigret_kernels::ROWS;

/// Fewest rows that are worth a thread.
const LEAST: usize = 2 * ROWS;

/// Threads that share the work: `RAYON_NUM_THREADS`, or the machine's processors.
pub(super) fn count() -> usize {
    #[cfg(not(target_arch = "wasm32"))]
    return rayon::current_num_threads();
    #[cfg(target_arch = "wasm32")]
    1
}

/// Memory of work that is over, for work to come: as much as is in use at once, and no more.
#[derive(Debug, Default)]
pub(super) struct Idle<T>(Mutex<Vec<T>>);

impl<T: Default> Idle<T> {
    pub(super) fn take(&self) -> T {
        self.list().pop().unwrap_or_default()
    }

    pub(super) fn give_back(&self, memory: T) {
        self.list().push(memory);
    }

    /// It is whole whenever it can be looked at.
    fn list(&self) -> MutexGuard<'_, Vec<T>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Runs work that calls [`by_rows`] many times, on a thread of the pool.
pub(super) fn enter<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    #[cfg(not(target_arch = "wasm32"))]
    return rayon::scope(|_| work());
    #[cfg(target_arch = "wasm32")]
    work()
}

/// What `work` makes of each of `all`, in order.
pub(super) fn map<A: Sync, B: Send>(all: &[A], work: impl Fn(&A) -> B + Send + Sync) -> Vec<B> {
    #[cfg(not(target_arch = "wasm32"))]
    let mapped = {
        use rayon::prelude::*;
        all.par_iter().with_max_len(1).map(work).collect()
    };
    #[cfg(target_arch = "wasm32")]
    let mapped = all.iter().map(work).collect();
    mapped
}

/// Calls `work(first row, part of the buffer, scratch)` for parts of the rows of a buffer, `width`
/// numbers each, with one of `scratch` a part, of which there is one a thread.
pub(super) fn by_rows<S: Send>(
    buffer: &mut [f32],
    width: usize,
    scratch: &mut [S],
    work: impl Fn(usize, &mut [f32], &mut S) + Sync,
) {
    let rows = buffer.len() / width;
    // Whole tiles for all but the last.
    let part = rows.div_ceil(scratch.len()).next_multiple_of(ROWS).max(LEAST);
    #[cfg(not(target_arch = "wasm32"))]
    if rows > part {
        use rayon::prelude::*;
        let parts = buffer.par_chunks_mut(part * width).zip(scratch).enumerate().with_max_len(1);
        parts.for_each(|(index, (buffer, scratch))| work(index * part, buffer, scratch));
        return;
    }
    // Few rows, or the one thread of a page.
    debug_assert!(rows <= part, "one scratch takes all rows");
    work(0, buffer, &mut scratch[0]);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_is_worked_on_once_by_a_scratch_of_its_own() {
        for (rows, threads) in [(1, 1), (1, 4), (9, 2), (50, 2), (50, 3), (7, 16), (100, 5)] {
            let mut buffer = vec![0.0; rows * 3];
            let mut scratch = vec![0; threads];
            enter(|| {
                by_rows(&mut buffer, 3, &mut scratch, |first, part, calls| {
                    *calls += 1;
                    for (row, values) in part.chunks_exact_mut(3).enumerate() {
                        values.iter_mut().for_each(|v| *v += (first + row + 1) as f32);
                    }
                });
            });
            let expected = (0..rows).flat_map(|row| [(row + 1) as f32; 3]);
            assert!(buffer.iter().copied().eq(expected), "{rows} rows, {threads} threads");
            assert!(scratch.iter().all(|&calls| calls <= 1));
        }
    }
}
