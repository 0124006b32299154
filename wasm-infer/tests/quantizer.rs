//! The quantiser against plain loops, its file, and the assignment of new items.

use proptest::prelude::*;
use tigret_infer::quantizer::{TakenCodes, assign};
use tigret_infer::testing::{Random, random_quantizer};
use tigret_infer::{
    Catalog, CatalogItem, NewItem, Quantizer, QuantizerConfig, Structure, TokenLayout,
};

const STRUCTURES: [Structure; 5] = [
    Structure::Residual,
    Structure::Product,
    Structure::Tree,
    Structure::Hyperplanes,
    Structure::Hash,
];

fn config(structure: Structure, input: usize, sizes: &[u32], widths: &[usize]) -> QuantizerConfig {
    let hash = structure == Structure::Hash;
    QuantizerConfig {
        method: "test".into(),
        structure,
        input: if hash { 0 } else { input },
        learned: 0,
        unit_length: false,
        sizes: sizes.to_vec(),
        widths: if hash { vec![] } else { widths.to_vec() },
        seed: 7,
    }
}

fn new(id: &str, embedding: &[f32]) -> NewItem {
    NewItem { id: id.into(), embedding: embedding.to_vec() }
}

fn ids(items: usize) -> Vec<String> {
    (0..items).map(|i| format!("item-{i}")).collect()
}

/// The latent vector of one content vector, by the definition.
fn plain_latent(quantizer: &Quantizer, vector: &[f32]) -> Vec<f64> {
    let t = quantizer.tensors();
    let mut x: Vec<f64> = vector
        .iter()
        .zip(&t.mean)
        .zip(&t.scale)
        .map(|((x, m), s)| (f64::from(*x) - f64::from(*m)) * f64::from(*s))
        .collect();
    for (index, (weight, bias)) in t.layers.iter().enumerate() {
        let relu = index + 1 < t.layers.len();
        x = weight
            .chunks_exact(x.len())
            .zip(bias)
            .map(|(row, b)| {
                let sum = row.iter().zip(&x).map(|(w, x)| f64::from(*w) * x).sum::<f64>();
                let sum = sum + f64::from(*b);
                if relu { sum.max(0.0) } else { sum }
            })
            .collect();
    }
    x
}

fn distance(x: &[f64], centre: &[f32]) -> f64 {
    x.iter().zip(centre).map(|(x, c)| (x - f64::from(*c)).powi(2)).sum()
}

/// Whether `code` is, up to rounding, the nearest of `centres`.
fn is_nearest(x: &[f64], centres: &[f32], code: u16) -> bool {
    let distances: Vec<f64> = centres.chunks_exact(x.len()).map(|c| distance(x, c)).collect();
    let least = distances.iter().copied().fold(f64::INFINITY, f64::min);
    distances[usize::from(code)] <= least + 1e-4 * (1.0 + least)
}

