//! wasm face.
