//! The bundle: what is written is read back, and what is damaged is refused by name.

#![expect(clippy::unwrap_used, reason = "a fixture that cannot be made fails the test")]

use std::collections::{BTreeMap, HashMap};

use safetensors::SafeTensors;
use safetensors::tensor::{Dtype, TensorView};
use tigret_infer::testing::{Shape, random_bundle, random_bundle_with_quantizer, reweighted};
use tigret_infer::{Bundle, Q4, Q4_GROUP, T5Config, TokenLayout, Weight, WeightData, WeightFormat};

#[test]
fn a_written_bundle_reads_back_equal() {
    for format in WeightFormat::ALL {
        // 33 columns: a second group of one value, and a spare half byte.
        let shape = Shape { d_model: 33, ..Shape::default() };
        let bundle = random_bundle(&shape, format, 1);
        let read = Bundle::from_bytes(&bundle.to_bytes().unwrap()).unwrap();
        assert_eq!(read.config, bundle.config);
        assert_eq!(read.tokens, bundle.tokens);
        assert_eq!(read.weights(), bundle.weights());
        assert_eq!(read.catalog.ids().parts(), bundle.catalog.ids().parts());
        assert_eq!(read.catalog.codes(), bundle.catalog.codes());
        assert_eq!(read.weight_format, format);
        assert!(read.quantizer().is_none());
        let with = random_bundle_with_quantizer(&shape, format, 1);
        let read = Bundle::from_bytes(&with.to_bytes().unwrap()).unwrap();
        assert!(read.quantizer().is_some() && read.quantizer() == with.quantizer());
    }
}

#[test]
fn another_file_is_told_by_how_it_begins() {
    let said = |bytes: &[u8]| Bundle::from_bytes(bytes).unwrap_err().to_string();
    for (file, begin) in [
        (
            &b"version https://git-lfs.github.com/spec/v1\noid sha256:0"[..],
            "version https://git-lfs",
        ),
        (b"{\"error\": \"not found\"}", "{\\\"error\\\": \\\"not found\\\"}"),
        (b"PK\x03\x04 and so on", "PK\\u{3}\\u{4} and"),
        (b"", ""),
    ] {
        let expected = format!("has {} bytes and begins with \"{begin}", file.len());
        assert!(said(file).contains(&expected), "{}", said(file));
    }
}

#[test]
fn the_same_bundle_has_the_same_bytes() {
    let bundle = random_bundle_with_quantizer(&Shape::default(), WeightFormat::Q8, 1);
    let first = bundle.to_bytes().unwrap();
    // Its metadata has five fields: a random order would soon show.
    assert!((0..20).all(|_| bundle.to_bytes().unwrap() == first));
    assert_eq!(Bundle::from_bytes(&first).unwrap().to_bytes().unwrap(), first);
}

/// Puts `value` at the start of a tensor's bytes.
fn overwrite(bytes: &mut [u8], name: &str, value: &[u8]) {
    let header = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let json: serde_json::Value = serde_json::from_slice(&bytes[8..8 + header]).unwrap();
    let at = 8 + header + json[name]["data_offsets"][0].as_u64().unwrap() as usize;
    bytes[at..at + value.len()].copy_from_slice(value);
}

#[test]
fn bytes_that_no_tensor_has_are_refused() {
    let shape = Shape { d_model: 33, ..Shape::default() };
    let half = |bits: u16| bits.to_le_bytes().to_vec();
    // Infinity and not a number.
    let mut cases: Vec<(WeightFormat, &str, Vec<u8>, &str)> = [0x7c00, 0x7e00]
        .into_iter()
        .map(|bits| (WeightFormat::F16, "shared.weight", half(bits), "not finite"))
        .collect();
    // Infinity, zero of either sign, the largest subnormal.
    let (wi, scale) = (
        "encoder.block.0.layer.1.DenseReluDense.wi.weight",
        "encoder.block.0.layer.1.DenseReluDense.wi.weight.scale",
    );
    cases.extend(
        [0x7c00, 0, 0x8000, 0x03ff]
            .into_iter()
            .map(|bits| (WeightFormat::Q4, scale, half(bits), "not a normal number")),
    );
    let spare = [&[0; 16][..], &[0x10]].concat();
    cases.push((WeightFormat::Q4, wi, spare, "spare half byte at the end of row 0"));
    // Zero, and one that 128 steps of 8 bits make infinite.
    cases.extend([0.0f32, -1.0, 3e36].map(|scale| {
        let bytes = scale.to_le_bytes().to_vec();
        (WeightFormat::Q8, "shared.weight.scale", bytes, "the scale of row 0 is not positive")
    }));
    let ids = b"item-0item-1\xff".to_vec();
    cases.push((WeightFormat::F32, "catalog.id_bytes", ids, "id 2 is not UTF-8"));
    for (format, name, value, part) in cases {
        let mut bytes = random_bundle(&shape, format, 1).to_bytes().unwrap();
        overwrite(&mut bytes, name, &value);
        let message = Bundle::from_bytes(&bytes).map(|_| ()).unwrap_err().to_string();
        assert!(message.contains(&format!("`{name}`")) && message.contains(part), "{message}");
    }
}

