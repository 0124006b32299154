//! The fuzz target: gives each file to the reader that `TIGRET_READER` names, and fails if it panics,
//! or takes more memory or time than a file of this size may.

#![no_main]

use libfuzzer_sys::fuzz_target;
use tigret_tests::readers::Reader;

// The fuzzer calls from one thread.
thread_local! {
    static READER: Reader = named();
}

fn named() -> Reader {
    let name = std::env::var("TIGRET_READER").unwrap_or_default();
    Reader::open(&name).unwrap_or_else(|sentence| {
        eprintln!("TIGRET_READER: {sentence}");
        std::process::exit(2)
    })
}

fuzz_target!(init: READER.with(|_| ()), |bytes: &[u8]| {
    READER.with(|reader| reader.read(reader.name, bytes));
});
