//! `xtask-bindgen INPUT.wasm OUTPUT_DIR NAME`: writes the JavaScript face of a wasm module.
//!
//! A crate of its own because wasm-bindgen's tooling takes a minute to compile, which only the
//! builds of the page should pay for; as a library its version is pinned beside `wasm-bindgen`'s,
//! and the two must be the same.

use std::error::Error;
use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::Path;
use std::process::ExitCode;

use wasm_bindgen_cli_support::Bindgen;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [input, output, name] = arguments.as_slice() else {
        eprintln!("usage: xtask-bindgen INPUT.wasm OUTPUT_DIR NAME");
        return ExitCode::from(2);
    };
    match write_face(input, Path::new(output), name) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("wasm-bindgen on {input}: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Writes module and face. A hundred imports are named after what they do and a hash, which a page
/// would download twice, in the module and in its face, and no compression makes small: here they
/// are numbered, and one hash of all names stands for them, so that a face and a module of two versions
/// of the package, as a cache may hold them, refuse each other.
fn write_face(input: &str, folder: &Path, name: &str) -> Result<(), Box<dyn Error>> {
    let mut bindgen = Bindgen::new();
    let bindgen = bindgen.input_path(input).out_name(name).typescript(true).web(true)?;
    let mut made = bindgen.generate_output()?;
    let mut hasher = DefaultHasher::new();
    made.wasm_mut().imports.iter().for_each(|import| import.name.hash(&mut hasher));
    let group = format!("{:08x}", hasher.finish() as u32);
    let mut names = Vec::new();
    for import in made.wasm_mut().imports.iter_mut() {
        let short = format!("i{}", names.len());
        names.push((std::mem::replace(&mut import.name, short.clone()), short));
        import.module.clone_from(&group);
    }
    made.emit(folder)?;
    let path = folder.join(format!("{name}.js"));
    let mut face = fs::read_to_string(&path)?;
    let mut rename = |from: &str, to: &str| match face.matches(from).count() {
        1 => {
            face = face.replace(from, to);
            Ok(())
        }
        _ => Err(format!("{}: `{from}` is not there once", path.display())),
    };
    for (long, short) in names {
        // A key of the object of imports, at the beginning of a line.
        rename(&format!(" {long}: "), &format!(" {short}: "))?;
    }
    rename(&format!("\"./{name}_bg.js\": "), &format!("\"{group}\": "))?;
    Ok(fs::write(path, face)?)
}
