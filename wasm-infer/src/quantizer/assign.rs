//! New items under a frozen quantiser: what has an ID keeps it, a collision takes the next free
//! code of the last level.

use super::{Quantizer, Structure};
use crate::catalog::Catalog;
use crate::error::InferError;
use crate::tokens::TokenLayout;

/// The smallest code of the last level that no item of the catalogue has under `prefix` (a code a
/// level but the last), or nothing if all `size` are taken.
pub fn next_free_code(catalog: &Catalog, prefix: &[u16], size: u32) -> Option<u16> {
    let mut node = 0..catalog.len() as u32;
    for (level, &code) in prefix.iter().enumerate() {
        node = catalog.child(level, node, code);
    }
    let mut free = 0;
    // Ascending, so the first code that is not its own place is behind a gap.
    for (code, _) in catalog.children(prefix.len(), node) {
        if u32::from(code) != free {
            break;
        }
        free += 1;
    }
    (free < size).then_some(free as u16)
}

/// The semantic ID of a new item: its codes, and the next free code of the collision level.
///
/// `vector` is the item's content vector, empty for a quantiser that reads ids only.
///
/// # Errors
/// [`InferError::Request`] for an id that is in the catalogue, a vector of another length or with
/// a number that is not finite, or a group with no free code, naming the item.
pub fn assign(
    quantizer: &Quantizer,
    layout: &TokenLayout,
    catalog: &Catalog,
    id: &str,
    vector: &[f32],
) -> Result<Vec<u16>, InferError> {
    let bad = |what: String| Err(InferError::Request(format!("item \"{id}\": {what}")));
    if catalog.rank_of(id).is_some() {
        return bad("is already in the catalogue; its semantic ID does not change".into());
    }
    let config = quantizer.config();
    if config.structure != Structure::Hash {
        if vector.len() != config.embedding() {
            return bad(format!(
                "its vector has {} numbers, the tokenizer was trained on {}",
                vector.len(),
                config.embedding()
            ));
        }
        if let Some(at) = vector.iter().position(|x| !x.is_finite()) {
            return bad(format!("number {at} of its vector is {}", vector[at]));
        }
    }
    let mut codes = match config.structure {
        Structure::Hash => quantizer.encode(&[id], &[]),
        _ => {
            // Nothing is known of its interactions: the mean, which normalising turns into zeros.
            let unknown = &quantizer.tensors().mean[vector.len()..];
            quantizer.encode(&[id], &[vector, unknown].concat())
        }
    };
    let size = layout.levels.last().map_or(0, |level| level.size);
    match next_free_code(catalog, &codes, size) {
        Some(code) => {
            codes.push(code);
            Ok(codes)
        }
        None => bad(format!(
            "all {size} semantic IDs under the codes {codes:?} are taken; tokenize the whole \
             catalogue again with a larger --collision-size"
        )),
    }
}
