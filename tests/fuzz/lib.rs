//! What every fuzz target does: give a file to a reader, and fail if it panics, or takes more
//! memory or time than a file of this size may.

pub use libfuzzer_sys;
pub use tigret_tests::readers::Reader;

/// The target of the reader of that name.
#[macro_export]
macro_rules! target {
    ($name:literal) => {
        // The fuzzer calls from one thread.
        thread_local! {
            static READER: $crate::Reader = $crate::Reader::open($name).expect("a reader");
        }

        $crate::libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
            READER.with(|reader| reader.read($name, bytes));
        });
    };
}
