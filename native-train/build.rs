//! Keeps libtorch's CUDA half in the program and its tests: nothing names a symbol of it, so a
//! linker that leaves out what is not needed would leave it out, and no GPU be found.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    if std::env::var("CARGO_CFG_TARGET_OS").is_ok_and(|os| os == "linux") {
        // `libtorch.so` is what needs all halves that there are.
        for argument in ["-Wl,--no-as-needed", "-ltorch", "-Wl,--as-needed"] {
            println!("cargo:rustc-link-arg={argument}");
        }
    }
}
