//! The bundle: one safetensors file with everything that a recommendation needs.
//!
//! The format is specified in `docs/bundle.md`.

#[cfg(any(test, target_arch = "wasm32"))]
pub(crate) mod fingerprint;
mod read;
mod write;

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::catalog::Catalog;
use crate::config::{Stack, T5Config};
use crate::error::BundleError;
use crate::quantizer::Quantizer;
use crate::tokens::TokenLayout;
use crate::weights::{Q4, Q4_GROUP, Weight, WeightData, WeightFormat};

/// Value of the metadata field `format`.
pub const FORMAT: &str = "tigret/1";

pub(crate) const CODES: &str = "catalog.codes";
pub(crate) const ID_BYTES: &str = "catalog.id_bytes";
pub(crate) const ID_OFFSETS: &str = "catalog.id_offsets";

/// A model with its catalogue, checked.
#[derive(Debug, Clone)]
pub struct Bundle {
    /// Sizes of the model.
    pub config: T5Config,
    /// How items and users become tokens.
    pub tokens: TokenLayout,
    /// The items.
    pub catalog: Arc<Catalog>,
    /// How the matrices are stored.
    pub weight_format: WeightFormat,
    weights: BTreeMap<String, Weight>,
    quantizer: Option<Quantizer>,
}

impl Bundle {
    /// Joins the parts and checks them against each other.
    ///
    /// `weights` are `f32` under HF's names; matrices are converted to `format`. Copies of the
    /// shared embedding (`encoder.embed_tokens.weight` and the like) are dropped.
    ///
    /// # Errors
    /// [`BundleError`] naming the part.
    pub fn new(
        config: T5Config,
        tokens: TokenLayout,
        catalog: Catalog,
        mut weights: BTreeMap<String, (Vec<usize>, Vec<f32>)>,
        format: WeightFormat,
    ) -> Result<Self, BundleError> {
        config.validate_with(&tokens)?;
        let mut converted = BTreeMap::new();
        for (name, shape) in config.weight_shapes() {
            let Some((found, values)) = weights.remove(&name) else {
                return Err(BundleError::tensor(name, "is missing"));
            };
            if found != shape || values.len() != shape.iter().product::<usize>() {
                return Err(BundleError::tensor(
                    name,
                    format!("has shape {found:?}, the configuration asks for {shape:?}"),
                ));
            }
            if let Some(at) = values.iter().position(|v| !v.is_finite()) {
                return Err(BundleError::tensor(name, format!("value {at} is not finite")));
            }
            let weight = match Self::format_of(&name, &shape, format) {
                WeightFormat::F32 => Weight { shape, data: WeightData::F32(values) },
                narrow => {
                    if let Some(at) = values.iter().position(|v| v.abs() > narrow.largest()) {
                        let (value, format) = (values[at], narrow.name());
                        return Err(BundleError::tensor(
                            name,
                            format!("value {at} is {value}, more than {format} can hold: use f32"),
                        ));
                    }
                    Weight::quantize(narrow, [shape[0], shape[1]], values)
                }
            };
            converted.insert(name, weight);
        }
        Ok(Self {
            config,
            tokens,
            catalog: Arc::new(catalog),
            weight_format: format,
            weights: converted,
            quantizer: None,
        })
    }

    /// The bundle with other 4-bit codes and scales for a matrix, such as ones that fit better what
    /// the matrix is multiplied with.
    ///
    /// # Errors
    /// [`BundleError::Tensor`] when the bundle has no `q4` matrix of that name and shape.
    pub fn with_codes(mut self, name: &str, matrix: Q4) -> Result<Self, BundleError> {
        let (columns, codes) = (matrix.columns, matrix.codes.len());
        let fits = |weight: &&mut Weight| {
            matches!(weight.data, WeightData::Q4 { .. })
                && (weight.columns(), weight.rows() * columns) == (columns, codes)
                && matrix.scales.len() == weight.rows() * columns.div_ceil(Q4_GROUP)
        };
        let Some(weight) = self.weights.get_mut(name).filter(fits) else {
            let problem = format!("is no q4 matrix of {codes} codes in rows of {columns}");
            return Err(BundleError::tensor(name, problem));
        };
        *weight = matrix.pack();
        Ok(self)
    }

    /// The bundle with what gives new items their semantic IDs.
    ///
    /// # Errors
    /// [`BundleError::Metadata`] when its levels are not those of the token layout but the last.
    pub fn with_quantizer(self, quantizer: Quantizer) -> Result<Self, BundleError> {
        check_quantizer(&quantizer, &self.tokens)?;
        Ok(Self { quantizer: Some(quantizer), ..self })
    }

    /// What gives new items their semantic IDs, if the bundle carries it.
    pub fn quantizer(&self) -> Option<&Quantizer> {
        self.quantizer.as_ref()
    }

    /// The format in which one weight is written: matrices have the bundle's, norms and the relative
    /// position bias stay `f32`. Of `q4` the token embedding and the output head have `q8`: most of
    /// what four bits cost a trained model they cost there.
    fn format_of(name: &str, shape: &[usize], bundle: WeightFormat) -> WeightFormat {
        if shape.len() != 2 || name.ends_with(".relative_attention_bias.weight") {
            WeightFormat::F32
        } else if bundle == WeightFormat::Q4 && matches!(name, "shared.weight" | "lm_head.weight") {
            WeightFormat::Q8
        } else {
            bundle
        }
    }

    /// A weight by HF's name.
    ///
    /// # Panics
    /// Never for the names of [`T5Config::weight_shapes`]: a bundle holds them all.
    pub fn weight(&self, name: &str) -> &Weight {
        &self.weights[name]
    }

    /// Relative position bias of a stack, by head and key position minus query position.
    pub(crate) fn position_bias(&self, stack: Stack) -> impl Fn(usize, i32) -> f32 {
        let (table, config) = (self.weight(&stack.position_bias()).to_f32(), &self.config);
        move |head, relative| {
            table[config.position_bucket(stack, relative) * config.num_heads + head]
        }
    }

    /// All weights under HF's names.
    pub fn weights(&self) -> &BTreeMap<String, Weight> {
        &self.weights
    }
}

fn check_quantizer(quantizer: &Quantizer, tokens: &TokenLayout) -> Result<(), BundleError> {
    let sizes = &quantizer.config().sizes;
    let levels: Vec<u32> = tokens.levels.iter().map(|level| level.size).collect();
    if sizes[..] != levels[..levels.len().saturating_sub(1)] {
        return Err(BundleError::metadata(
            "quantizer",
            format!(
                "gives levels of {sizes:?} codes, but those of `tokens` before the collision level \
                 have {:?}",
                &levels[..levels.len().saturating_sub(1)]
            ),
        ));
    }
    Ok(())
}