/// The tensors of a file: name, type, shape, bytes.
type Tensors = Vec<(String, Dtype, Vec<usize>, Vec<u8>)>;

/// A file with other tensors and other metadata.
fn rewritten(
    bytes: &[u8],
    change: impl FnOnce(&mut Tensors, &mut HashMap<String, String>),
) -> Vec<u8> {
    let file = SafeTensors::deserialize(bytes).unwrap();
    let (_, header) = SafeTensors::read_metadata(bytes).unwrap();
    let mut metadata = header.metadata().clone().unwrap_or_default();
    let mut tensors: Tensors = file
        .iter()
        .map(|(name, view)| {
            (name.to_owned(), view.dtype(), view.shape().to_vec(), view.data().to_vec())
        })
        .collect();
    change(&mut tensors, &mut metadata);
    let views = tensors.iter().map(|(name, dtype, shape, bytes)| {
        (name, TensorView::new(*dtype, shape.clone(), bytes).unwrap())
    });
    safetensors::serialize(views, Some(metadata)).unwrap()
}

/// The same bundle with one matrix in another format.
fn with_matrix(bundle: &Bundle, name: &str, format: WeightFormat) -> Vec<u8> {
    let weight = bundle.weight(name);
    let shape = [weight.rows(), weight.columns()];
    let replaced = Weight::quantize(format, shape, weight.to_f32());
    rewritten(&bundle.to_bytes().unwrap(), |tensors, _| {
        let [matrix, scale] = [name.to_owned(), format!("{name}.scale")];
        tensors.retain(|(name, ..)| ![&matrix, &scale].contains(&name));
        match replaced.data {
            WeightData::Q8 { values, scales } => {
                let bytes = values.iter().map(|v| *v as u8).collect();
                tensors.push((matrix, Dtype::I8, shape.to_vec(), bytes));
                let bytes = scales.iter().flat_map(|s| s.to_le_bytes()).collect();
                tensors.push((scale, Dtype::F32, vec![shape[0]], bytes));
            }
            WeightData::Q4 { nibbles, scales } => {
                tensors.push((matrix, Dtype::U8, vec![shape[0], shape[1].div_ceil(2)], nibbles));
                let bytes = scales.iter().flat_map(|s| s.to_le_bytes()).collect();
                let groups = shape[1].div_ceil(Q4_GROUP);
                tensors.push((scale, Dtype::F16, vec![shape[0], groups], bytes));
            }
            other => panic!("{other:?}"),
        }
    })
}

fn refused(bytes: &[u8]) -> String {
    Bundle::from_bytes(bytes).map(|_| ()).unwrap_err().to_string()
}

#[test]
fn each_tensor_has_to_be_there_in_its_type_and_shape() {
    for format in [WeightFormat::F16, WeightFormat::Q8, WeightFormat::Q4] {
        let bundle = random_bundle_with_quantizer(&Shape::default(), format, 1);
        let good = bundle.to_bytes().unwrap();
        let names = SafeTensors::deserialize(&good).unwrap();
        for (place, name) in names.names().into_iter().enumerate() {
            let of = |all: &Tensors| all.iter().position(|(other, ..)| other == name).unwrap();
            let without = rewritten(&good, |all, _| drop(all.remove(of(all))));
            let other_type = rewritten(&good, |all, _| {
                let at = of(all);
                all[at].1 = match all[at].1.bitsize() {
                    8 => Dtype::BOOL,
                    16 => Dtype::I16,
                    _ => Dtype::I32,
                };
            });
            let other_shape = rewritten(&good, |all, _| {
                let at = of(all);
                all[at].2.insert(0, 1);
            });
            for changed in [without, other_type, other_shape] {
                let message = refused(&changed);
                assert!(message.contains(&format!("`{name}`: ")), "{place}, {name}: {message}");
            }
        }
    }
}

