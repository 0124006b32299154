//! Reading a bundle: everything is checked before anything is converted.

use std::collections::BTreeMap;
use std::sync::Arc;

use half::f16;
use safetensors::SafeTensors;
use safetensors::tensor::{Dtype, TensorView};

use super::{Bundle, CODES, FORMAT, ID_BYTES, ID_OFFSETS, check_quantizer};
use crate::catalog::{Catalog, MAX_ITEMS};
use crate::config::T5Config;
use crate::error::BundleError;
use crate::ids::Ids;
use crate::quantizer::{self, Quantizer};
use crate::tokens::TokenLayout;
use crate::weights::{Q4_GROUP, Weight, WeightData, WeightFormat};

impl Bundle {
    /// Reads and checks the bytes of a bundle.
    ///
    /// # Errors
    /// [`BundleError`] naming the field or tensor that is wrong.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, BundleError> {
        let not_safetensors = |e: safetensors::SafeTensorError| {
            // What a server or Git sends in the place of a bundle is known by how it begins.
            let begin: String = bytes.iter().take(40).map(|&byte| char::from(byte)).collect();
            BundleError::NotSafetensors(format!(
                "{e} (the file has {} bytes and begins with {begin:?}; was it cut short or changed \
                 on the way, or is it another file?)",
                bytes.len()
            ))
        };
        let (_, header) = SafeTensors::read_metadata(bytes).map_err(not_safetensors)?;
        let file = SafeTensors::deserialize(bytes).map_err(not_safetensors)?;
        let metadata = header.metadata().as_ref();
        let field = |name: &str| {
            metadata.and_then(|m| m.get(name)).ok_or_else(|| {
                BundleError::metadata(
                    name,
                    "is missing: this is a safetensors file, but not a Tigret bundle \
                     (write one with `tigret export` or `tigret import`)",
                )
            })
        };
        let format = field("format")?;
        if format != FORMAT {
            return Err(BundleError::metadata(
                "format",
                format!(
                    "is \"{format}\", this reader knows \"{FORMAT}\" (write a bundle with \
                     `tigret export` or `tigret import`)"
                ),
            ));
        }
        let config = T5Config::parse(field("config")?)?;
        let tokens = TokenLayout::parse(field("tokens")?)?;
        config.validate_with(&tokens)?;
        let weight_format: WeightFormat = field("quantization")?.parse()?;

        let tensor =
            |name: &str| file.tensor(name).map_err(|_| BundleError::tensor(name, "is missing"));
        // A `q4` bundle may also hold the embedding in four bits.
        let format_of = |name: &str, shape: &[usize]| {
            let in_four_bits = || tensor(name).is_ok_and(|view| view.dtype() == Dtype::U8);
            match Self::format_of(name, shape, weight_format) {
                WeightFormat::Q8 if weight_format == WeightFormat::Q4 && in_four_bits() => {
                    WeightFormat::Q4
                }
                format => format,
            }
        };
        // Shapes first: nothing is allocated for a file whose sizes do not agree.
        let shapes = config.weight_shapes();
        for (name, shape) in &shapes {
            let (rows, columns) = (shape[0], shape.last().copied().unwrap_or(0));
            let scale = format!("{name}.scale");
            match format_of(name, shape) {
                WeightFormat::F32 => expect(name, &tensor(name)?, Dtype::F32, shape)?,
                WeightFormat::F16 => expect(name, &tensor(name)?, Dtype::F16, shape)?,
                WeightFormat::Q8 => {
                    expect(name, &tensor(name)?, Dtype::I8, shape)?;
                    expect(&scale, &tensor(&scale)?, Dtype::F32, &[rows])?;
                }
                WeightFormat::Q4 => {
                    expect(name, &tensor(name)?, Dtype::U8, &[rows, columns.div_ceil(2)])?;
                    let groups = columns.div_ceil(Q4_GROUP);
                    expect(&scale, &tensor(&scale)?, Dtype::F16, &[rows, groups])?;
                }
            }
        }
        let catalog = read_catalog(&tokens, &tensor)?;
        let quantizer = metadata.and_then(|m| m.get(quantizer::file::FIELD));
        let quantizer = quantizer.map(|json| Quantizer::read(json, &tensor)).transpose()?;
        if let Some(quantizer) = &quantizer {
            check_quantizer(quantizer, &tokens)?;
        }
        let mut weights = BTreeMap::new();
        for (name, shape) in shapes {
            let view = tensor(&name)?;
            let scale = format!("{name}.scale");
            let data = match format_of(&name, &shape) {
                WeightFormat::F32 => WeightData::F32(finite(&name, &view)?),
                WeightFormat::F16 => {
                    WeightData::F16(halves(&name, &view, "finite", |v| v.is_finite())?)
                }
                WeightFormat::Q8 => {
                    let scales = finite(&scale, &tensor(&scale)?)?;
                    // The largest weight that a row can hold has to be a number.
                    let is_usable = |s: f32| s > 0.0 && (s * -f32::from(i8::MIN)).is_finite();
                    if let Some(row) = scales.iter().position(|&s| !is_usable(s)) {
                        return Err(BundleError::tensor(
                            scale,
                            format!(
                                "the scale of row {row} is not positive, or too large for 8-bit \
                                 weights"
                            ),
                        ));
                    }
                    // One copy: a page runs this before its loops are optimised.
                    let values = bytemuck::cast_slice(view.data()).to_vec();
                    WeightData::Q8 { values, scales }
                }
                WeightFormat::Q4 => {
                    let kind = "a normal number (neither zero, subnormal nor infinite)";
                    let scales = halves(&scale, &tensor(&scale)?, kind, |v| v.is_normal())?;
                    let row = shape[1].div_ceil(2);
                    let spare =
                        view.data().chunks_exact(row).position(|row| row[row.len() - 1] > 15);
                    if let (1, Some(row)) = (shape[1] % 2, spare) {
                        return Err(BundleError::tensor(
                            name,
                            format!("the spare half byte at the end of row {row} is not 0"),
                        ));
                    }
                    WeightData::Q4 { nibbles: view.data().to_vec(), scales }
                }
            };
            weights.insert(name, Weight { shape, data });
        }
        let catalog = Arc::new(catalog);
        Ok(Self { config, tokens, catalog, weight_format, weights, quantizer })
    }
}

