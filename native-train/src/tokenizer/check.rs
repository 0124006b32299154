//! Which settings and vectors no tokenizer is fitted to.

use tigret_infer::quantizer::{LARGEST, MAX_LAYERS, MAX_WIDTH};

use super::settings::{Method, Settings};
use super::stats::smaller_codebook;
use crate::embed::Vectors;
use crate::error::{Result, TrainError};

/// Refuses settings that do not fit together or to the vectors of the items `ids`.
///
/// # Errors
/// [`TrainError::Usage`] with what to do.
pub fn check(settings: &Settings, ids: &[&str], vectors: &Vectors) -> Result<()> {
    let items = ids.len();
    let dimensions = vectors.dimensions;
    check_alone(settings.method, &settings.sizes, settings.balance_last)?;
    let usage = |reason: String| Err(TrainError::usage(reason));
    // Refused before the training, since no quantiser could hold it.
    if let Some(autoencoder) = &settings.autoencoder
        && autoencoder.hidden.len() >= MAX_LAYERS
    {
        return usage(format!(
            "--hidden names {} widths, at most {}",
            autoencoder.hidden.len(),
            MAX_LAYERS - 1
        ));
    }
    if settings.method != Method::Random && dimensions > MAX_WIDTH {
        return usage(format!(
            "the vectors have {dimensions} numbers, at most {MAX_WIDTH}; give `tigret embed` shorter \
             ones"
        ));
    }
    let fitted = !matches!(settings.method, Method::Lsh | Method::Random);
    let largest = settings.sizes.iter().copied().max().unwrap_or(0) as usize;
    if fitted && items < largest {
        let advice = smaller_codebook(items, largest).filter(|&size| size < items);
        let advice = advice.map_or_else(String::new, |size| format!(" ({size} suits them)"));
        if items < 2 {
            return usage("a single item has no codewords to share; use --method random".into());
        }
        return usage(format!(
            "{items} items cannot fill {largest} codewords; use --codebook-size {items} or \
             less{advice}"
        ));
    }
    if settings.method == Method::Opq && dimensions < settings.sizes.len() {
        return usage(format!(
            "--method opq cuts a vector into {} parts, but it has {dimensions} numbers",
            settings.sizes.len()
        ));
    }
    if let (false, Some(at)) = (settings.method == Method::Random, vectors.constant_dimension()) {
        return usage(format!(
            "number {at} of the vectors (counted from 0) is {} for every item and tells none apart; \
             leave that column out of the vectors given to `tigret embed`",
            vectors.data[at]
        ));
    }
    let advice = "scale the vectors (`tigret embed --normalize`)";
    too_large(ids, &vectors.data, dimensions, advice).map_or(Ok(()), usage)
}

/// What is wrong with vectors (a row of `dimensions` numbers an item) that have a number too large
/// to compute distances with; `advice` says how to mend them.
pub(super) fn too_large(
    ids: &[&str],
    vectors: &[f32],
    dimensions: usize,
    advice: &str,
) -> Option<String> {
    let at = vectors.iter().position(|x| x.abs() > LARGEST)?;
    Some(format!(
        "number {} of the vector of item \"{}\" is {:e}; distances between numbers beyond \
         {LARGEST:e} cannot be computed, {advice}",
        at % dimensions,
        ids[at / dimensions],
        vectors[at]
    ))
}

/// Refuses settings that no vectors go with.
///
/// # Errors
/// [`TrainError::Usage`].
pub fn check_alone(method: Method, sizes: &[u32], balance_last: bool) -> Result<()> {
    if method == Method::Lsh && sizes.iter().any(|size| !size.is_power_of_two()) {
        return Err(TrainError::usage(
            "--method lsh: a code is a bit a hyperplane, so --codebook-size must be a power of two",
        ));
    }
    if balance_last && !matches!(method, Method::RqVae | Method::RqKmeans) {
        return Err(TrainError::usage(format!(
            "--sinkhorn balances the last residual level; --method {} has none",
            method.name()
        )));
    }
    Ok(())
}