#[test]
fn what_would_compute_something_else_is_refused() {
    let good = random_bundle(&Shape::default(), WeightFormat::F32, 1).to_bytes().unwrap();
    // A head beside a configuration that says there is none.
    let message = refused(&rewritten(&good, |tensors, _| {
        let shared = tensors.iter().find(|(name, ..)| name == "shared.weight").unwrap().clone();
        tensors.push(("lm_head.weight".to_owned(), shared.1, shared.2, shared.3));
    }));
    let expected = "tensor `lm_head.weight`: the configuration ties the head to `shared.weight`";
    assert!(message.contains(expected), "{message}");
    let message = refused(&rewritten(&good, |_, metadata| {
        let config = metadata.get_mut("config").unwrap();
        *config = config.replace("\"t5\"", "\"mt5\"");
    }));
    assert!(message.contains("model_type is \"mt5\", only \"t5\" is read"), "{message}");
}

#[test]
fn tensors_of_a_file_are_aligned() {
    for format in WeightFormat::ALL {
        let shape = Shape { d_model: 33, ..Shape::default() };
        let bytes = random_bundle_with_quantizer(&shape, format, 1).to_bytes().unwrap();
        let file = SafeTensors::deserialize(&bytes).unwrap();
        for (name, view) in file.iter() {
            let at = view.data().as_ptr().addr() - bytes.as_ptr().addr();
            assert!(at.is_multiple_of(view.dtype().bitsize() / 8), "{name} at {at}");
        }
    }
}

#[test]
fn matrices_have_the_bundles_format_and_all_else_stays_f32() {
    let shape = Shape { tied: false, ..Shape::default() };
    for format in WeightFormat::ALL {
        let bundle = random_bundle(&shape, format, 1);
        let mut bytes = 0;
        for (name, weight) in bundle.weights() {
            let expected = match (&name[..], format) {
                _ if weight.shape.len() == 1 || name.contains("relative_attention_bias") => "f32",
                ("shared.weight" | "lm_head.weight", WeightFormat::Q4) => "q8",
                _ => format.name(),
            };
            let found = match weight.data {
                WeightData::F32(_) => "f32",
                WeightData::F16(_) => "f16",
                WeightData::Q8 { .. } => "q8",
                WeightData::Q4 { .. } => "q4",
                _ => "another",
            };
            assert_eq!(found, expected, "{name}, {}", format.name());
            bytes += weight.bytes();
        }
        let file = bundle.to_bytes().unwrap();
        let file = SafeTensors::deserialize(&file).unwrap();
        let weights = file.iter().filter(|(name, _)| !name.starts_with("catalog."));
        assert_eq!(weights.map(|(_, view)| view.data().len()).sum::<usize>(), bytes);
    }
}

#[test]
fn a_tokenizer_has_the_levels_of_the_layout() {
    let bundle = random_bundle(&Shape::default(), WeightFormat::Q8, 1);
    let other = Shape { levels: vec![16, 16, 8], ..Shape::default() };
    let other = random_bundle_with_quantizer(&other, WeightFormat::Q8, 1);
    let quantizer = other.quantizer().unwrap();
    let expected = "gives levels of [16, 16] codes, but those of `tokens` before the collision \
                    level have [16, 16, 16]";
    let bytes = rewritten(&bundle.to_bytes().unwrap(), |tensors, metadata| {
        let file = quantizer.to_bytes(BTreeMap::new()).unwrap();
        rewritten(&file, |all, notes| {
            tensors.append(&mut all.clone());
            metadata.extend(notes.clone());
        });
    });
    assert!(refused(&bytes).contains(expected), "{}", refused(&bytes));
    let message = bundle.with_quantizer(quantizer.clone()).map(|_| ()).unwrap_err().to_string();
    assert!(message.contains(expected), "{message}");
}