fn expect(
    name: &str,
    view: &TensorView<'_>,
    dtype: Dtype,
    shape: &[usize],
) -> Result<(), BundleError> {
    if view.dtype() != dtype {
        return Err(BundleError::tensor(
            name,
            format!("has type {:?}, the bundle's quantization asks for {dtype:?}", view.dtype()),
        ));
    }
    if view.shape() != shape {
        return Err(BundleError::tensor(
            name,
            format!("has shape {:?}, the configuration asks for {shape:?}", view.shape()),
        ));
    }
    Ok(())
}

fn finite(name: &str, view: &TensorView<'_>) -> Result<Vec<f32>, BundleError> {
    let values: Vec<f32> =
        view.data().chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect();
    match values.iter().position(|v| !v.is_finite()) {
        Some(at) => Err(BundleError::tensor(name, format!("value {at} is {}", values[at]))),
        None => Ok(values),
    }
}

/// The halves of a tensor, all of which must be of a `kind`.
fn halves(
    name: &str,
    view: &TensorView<'_>,
    kind: &str,
    valid: impl Fn(f16) -> bool,
) -> Result<Vec<f16>, BundleError> {
    let values: Vec<f16> =
        view.data().chunks_exact(2).map(|b| f16::from_le_bytes([b[0], b[1]])).collect();
    match values.iter().position(|&v| !valid(v)) {
        Some(at) => {
            Err(BundleError::tensor(name, format!("value {at} is {}, not {kind}", values[at])))
        }
        None => Ok(values),
    }
}

fn read_catalog<'a>(
    tokens: &TokenLayout,
    tensor: &impl Fn(&str) -> Result<TensorView<'a>, BundleError>,
) -> Result<Catalog, BundleError> {
    let codes = tensor(CODES)?;
    let levels = tokens.levels.len();
    let items = match *codes.shape() {
        [items, width] if width == levels && items > 0 && items <= MAX_ITEMS => items,
        _ => {
            return Err(BundleError::tensor(
                CODES,
                format!("has shape {:?}, the layout asks for [items, {levels}]", codes.shape()),
            ));
        }
    };
    expect(CODES, &codes, Dtype::U16, &[items, levels])?;
    let offsets = tensor(ID_OFFSETS)?;
    expect(ID_OFFSETS, &offsets, Dtype::U32, &[items + 1])?;
    let bytes = tensor(ID_BYTES)?;
    expect(ID_BYTES, &bytes, Dtype::U8, &[bytes.data().len()])?;

    let codes = codes.data().chunks_exact(2).map(|b| u16::from_le_bytes([b[0], b[1]])).collect();
    let offsets: Vec<u32> = offsets
        .data()
        .chunks_exact(4)
        .map(|b| u32::from_le_bytes([b[0], b[1], b[2], b[3]]))
        .collect();
    let text = std::str::from_utf8(bytes.data()).map_err(|e| {
        let rank = offsets.partition_point(|&begin| begin as usize <= e.valid_up_to());
        let what = format!("id {} is not UTF-8", rank.saturating_sub(1));
        BundleError::tensor(ID_BYTES, what)
    })?;
    Catalog::from_sorted(codes, Ids::from_parts(text.to_owned(), offsets)?, tokens)
}