fn check_codes(quantizer: &Quantizer, vector: &[f32], codes: &[u16]) {
    let mut latent = plain_latent(quantizer, vector);
    let t = quantizer.tensors();
    let levels = codes.len();
    let mut node = 0;
    for (level, &code) in codes.iter().enumerate() {
        let codebook = &t.codebooks[level];
        match quantizer.config().structure {
            Structure::Residual => {
                assert!(is_nearest(&latent, codebook, code));
                let width = latent.len();
                let codeword = &codebook[usize::from(code) * width..][..width];
                latent.iter_mut().zip(codeword).for_each(|(r, e)| *r -= f64::from(*e));
            }
            Structure::Product => {
                let width = latent.len() / levels;
                assert!(is_nearest(&latent[level * width..][..width], codebook, code));
            }
            Structure::Tree => {
                let starts = &t.first_child[level];
                let width = latent.len();
                let children =
                    &codebook[starts[node] as usize * width..starts[node + 1] as usize * width];
                assert!(is_nearest(&latent, children, code));
                node = starts[node] as usize + usize::from(code);
            }
            Structure::Hyperplanes => {
                let width = latent.len();
                let normals: Vec<&[f32]> = codebook.chunks_exact(width).collect();
                for (bit, normal) in normals.iter().enumerate() {
                    let side: f64 =
                        latent.iter().zip(*normal).map(|(x, n)| x * f64::from(*n)).sum();
                    let set = code >> (normals.len() - 1 - bit) & 1 == 1;
                    assert!(side.abs() < 1e-4 || (side > 0.0) == set);
                }
            }
            Structure::Hash => unreachable!("has no vector"),
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn codes_follow_the_definition_and_do_not_depend_on_the_batch(
        structure in 0usize..4,
        items in 1usize..230,
        width in 1usize..20,
        levels in 1usize..5,
        layers in 0usize..3,
        seed in 0u64..1000,
    ) {
        let structure = STRUCTURES[structure];
        let sizes: Vec<u32> = match structure {
            Structure::Hyperplanes => (0..levels).map(|l| 1 << (l + 1)).collect(),
            _ => (0..levels).map(|l| 1 + (seed as u32 + 3 * l as u32) % 9).collect(),
        };
        let latent = width * levels;
        let widths: Vec<usize> = (0..layers).map(|l| if l + 1 == layers { latent } else { 13 }).collect();
        let input = if layers == 0 { latent } else { 11 };
        let quantizer = random_quantizer(config(structure, input, &sizes, &widths), seed).unwrap();
        let mut random = Random::new(seed + 1);
        let vectors: Vec<f32> = (0..items * input).map(|_| random.signed()).collect();
        let ids = ids(items);
        let all = quantizer.encode(&ids, &vectors);
        prop_assert_eq!(all.len(), items * levels);
        for item in 0..items {
            let vector = &vectors[item * input..][..input];
            let codes = &all[item * levels..][..levels];
            prop_assert_eq!(&quantizer.encode(&ids[item..=item], vector), codes);
            check_codes(&quantizer, vector, codes);
        }
        let back = Quantizer::from_bytes(&quantizer.to_bytes(Default::default()).unwrap()).unwrap();
        prop_assert_eq!(back.encode(&ids, &vectors), all);
        prop_assert_eq!(back, quantizer);
    }
}

#[test]
fn codes_drawn_from_ids_fill_every_code_evenly_and_depend_on_seed_and_level() {
    let quantizer = random_quantizer(config(Structure::Hash, 0, &[16, 16], &[]), 0).unwrap();
    let ids = ids(16_000);
    let codes = quantizer.encode(&ids, &[]);
    for level in 0..2 {
        let mut counts = [0; 16];
        codes.chunks_exact(2).for_each(|row| counts[usize::from(row[level])] += 1);
        assert!(counts.iter().all(|&c| (850..1150).contains(&c)), "{counts:?}");
    }
    let equal = codes.chunks_exact(2).filter(|row| row[0] == row[1]).count();
    assert!((800..1200).contains(&equal), "levels are independent: {equal} of 16000 agree");
}

#[test]
fn codes_drawn_from_ids_are_those_of_the_documented_formula() {
    let config = config(Structure::Hash, 0, &[256, 65_536, 10], &[]);
    let codes = random_quantizer(config, 0).unwrap().encode(&["emma", "", "Zürich"], &[]);
    assert_eq!(codes, [80, 14_128, 4, 164, 38_391, 0, 231, 56_352, 7]);
}

#[test]
fn a_tie_goes_to_the_smaller_code() {
    for structure in &STRUCTURES[..4] {
        let drawn = random_quantizer(config(*structure, 4, &[4, 4], &[]), 5).unwrap();
        let mut tensors = drawn.tensors().clone();
        // All codewords are equally near, and every vector lies on every hyperplane.
        tensors.codebooks.iter_mut().for_each(|codebook| codebook.fill(0.0));
        let flat = Quantizer::new(drawn.config().clone(), tensors).unwrap();
        assert_eq!(flat.encode(&["x"], &[0.5, -0.25, 1.0, 0.0]), [0, 0], "{structure:?}");
    }
}

#[test]
fn the_latent_vector_of_a_codeword_has_its_codes() {
    for structure in [Structure::Residual, Structure::Product, Structure::Tree] {
        let quantizer = random_quantizer(config(structure, 12, &[5, 4], &[]), 3).unwrap();
        let vector = quantizer.latent_of_codes(&[2, 0]).unwrap();
        assert_eq!(vector.len(), 12);
        let t = quantizer.tensors();
        let row = |level: usize, at: usize| t.codebooks[level].chunks_exact(12).nth(at).unwrap();
        match structure {
            Structure::Residual => {
                let sum = row(0, 2).iter().zip(row(1, 0)).map(|(a, b)| a + b);
                assert!(vector.iter().copied().eq(sum));
            }
            Structure::Tree => {
                assert_eq!(vector, row(1, t.first_child[1][2] as usize));
                assert_eq!(quantizer.latent_of_codes(&[]), None);
            }
            _ => {
                // The parts of a product are their own nearest codewords.
                let scaled = vector.iter().zip(&t.scale).zip(&t.mean);
                let raw: Vec<f32> = scaled.map(|((x, s), m)| x / s + m).collect();
                assert_eq!(quantizer.encode(&["x"], &raw), [2, 0]);
            }
        }
    }
    for structure in [Structure::Hyperplanes, Structure::Hash] {
        let quantizer = random_quantizer(config(structure, 12, &[4, 4], &[]), 3).unwrap();
        assert!(quantizer.latent_of_codes(&[0, 0]).is_none());
    }
}

#[test]
fn numbers_that_do_not_fit_the_sizes_are_refused_by_name() {
    let good = random_quantizer(config(Structure::Tree, 6, &[3, 2], &[6]), 1).unwrap();
    let refused = |change: &dyn Fn(&mut QuantizerConfig, &mut tigret_infer::QuantizerTensors)| {
        let (mut config, mut tensors) = (good.config().clone(), good.tensors().clone());
        change(&mut config, &mut tensors);
        Quantizer::new(config, tensors).unwrap_err().to_string()
    };
    for (message, error) in [
        ("quantizer.mean", refused(&|_, t| t.mean.truncate(5))),
        ("quantizer.scale", refused(&|_, t| t.scale[2] = f32::NAN)),
        ("quantizer.layer", refused(&|_, t| t.layers.push((vec![], vec![])))),
        ("quantizer.layer.0.weight", refused(&|_, t| t.layers[0].0.truncate(35))),
        ("quantizer.layer.0.bias", refused(&|_, t| t.layers[0].1.truncate(5))),
        ("quantizer.codebook`: 1 of them, not 2", refused(&|_, t| t.codebooks.truncate(1))),
        ("quantizer.codebook.1", refused(&|_, t| t.codebooks[1][0] = f32::INFINITY)),
        ("quantizer.codebook.0", refused(&|_, t| t.codebooks[0].truncate(17))),
        ("quantizer.first_child.0", refused(&|_, t| t.first_child[0] = vec![0, 2])),
        ("quantizer.first_child.1", refused(&|_, t| t.first_child[1].truncate(3))),
        ("does not run from 0 to the level's 3 nodes", refused(&|_, t| t.first_child[0][0] = 1)),
        ("node 0 does not have 1 to 2 children", refused(&|_, t| t.first_child[1][1] = 0)),
        ("node 0 does not have 1 to 1 children", refused(&|c, _| c.sizes[1] = 1)),
        ("0 levels, outside 1..=7", refused(&|c, _| c.sizes.clear())),
        ("8 levels, outside 1..=7", refused(&|c, _| c.sizes = vec![2; 8])),
        ("a level of 0 codes", refused(&|c, _| c.sizes[0] = 0)),
        ("a level of 65537 codes, outside 1..=65536", refused(&|c, _| c.sizes[0] = 65_537)),
        ("a width of 0", refused(&|c, _| c.input = 0)),
        ("a width of 65537, outside 1..=65536", refused(&|c, _| c.widths = vec![65_537])),
        ("17 layers, more than 16", refused(&|c, _| c.widths = vec![6; 17])),
        ("6 of 6 inputs are learned", refused(&|c, _| c.learned = 6)),
        ("power of two", refused(&|c, _| c.structure = Structure::Hyperplanes)),
        ("multiple of 4 levels", {
            refused(&|c, _| (c.structure, c.sizes) = (Structure::Product, vec![2; 4]))
        }),
    ] {
        assert!(error.contains(message), "\"{error}\" does not name \"{message}\"");
    }
    for (input, learned, widths) in [(1, 0, vec![]), (0, 1, vec![]), (0, 0, vec![3])] {
        let drawn = config(Structure::Hash, 0, &[3, 2], &[]);
        let refused = QuantizerConfig { input, learned, widths, ..drawn }.validate().unwrap_err();
        assert!(refused.to_string().contains("no input and no layers"), "{refused}");
    }
}

#[test]
fn the_children_of_a_tree_are_a_list_of_unsigned_integers_in_its_file() {
    let tree = random_quantizer(config(Structure::Tree, 6, &[3, 2], &[]), 1).unwrap();
    let bytes = tree.to_bytes(Default::default()).unwrap();
    let refused = |from: &[u8], to: &[u8], found: &str| {
        let at = bytes.windows(from.len()).position(|word| word == from).unwrap();
        // The header is padded with spaces, of which a longer shape takes some.
        let grown = to.len() - from.len();
        let end = 8 + u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
        assert!(bytes[end - grown..end].iter().all(|&byte| byte == b' '));
        let rest = &bytes[at + from.len()..end - grown];
        let changed = [&bytes[..at], to, rest, &bytes[end..]].concat();
        let refused = Quantizer::from_bytes(&changed).unwrap_err().to_string();
        let expected = format!("`quantizer.first_child.0`: is {found}, not a list of U32");
        assert!(refused.contains(&expected), "{refused}");
    };
    refused(b"\"U32\"", b"\"I32\"", "I32 [2]");
    refused(b"\"U32\",\"shape\":[2]", b"\"U32\",\"shape\":[1,2]", "U32 [1, 2]");
}

#[test]
fn a_semantic_id_that_is_noted_twice_is_taken_once() {
    let mut taken = TakenCodes::new(4);
    for codes in [[5, 0], [5, 0], [5, 1], [6, 0]] {
        taken.insert(&codes);
    }
    assert_eq!([(); 3].map(|()| taken.take(&[5])), [Some(2), Some(3), None]);
    assert_eq!(taken.take(&[7]), Some(0));
}

#[test]
fn a_new_item_takes_the_next_free_code_and_a_full_group_is_refused_by_name() {
    let quantizer = random_quantizer(config(Structure::Residual, 4, &[3, 3], &[]), 5).unwrap();
    let vector = [0.3, -0.2, 0.9, 0.0];
    let codes = quantizer.encode(&["new"], &vector);
    let layout = TokenLayout::contiguous(&[3, 3, 3], 0, 5);
    let catalog = |last: &[u32]| {
        let item = |last: &u32| CatalogItem {
            id: format!("old-{last}"),
            codes: vec![codes[0].into(), codes[1].into(), *last],
        };
        let other =
            CatalogItem { id: "other".into(), codes: vec![2 - u32::from(codes[0] > 1), 2, 2] };
        let other_is_apart = other.codes[0] != u32::from(codes[0]) || codes[1] != 2;
        assert!(other_is_apart, "the other item is not of the group");
        let items = last.iter().map(item).chain([other]).collect();
        Catalog::from_items(items, &layout).unwrap()
    };
    for (taken, free) in [
        (&[][..], Some(0)),
        (&[0], Some(1)),
        (&[1], Some(0)),
        (&[0, 2], Some(1)),
        (&[0, 1, 2], None),
    ] {
        let assigned = assign(&quantizer, &layout, &catalog(taken), &[new("new", &vector)]);
        match free {
            Some(code) => assert_eq!(assigned.unwrap(), [[codes[0], codes[1], code]]),
            None => {
                let error = assigned.unwrap_err().to_string();
                assert!(error.contains("\"new\"") && error.contains("are taken"), "{error}");
            }
        }
    }
    let catalog = catalog(&[0]);
    for (id, vector, message) in [
        ("old-0", &vector[..], "already in the catalogue"),
        ("new", &vector[..3], "has 3 numbers"),
        ("new", &[0.0, f32::NAN, 0.0, 0.0], "number 1 of its embedding is NaN"),
        ("new", &[0.0, 0.0, -1e16, 0.0], "number 2 of its embedding is -1"),
    ] {
        let error =
            assign(&quantizer, &layout, &catalog, &[new(id, vector)]).unwrap_err().to_string();
        assert!(error.contains(message) && error.contains(id), "{error}");
    }
}

#[test]
fn what_only_interactions_tell_is_zero_for_a_new_item() {
    let mut config = config(Structure::Residual, 6, &[4, 4], &[5]);
    config.learned = 2;
    let quantizer = random_quantizer(config, 9).unwrap();
    let layout = TokenLayout::contiguous(&[4, 4, 8], 0, 5);
    let item = CatalogItem { id: "old".into(), codes: vec![0, 0, 7] };
    let catalog = Catalog::from_items(vec![item], &layout).unwrap();
    let (mut random, mut telling) = (Random::new(1), 0);
    for _ in 0..50 {
        let own = [(); 4].map(|()| random.signed());
        let assigned = assign(&quantizer, &layout, &catalog, &[new("new", &own)]).unwrap();
        let with = |unknown: &[f32]| quantizer.encode(&["new"], &[&own[..], unknown].concat());
        assert_eq!(assigned[0][..2], with(&[0.0; 2]));
        telling += usize::from(assigned[0][..2] != with(&[1.0; 2]));
    }
    assert!(telling > 0, "these numbers decide nothing here");
}

#[test]
fn codes_drawn_from_ids_look_at_no_embedding() {
    let quantizer = random_quantizer(config(Structure::Hash, 0, &[9, 9], &[]), 0).unwrap();
    let layout = TokenLayout::contiguous(&[9, 9, 8], 0, 5);
    let item = CatalogItem { id: "old".into(), codes: vec![0, 0, 7] };
    let catalog = Catalog::from_items(vec![item], &layout).unwrap();
    let codes = |embedding: &[f32]| assign(&quantizer, &layout, &catalog, &[new("a", embedding)]);
    assert_eq!(codes(&[]).unwrap(), codes(&[f32::NAN, 1.0]).unwrap());
    assert_eq!(codes(&[]).unwrap()[0][..2], quantizer.encode(&["a"], &[]));
}

#[test]
fn vectors_of_any_length_get_the_codes_of_length_1_where_the_quantiser_was_fitted_to_such() {
    for structure in STRUCTURES.into_iter().filter(|structure| *structure != Structure::Hash) {
        let mut config = config(structure, 8, &[4, 4], &[]);
        config.learned = 2;
        config.unit_length = true;
        let quantizer = random_quantizer(config.clone(), 3).unwrap();
        config.unit_length = false;
        let plain = random_quantizer(config, 3).unwrap();
        let ids = ids(40);
        let mut random = Random::new(5);
        let drawn: Vec<f32> = (0..40 * 8).map(|_| random.signed()).collect();
        let scaled = |by: f32| -> Vec<f32> {
            let part = |(at, x): (usize, &f32)| if at % 8 < 6 { x * by } else { *x };
            drawn.iter().enumerate().map(part).collect()
        };
        let codes = quantizer.encode(&ids, &scaled(1.0));
        assert_eq!(quantizer.encode(&ids, &scaled(64.0)), codes, "{structure:?}");
        let zeros = [0.0; 8];
        assert_eq!(quantizer.encode(&["zeros"], &zeros), plain.encode(&["zeros"], &zeros));
    }
}