#[test]
fn a_layout_stays_inside_of_the_vocabulary() {
    let good = random_bundle(&Shape::default(), WeightFormat::Q8, 1).to_bytes().unwrap();
    let bytes = rewritten(&good, |_, metadata| {
        let tokens = metadata.get_mut("tokens").unwrap();
        *tokens = tokens.replace("\"count\":10", "\"count\":11");
    });
    let message = refused(&bytes);
    assert!(message.contains("users ends at token 69, the vocabulary has 68"), "{message}");
}

#[test]
fn other_codes_are_taken_for_a_four_bit_matrix_of_that_shape_only() {
    let wi = "encoder.block.0.layer.1.DenseReluDense.wi.weight";
    let bundle = random_bundle(&Shape::default(), WeightFormat::Q4, 1);
    let [rows, columns] = [bundle.weight(wi).rows(), bundle.weight(wi).columns()];
    let ones = Q4 {
        columns,
        codes: vec![1; rows * columns],
        scales: vec![Q4::scale(0.5); rows * columns.div_ceil(Q4_GROUP)],
    };
    let changed = bundle.clone().with_codes(wi, ones.clone()).unwrap();
    assert_eq!(changed.weight(wi).to_f32(), vec![0.5; rows * columns]);
    let mut short = ones.clone();
    short.scales.truncate(3);
    let turned = Q4 {
        columns: rows,
        scales: vec![Q4::scale(0.5); rows * rows.div_ceil(Q4_GROUP)],
        ..ones.clone()
    };
    for (name, codes) in [
        ("no.such.weight", ones.clone()),
        ("shared.weight", Q4::nearest(columns, &bundle.weight("shared.weight").to_f32())),
        (wi, turned),
        (wi, short),
    ] {
        let message = bundle.clone().with_codes(name, codes).map(|_| ()).unwrap_err().to_string();
        assert!(message.contains(&format!("`{name}`: is no q4 matrix")), "{message}");
    }
}

#[test]
fn the_embedding_of_four_bit_bundles_has_eight_bits_or_four_and_nothing_else_has() {
    let bundle = random_bundle(&Shape::default(), WeightFormat::Q4, 1);
    let of = |bundle: &Bundle, name: &str| match bundle.weight(name).data {
        WeightData::Q8 { .. } => 8,
        WeightData::Q4 { .. } => 4,
        _ => 0,
    };
    assert_eq!(of(&bundle, "shared.weight"), 8);
    let narrow = with_matrix(&bundle, "shared.weight", WeightFormat::Q4);
    let narrow = Bundle::from_bytes(&narrow).unwrap();
    assert_eq!(of(&narrow, "shared.weight"), 4);
    for (name, _) in bundle.weights().iter().filter(|(name, weight)| {
        *name != "shared.weight" && matches!(weight.data, WeightData::Q4 { .. })
    }) {
        let wide = with_matrix(&bundle, name, WeightFormat::Q8);
        let message = Bundle::from_bytes(&wide).map(|_| ()).unwrap_err().to_string();
        assert!(message.contains(name) && message.contains("has type I8"), "{message}");
    }
}

#[test]
fn a_bundle_that_names_another_format_than_it_has_is_refused() {
    for format in WeightFormat::ALL {
        for named in WeightFormat::ALL.into_iter().filter(|named| *named != format) {
            let good = random_bundle(&Shape::default(), format, 1).to_bytes().unwrap();
            let header = u64::from_le_bytes(good[..8].try_into().unwrap()) as usize;
            let text = String::from_utf8(good[8..8 + header].to_vec()).unwrap();
            let field = |format: WeightFormat| format!("\"quantization\":\"{}\"", format.name());
            let renamed = text.trim_end().replace(&field(format), &field(named));
            assert_ne!(renamed, text.trim_end());
            let length = renamed.len().next_multiple_of(8);
            let start = (length as u64).to_le_bytes();
            let renamed = format!("{renamed:length$}");
            let bytes = [&start[..], renamed.as_bytes(), &good[8 + header..]].concat();
            let message = Bundle::from_bytes(&bytes).map(|_| ()).unwrap_err().to_string();
            assert!(message.contains("has type"), "{message}");
        }
    }
}

