//! Reading a bundle: everything is checked before anything is converted.

use std::collections::BTreeMap;
use std::sync::Arc;

use half::f16;
use half::vec::HalfBitsVecExt;
use safetensors::tensor::{Dtype, TensorView};

use super::{Bundle, CODES, FORMAT, ID_BYTES, ID_OFFSETS, check_quantizer};
use crate::catalog::{Catalog, MAX_ITEMS};
use crate::config::T5Config;
use crate::error::BundleError;
use crate::ids::Ids;
use crate::quantizer::{self, Quantizer};
use crate::tensor_file::{File, numbers};
use crate::tokens::TokenLayout;
use crate::weights::{Q4_GROUP, Weight, WeightData, WeightFormat};

/// The output head where it is not the embedding.
const HEAD: &str = "lm_head.weight";

impl Bundle {
    /// Reads and checks the bytes of a bundle.
    ///
    /// # Errors
    /// [`BundleError`] naming the field or tensor that is wrong.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, BundleError> {
        let file = File::parse(bytes).map_err(|e| {
            // What a server or Git sends in the place of a bundle is known by how it begins.
            let begin: String = bytes.iter().take(40).map(|&byte| char::from(byte)).collect();
            BundleError::NotSafetensors(format!(
                "{e} (the file has {} bytes and begins with {begin:?}; was it cut short or changed \
                 on the way, or is it another file?)",
                bytes.len()
            ))
        })?;
        let field = |name: &str| {
            file.note(name).ok_or_else(|| {
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

        // Shapes first: nothing is allocated for a file whose sizes do not agree.
        let shapes = config.weight_shapes();
        let formats = shapes
            .iter()
            .map(|(name, shape)| check_shape(name, shape, weight_format, &file))
            .collect::<Result<Vec<_>, _>>()?;
        // Whoever wrote it there means it to be used.
        if config.tie_word_embeddings && file.tensor(HEAD).is_ok() {
            let what = "the configuration ties the head to `shared.weight`";
            return Err(BundleError::tensor(HEAD, what));
        }
        let catalog = read_catalog(&tokens, &file)?;
        let quantizer = file.note(quantizer::file::FIELD);
        let quantizer = quantizer.map(|json| Quantizer::read(json, &file)).transpose()?;
        if let Some(quantizer) = &quantizer {
            check_quantizer(quantizer, &tokens)?;
        }
        let mut weights = BTreeMap::new();
        for ((name, shape), format) in shapes.into_iter().zip(formats) {
            let data = read_weight(&name, &shape, format, &file)?;
            weights.insert(name, Weight { shape, data });
        }
        let catalog = Arc::new(catalog);
        Ok(Self { config, tokens, catalog, weight_format, weights, quantizer })
    }
}

/// Checks types and shapes of one weight's tensors, and tells the format that they have.
fn check_shape(
    name: &str,
    shape: &[usize],
    bundle: WeightFormat,
    file: &File<'_>,
) -> Result<WeightFormat, BundleError> {
    let (view, scale) = (file.tensor(name)?, format!("{name}.scale"));
    let mut format = Bundle::format_of(name, shape, bundle);
    // A `q4` bundle may also hold the embedding in four bits.
    if (bundle, format, view.dtype()) == (WeightFormat::Q4, WeightFormat::Q8, Dtype::U8) {
        format = WeightFormat::Q4;
    }
    let (rows, columns) = (shape[0], shape.last().copied().unwrap_or(0));
    match format {
        WeightFormat::F32 => expect(name, &view, Dtype::F32, shape)?,
        WeightFormat::F16 => expect(name, &view, Dtype::F16, shape)?,
        WeightFormat::Q8 => {
            expect(name, &view, Dtype::I8, shape)?;
            expect(&scale, &file.tensor(&scale)?, Dtype::F32, &[rows])?;
        }
        WeightFormat::Q4 => {
            expect(name, &view, Dtype::U8, &[rows, columns.div_ceil(2)])?;
            expect(&scale, &file.tensor(&scale)?, Dtype::F16, &[rows, columns.div_ceil(Q4_GROUP)])?;
        }
    }
    Ok(format)
}

/// The numbers of a weight whose shape has been checked.
fn read_weight(
    name: &str,
    shape: &[usize],
    format: WeightFormat,
    file: &File<'_>,
) -> Result<WeightData, BundleError> {
    let (view, scale) = (file.tensor(name)?, format!("{name}.scale"));
    Ok(match format {
        WeightFormat::F32 => WeightData::F32(finite(name, &view)?),
        WeightFormat::F16 => WeightData::F16(halves(name, &view, "finite", f16::is_finite)?),
        WeightFormat::Q8 => {
            let scales = finite(&scale, &file.tensor(&scale)?)?;
            // The largest weight that a row can hold has to be a number.
            let is_usable = |s: f32| s > 0.0 && (s * -f32::from(i8::MIN)).is_finite();
            if let Some(row) = scales.iter().position(|&s| !is_usable(s)) {
                let reason = format!(
                    "the scale of row {row} is not positive, or too large for 8-bit weights"
                );
                return Err(BundleError::tensor(scale, reason));
            }
            WeightData::Q8 { values: numbers(&view), scales }
        }
        WeightFormat::Q4 => {
            let kind = "a normal number (neither zero, subnormal nor infinite)";
            let scales = halves(&scale, &file.tensor(&scale)?, kind, f16::is_normal)?;
            let spare = |row: &[u8]| row[row.len() - 1] > 15;
            if shape[1] % 2 == 1
                && let Some(row) = view.data().chunks_exact(shape[1].div_ceil(2)).position(spare)
            {
                let reason = format!("the spare half byte at the end of row {row} is not 0");
                return Err(BundleError::tensor(name, reason));
            }
            WeightData::Q4 { nibbles: numbers(&view), scales }
        }
    })
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
            format!("has type {:?}, not {dtype:?}", view.dtype()),
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
    let values: Vec<f32> = numbers(view);
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
    let values: Vec<f16> = numbers::<u16>(view).reinterpret_into();
    match values.iter().position(|&v| !valid(v)) {
        Some(at) => {
            Err(BundleError::tensor(name, format!("value {at} is {}, not {kind}", values[at])))
        }
        None => Ok(values),
    }
}

fn read_catalog(tokens: &TokenLayout, file: &File<'_>) -> Result<Catalog, BundleError> {
    let codes = file.tensor(CODES)?;
    let levels = tokens.levels.len();
    let items = match *codes.shape() {
        [items, width] if width == levels && items > 0 && items <= MAX_ITEMS => items,
        _ => {
            return Err(BundleError::tensor(
                CODES,
                format!(
                    "has shape {:?}, not [items, {levels}] with 1 to 2^28 items",
                    codes.shape()
                ),
            ));
        }
    };
    expect(CODES, &codes, Dtype::U16, &[items, levels])?;
    let offsets = file.tensor(ID_OFFSETS)?;
    expect(ID_OFFSETS, &offsets, Dtype::U32, &[items + 1])?;
    let bytes = file.tensor(ID_BYTES)?;
    expect(ID_BYTES, &bytes, Dtype::U8, &[bytes.data().len()])?;

    let offsets: Vec<u32> = numbers(&offsets);
    let text = std::str::from_utf8(bytes.data()).map_err(|e| {
        let rank = offsets.partition_point(|&begin| begin as usize <= e.valid_up_to());
        let what = format!("id {} is not UTF-8", rank.saturating_sub(1));
        BundleError::tensor(ID_BYTES, what)
    })?;
    Catalog::from_sorted(numbers(&codes), Ids::from_parts(text.to_owned(), offsets)?, tokens)
}
