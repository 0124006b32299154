//! Libraries that give up with a panic: what they say becomes an error like any other.

use std::any::Any;
use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind, set_hook, take_hook};
use std::sync::Once;

/// Whether a panic with this message is the library's way to report an error.
type IsError = fn(&str) -> bool;

thread_local! {
    /// What the step in which this thread is takes for an error.
    static GUARD: Cell<Option<IsError>> = const { Cell::new(None) };
}

/// Runs a step, and returns the message of a panic that is an error, without the lines that a
/// panic prints. Any other panic goes on.
pub(crate) fn caught<T>(is_error: IsError, step: impl FnOnce() -> T) -> Result<T, String> {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let usual = take_hook();
        set_hook(Box::new(move |panic| {
            if !GUARD.get().is_some_and(|is_error| is_error(message(panic.payload()))) {
                usual(panic);
            }
        }));
    });
    let outer = GUARD.replace(Some(is_error));
    let result = catch_unwind(AssertUnwindSafe(step));
    GUARD.set(outer);
    result.map_err(|panic| match message(&*panic) {
        text if is_error(text) => text.to_owned(),
        _ => resume_unwind(panic),
    })
}

/// [`caught`], for a step whose work rayon spreads over its threads.
pub(crate) fn caught_on_all_threads<T>(
    is_error: IsError,
    step: impl FnOnce() -> T,
) -> Result<T, String> {
    let on_each = |guard: Guard| drop(rayon::broadcast(|_| guard.take_up()));
    on_each(Guard(Some(is_error)));
    let result = caught(is_error, step);
    on_each(Guard(None));
    result
}

/// What the thread's present step takes for an error, for the threads that help it.
#[derive(Clone, Copy)]
pub(crate) struct Guard(Option<IsError>);

/// Of this thread.
pub(crate) fn guard() -> Guard {
    Guard(GUARD.get())
}

impl Guard {
    /// Takes the same for an error in this thread, whose panics go to the one that it helps.
    pub(crate) fn take_up(self) {
        GUARD.set(self.0);
    }
}

fn message(payload: &(dyn Any + Send)) -> &str {
    let text = payload.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| payload.downcast_ref::<&str>().copied()).unwrap_or_default()
}

/// Begins what `tch` panics with where libtorch throws: its operators exist as functions that
/// return the error too, but then no formula could be read.
const TORCH: &str = "on an `Err` value: Torch(\"";

/// Runs a step that computes with libtorch.
///
/// # Errors
/// What libtorch said when it gave up, which is mostly that there is no memory left.
pub(crate) fn torch<T>(step: impl FnOnce() -> T) -> Result<T, String> {
    caught(|message| message.contains(TORCH), step).map_err(|message| {
        let said = message.split_once(TORCH).map_or(message.as_str(), |(_, said)| said);
        // In the panic the message stands as Rust writes a string.
        torch_sentence(&said.trim_end_matches("\")").replace("\\n", "\n").replace("\\\"", "\""))
    })
}

/// The first line of libtorch's message; the others are its stack.
pub(crate) fn torch_sentence(said: &str) -> String {
    let line = said.lines().next().unwrap_or_default();
    let has_no_memory = ["out of memory", "can't allocate memory"];
    if has_no_memory.iter().any(|words| line.contains(words)) {
        return format!(
            "out of memory; free some and go on (a training with --resume), or begin anew with a lower \
             --batch or a smaller model: {line}"
        );
    }
    line.to_owned()
}

#[cfg(test)]
mod tests {
    use tch::{Kind, Tensor};

    use super::*;

    #[test]
    fn what_libtorch_throws_is_an_error_of_one_line() {
        let said = torch(|| Tensor::ones([2, 3], (Kind::Float, tch::Device::Cpu)).reshape([7]));
        let said = said.unwrap_err();
        assert!(said.contains("invalid for input of size 6") && !said.contains('\n'), "{said}");
        assert!(!said.contains("\\n") && said.len() < 200, "{said}");
    }

    #[test]
    fn memory_that_is_not_there_is_said_with_a_remedy() {
        let said = torch(|| Tensor::zeros([1 << 20, 1 << 28], (Kind::Float, tch::Device::Cpu)));
        let said = said.unwrap_err();
        assert!(said.starts_with("out of memory; free some"), "{said}");
        // The words of PyTorch's allocator on a GPU.
        let cuda = "CUDA out of memory. Tried to allocate 2.00 GiB.\nException raised from malloc";
        let said = torch_sentence(cuda);
        assert!(said.starts_with("out of memory; free some"), "{said}");
        assert!(said.ends_with("CUDA out of memory. Tried to allocate 2.00 GiB."), "{said}");
    }

    #[test]
    fn our_own_panics_go_on() {
        let outcome = catch_unwind(|| torch(|| panic!("an invariant is broken")));
        assert_eq!(message(&*outcome.unwrap_err()), "an invariant is broken");
    }

    #[test]
    fn what_threads_of_rayon_give_up_with_is_an_error_too() {
        let said = caught_on_all_threads(
            |_| true,
            || rayon::scope(|scope| scope.spawn(|_| panic!("damaged"))),
        );
        assert_eq!(said.unwrap_err(), "damaged");
        assert!(rayon::broadcast(|_| guard().0.is_none()).into_iter().all(|none| none));
    }

    #[test]
    fn a_guard_in_a_guard_ends_with_its_step() {
        let outer = torch(|| {
            assert!(caught(|_| true, || panic!("damaged")).is_err());
            Tensor::from_slice(&[1.0f32]).reshape([2])
        });
        assert!(outer.is_err());
    }
}