#[test]
fn weights_that_are_none_or_that_a_format_cannot_hold_are_refused() {
    let wi = "encoder.block.0.layer.1.DenseReluDense.wi.weight";
    let bundle = random_bundle(&Shape::default(), WeightFormat::F32, 1);
    let refused = |format, change: &dyn Fn(&mut Vec<usize>, &mut Vec<f32>)| {
        let made = reweighted(&bundle, format, |name, shape, values| {
            if name == wi {
                change(shape, values);
            }
        });
        made.map(|_| ()).unwrap_err().to_string()
    };
    let f32 = WeightFormat::F32;
    for (message, expected) in [
        (refused(f32, &|shape, _| shape.reverse()), "has shape [32, 64], "),
        (refused(f32, &|_, values| values.truncate(64)), "has shape [64, 32], "),
        (refused(f32, &|_, values| values[5] = f32::INFINITY), "value 5 is not finite"),
        (refused(f32, &|_, values| values[6] = f32::NAN), "value 6 is not finite"),
        (
            refused(WeightFormat::F16, &|_, values| values[5] = -65_505.0),
            "value 5 is -65505, more than f16",
        ),
        (
            refused(WeightFormat::Q4, &|_, values| values[5] = -458_529.0),
            "value 5 is -458529, more than q4",
        ),
    ] {
        assert!(message.contains(wi) && message.contains(expected), "{message}");
    }
}

#[test]
fn no_single_flipped_byte_of_the_header_panics() {
    let bundle =
        random_bundle(&Shape { items: 5, layers: (1, 1), ..Shape::default() }, WeightFormat::Q8, 1);
    let good = bundle.to_bytes().unwrap();
    let header = u64::from_le_bytes(good[..8].try_into().unwrap()) as usize;
    for at in 0..8 + header {
        for flip in [0x01, 0x20, 0xff] {
            let mut bytes = good.clone();
            bytes[at] ^= flip;
            // Refused or, where a byte is free (as in an unread name), accepted; never a panic.
            let _ = Bundle::from_bytes(&bytes);
        }
    }
}

#[test]
fn sizes_whose_products_exceed_a_pages_memory_are_refused() {
    let random = random_bundle(&Shape::default(), WeightFormat::F32, 1);
    let vocab_size = 1 << 20;
    let with = |heads, d_kv, layers, levels, max_items| {
        let sizes =
            T5Config { num_heads: heads, d_kv, num_layers: layers, ..random.config.clone() };
        let config = T5Config { num_decoder_layers: None, vocab_size, ..sizes };
        let layout = TokenLayout::contiguous(&vec![256; levels], 0, max_items);
        config.validate_with(&layout).map_err(|e| e.to_string())
    };
    // The paper's model, T5's base and large.
    for (heads, layers) in [(6, 4), (12, 12), (16, 24)] {
        assert_eq!(with(heads, 64, layers, 4, 20), Ok(()));
    }
    assert_eq!(with(12, 64, 12, 8, 512), Ok(()));
    let heads = "num_heads * d_kv is 262144, outside 1..=16384";
    assert!(with(256, 1024, 1, 4, 20).unwrap_err().contains(heads));
    assert!(with(usize::MAX, usize::MAX, usize::MAX, 4, 20).is_err());
    // 2^15 numbers a row: 512 beams at 8 levels, and what is left of 2^13 rows for items and `eos`.
    assert_eq!(with(256, 64, 1, 8, 511), Ok(()));
    let input = "keep 268468224 numbers of an input of 4097 tokens and 512 beams at 8 levels, more";
    let refused = with(256, 64, 1, 8, 512).map_or_else(|e| e, |()| String::new());
    assert!(refused.contains(input), "{refused}");
    assert!(with(4, 1024, 64, 8, 512).unwrap_err().contains("config"));
    // A head of one number takes as much as one of 16.
    for d_kv in [1, 16] {
        assert_eq!(with(256, d_kv, 12, 4, 20), Ok(()));
        assert!(with(256, d_kv, 16, 4, 20).is_err());
    }
}
