//! `xtask-bindgen INPUT.wasm OUTPUT_DIR NAME`: writes the JavaScript face of a wasm module.
//!
//! A crate of its own because wasm-bindgen's tooling takes a minute to compile, which only the
//! builds of the page should pay for; as a library its version is pinned beside `wasm-bindgen`'s,
//! and the two must be the same.

use std::process::ExitCode;

use wasm_bindgen_cli_support::Bindgen;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [input, output, name] = arguments.as_slice() else {
        eprintln!("usage: xtask-bindgen INPUT.wasm OUTPUT_DIR NAME");
        return ExitCode::from(2);
    };
    let mut bindgen = Bindgen::new();
    let generated = bindgen
        .input_path(input)
        .out_name(name)
        .typescript(true)
        .web(true)
        .and_then(|bindgen| bindgen.generate(output));
    match generated {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("wasm-bindgen on {input}: {error:#}");
            ExitCode::FAILURE
        }
    }
}
