//! One door to every tokenizer: vectors in, a quantiser and the codes of all items out.

use indicatif::ProgressBar;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use tch::{Device, Kind, Tensor};
use tigret_infer::{Quantizer, QuantizerConfig, QuantizerTensors, Structure};

use super::autoencoder::{CODEBOOKS, Shape};
use super::check::check;
use super::codes::{encode, lost_variance, separate};
use super::settings::{Method, Normalise, Settings};
use super::state::Keeper;
use super::train::{Trained, train};
use super::{hierarchical_kmeans, opq, residual_kmeans};
use crate::embed::Vectors;
use crate::error::{Result, TrainError};
use crate::model::params::{Params, to_vec};
use crate::random;

/// A fitted tokenizer.
#[derive(Debug)]
pub struct Fitted {
    /// What gives a vector its codes.
    pub quantizer: Quantizer,
    /// Codes of all items, row-major `[items, levels]`, before collisions are resolved.
    pub codes: Vec<u16>,
    /// Items whose last code is not the nearest codeword's, since the last level was balanced.
    pub moved: usize,
    /// Share of the normalised vectors' variance that the codes lose; none where codes stand for
    /// no vector.
    pub reconstruction: Option<f64>,
    /// Of the methods with an autoencoder: the log, the epochs, whether they sufficed.
    pub training: Option<Trained>,
}

/// The numbers of a quantiser while it is put together, and the decoder if there is one.
struct Parts {
    structure: Structure,
    widths: Vec<usize>,
    tensors: QuantizerTensors,
    decoder: Option<(Shape, Params)>,
    training: Option<Trained>,
}

/// Fits a tokenizer to the vectors of the items `ids`.
///
/// `keeper` is for the methods with an autoencoder; the others take seconds.
///
/// # Errors
/// [`TrainError::Usage`] for settings that do not fit the vectors, or a loss that is not a number;
/// [`TrainError::Interrupted`] after the state of the training is saved.
pub fn fit(
    settings: &Settings,
    ids: &[&str],
    vectors: &Vectors,
    device: Device,
    keeper: &mut Keeper<'_>,
    progress: &ProgressBar,
) -> Result<Fitted> {
    check(settings, ids, vectors)?;
    let items = ids.len();
    let sizes: Vec<i64> = settings.sizes.iter().map(|&size| size.into()).collect();
    let mut rng = ChaCha8Rng::seed_from_u64(settings.seed);
    let raw = Tensor::from_slice(&vectors.data)
        .view([items as i64, vectors.dimensions as i64])
        .to_device(device);
    let (mean, scale) = normalisation(settings, &raw);
    let data = (raw - &mean) * &scale;
    let mut parts = match settings.method {
        Method::RqVae | Method::VqVae => autoencoder(settings, sizes, &data, keeper, progress)?,
        Method::RqKmeans => plain(Structure::Residual, {
            residual_kmeans::codebooks(&data, &sizes, &mut rng).iter().map(to_vec).collect()
        }),
        Method::HierarchicalKmeans => {
            let tree = hierarchical_kmeans::tree(&data, &sizes, &mut rng);
            let mut parts = plain(Structure::Tree, tree.centres.iter().map(to_vec).collect());
            parts.tensors.first_child = tree.first_child;
            parts
        }
        Method::Lsh => {
            let normals = |size: &i64| {
                let bits = i64::from(size.trailing_zeros());
                to_vec(&Tensor::randn([bits, data.size()[1]], (Kind::Float, Device::Cpu)))
            };
            let levels = || sizes.iter().map(normals).collect();
            plain(Structure::Hyperplanes, random::seeded(settings.seed, levels))
        }
        Method::Random => plain(Structure::Hash, Vec::new()),
        Method::Opq => {
            let product = opq::fit(&data, &sizes, &mut rng);
            let width = product.rotation.size()[0] as usize;
            let mut parts =
                plain(Structure::Product, product.codebooks.iter().map(to_vec).collect());
            parts.widths = vec![width];
            parts.tensors.layers = vec![(to_vec(&product.rotation), vec![0.0; width])];
            parts
        }
    };
    let hash = parts.structure == Structure::Hash;
    if !hash {
        parts.tensors.mean = to_vec(&mean);
        parts.tensors.scale = to_vec(&scale);
    }
    let config = QuantizerConfig {
        method: settings.method.name().to_owned(),
        structure: parts.structure,
        input: if hash { 0 } else { vectors.dimensions },
        learned: if hash { 0 } else { settings.learned },
        unit_length: !hash && settings.unit_length,
        sizes: settings.sizes.clone(),
        widths: parts.widths,
        seed: settings.seed,
    };
    let quantizer = Quantizer::new(config, parts.tensors)?;
    let mut codes = encode(&quantizer, ids, &vectors.data);
    let moved = match settings.balance_last {
        true => separate(&quantizer, &data, parts.decoder.as_ref(), &mut codes),
        false => 0,
    };
    let reconstruction = lost_variance(&quantizer, &codes, &data, parts.decoder.as_ref());
    Ok(Fitted { quantizer, codes, moved, reconstruction, training: parts.training })
}

fn plain(structure: Structure, codebooks: Vec<Vec<f32>>) -> Parts {
    let tensors = QuantizerTensors { codebooks, ..QuantizerTensors::default() };
    Parts { structure, widths: Vec::new(), tensors, decoder: None, training: None }
}

/// What is subtracted from a vector and multiplied with the rest, `[input]` each.
fn normalisation(settings: &Settings, raw: &Tensor) -> (Tensor, Tensor) {
    let &Settings { method, normalise, learned, .. } = settings;
    let mean = raw.mean_dim([0].as_slice(), false, Kind::Float);
    let ones = mean.ones_like();
    match normalise {
        // Where codes follow from distances alone the mean changes none of them, but for rounding: far
        // from the origin that would be larger than the distances.
        Normalise::None if method.is_kmeans() => (mean, ones),
        Normalise::None => (mean.zeros_like(), ones),
        Normalise::Center => (mean, ones),
        Normalise::Scale | Normalise::Standardize => {
            let variance = (raw - &mean).square().mean_dim([0].as_slice(), false, Kind::Float);
            let variance = match normalise {
                Normalise::Scale => ones * variance.mean(Kind::Float),
                _ => {
                    // The learned numbers keep their weight beside the content's.
                    let learned = learned as i64;
                    let content = variance.narrow(0, 0, variance.size()[0] - learned);
                    let common = content.mean(Kind::Float).expand([learned], false);
                    Tensor::cat(&[content, common], 0)
                }
            };
            // A constant dimension is refused before; the bound keeps a vanishing one finite.
            (mean, variance.clamp_min(1e-12).rsqrt())
        }
    }
}

fn autoencoder(
    settings: &Settings,
    sizes: Vec<i64>,
    data: &Tensor,
    keeper: &mut Keeper<'_>,
    progress: &ProgressBar,
) -> Result<Parts> {
    let Some(training) = &settings.autoencoder else {
        return Err(TrainError::usage("an autoencoder needs its settings"));
    };
    let shape = Shape {
        input: data.size()[1],
        hidden: training.hidden.clone(),
        codeword: training.codeword,
        sizes,
        residual: settings.method == Method::RqVae,
    };
    let (params, trained) = train(&shape, settings, training, data, keeper, progress)?;
    let host = params.to_host();
    let values = |name: String| host[&name].1.clone();
    let layers = 0..=shape.hidden.len();
    let mut all = values(CODEBOOKS.to_owned());
    let codebooks: Vec<Vec<f32>> = shape
        .sizes
        .iter()
        .map(|size| {
            let rest = all.split_off((size * shape.codeword) as usize);
            std::mem::replace(&mut all, rest)
        })
        .collect();
    let tensors = QuantizerTensors {
        layers: layers
            .map(|i| (values(format!("encoder.{i}.weight")), values(format!("encoder.{i}.bias"))))
            .collect(),
        codebooks,
        ..QuantizerTensors::default()
    };
    Ok(Parts {
        structure: if shape.residual { Structure::Residual } else { Structure::Product },
        widths: shape.widths().iter().map(|&width| width as usize).collect(),
        tensors,
        decoder: Some((shape, params)),
        training: Some(trained),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::testing::on_cpu_and_cuda;
    use crate::tokenizer::autoencoder::Gradient;
    use crate::tokenizer::settings::{Autoencoder, Epochs, OptimizerKind};
    use crate::workers::testing::with_threads;
    use clap::ValueEnum;
    use rand::Rng;

    fn settings(method: Method) -> Settings {
        let autoencoder = Autoencoder {
            hidden: vec![16, 8],
            codeword: 4,
            optimizer: OptimizerKind::Adamw,
            learning_rate: 1e-2,
            batch: 64,
            epochs: Epochs::Exactly(60),
            beta: 0.25,
            gradient: Gradient::StraightThrough,
            revive: true,
        };
        Settings {
            method,
            sizes: vec![8, 4, 16],
            normalise: Normalise::None,
            balance_last: false,
            autoencoder: method.has_autoencoder().then_some(autoencoder),
            learned: 0,
            unit_length: false,
            seed: 3,
        }
    }

    fn items(count: usize) -> (Vec<String>, Vectors) {
        let mut rng = ChaCha8Rng::seed_from_u64(5);
        let data = (0..count * 10).map(|i| {
            // Six clusters with some noise.
            let cluster = (i / 10 % 6) as f32;
            (cluster * (1.0 + (i % 10) as f32)).sin() + rng.random::<f32>() * 0.5
        });
        let vectors = Vectors { dimensions: 10, data: data.collect() };
        ((0..count).map(|i| format!("item-{i}")).collect(), vectors)
    }

    fn fit_to(settings: &Settings, ids: &[String], vectors: &Vectors) -> Result<Fitted> {
        let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
        fit(settings, &ids, vectors, Device::Cpu, &mut Keeper::none(), &ProgressBar::hidden())
    }

    #[test]
    fn every_method_gives_codes_in_range_and_the_same_for_the_same_seed() {
        let (ids, vectors) = items(300);
        for &method in Method::value_variants() {
            let settings = settings(method);
            let fitted = fit_to(&settings, &ids, &vectors).unwrap();
            assert_eq!(fitted.codes.len(), 300 * 3, "{method:?}");
            for row in fitted.codes.chunks_exact(3) {
                let fits = row.iter().zip(&settings.sizes).all(|(&c, &size)| u32::from(c) < size);
                assert!(fits, "{method:?}: {row:?}");
            }
            let again = fit_to(&settings, &ids, &vectors).unwrap();
            assert_eq!(again.codes, fitted.codes, "{method:?}");
            assert_eq!(again.quantizer, fitted.quantizer, "{method:?}");
            let other = fit_to(&Settings { seed: 4, ..settings }, &ids, &vectors).unwrap();
            assert_ne!(other.codes, fitted.codes, "{method:?} ignores its seed");
        }
    }

    #[test]
    fn every_option_of_the_autoencoder_acts() {
        let (ids, vectors) = items(120);
        let chosen = settings(Method::RqVae);
        let base =
            Autoencoder { epochs: Epochs::Exactly(12), ..chosen.autoencoder.clone().unwrap() };
        let with = |autoencoder: Autoencoder| {
            let whole = Settings { autoencoder: Some(autoencoder), ..chosen.clone() };
            fit_to(&whole, &ids, &vectors).unwrap().quantizer
        };
        let quantizer = with(base.clone());
        assert!(with(base.clone()) == quantizer, "the same again");
        let (optimizer, epochs) = (OptimizerKind::Adagrad, Epochs::Exactly(13));
        for (name, other) in [
            ("optimizer", Autoencoder { optimizer, ..base.clone() }),
            ("learning_rate", Autoencoder { learning_rate: 5e-3, ..base.clone() }),
            ("batch", Autoencoder { batch: 40, ..base.clone() }),
            ("epochs", Autoencoder { epochs, ..base.clone() }),
            ("beta", Autoencoder { beta: 0.5, ..base.clone() }),
            ("gradient", Autoencoder { gradient: Gradient::Rotation, ..base.clone() }),
            ("revive", Autoencoder { revive: false, ..base.clone() }),
        ] {
            assert!(with(other) != quantizer, "{name} has no effect");
        }
    }

    #[test]
    fn every_method_fits_alike_on_cpu_and_cuda() {
        let (ids, vectors) = items(300);
        let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
        let fit_on = |settings: &Settings, device| {
            let hidden = ProgressBar::hidden();
            fit(settings, &ids, &vectors, device, &mut Keeper::none(), &hidden).unwrap()
        };
        // The reconstruction error of each of the first epochs.
        let begin = |fitted: &Fitted| -> Vec<f64> {
            let lines = fitted.training.iter().flat_map(|training| &training.log).take(5);
            let error = |line: &String| {
                let line: serde_json::Value = serde_json::from_str(line).unwrap();
                line["reconstruction"].as_f64().unwrap()
            };
            lines.map(error).collect()
        };
        for (method, balance_last) in Method::value_variants()
            .iter()
            .map(|&method| (method, false))
            .chain([(Method::RqVae, true)])
        {
            let settings = Settings { balance_last, ..settings(method) };
            let expected = fit_on(&settings, Device::Cpu);
            on_cpu_and_cuda(|device| {
                let found = fit_on(&settings, device);
                let at = format!("{method:?} on {device:?}");
                for (found, expected) in begin(&found).iter().zip(begin(&expected)) {
                    assert!((found / expected - 1.0).abs() < 0.02, "{at}: {found}, {expected}");
                }
                let lost = |fitted: &Fitted| fitted.reconstruction.unwrap_or_default();
                let off = (lost(&found) - lost(&expected)).abs();
                assert!(off < 0.05, "{at}: {}, not {}", lost(&found), lost(&expected));
            });
        }
    }

    #[test]
    fn codes_that_stand_for_vectors_restore_most_of_them() {
        let (ids, vectors) = items(300);
        for &method in Method::value_variants() {
            let lost = fit_to(&settings(method), &ids, &vectors).unwrap().reconstruction;
            match method {
                Method::Lsh | Method::Random => assert!(lost.is_none()),
                // 60 epochs are few for an autoencoder; it must have begun to learn.
                Method::RqVae | Method::VqVae => {
                    assert!(lost.unwrap() < 0.9, "{method:?} {lost:?}")
                }
                _ => assert!(lost.unwrap() < 0.25, "{method:?} loses {lost:?}"),
            }
        }
    }

    #[test]
    fn normalising_takes_out_mean_and_scale() {
        let (ids, vectors) = items(200);
        let moved = Vectors {
            dimensions: 10,
            data: vectors.data.iter().map(|x| x * 64.0 + 512.0).collect(),
        };
        for normalise in [Normalise::Scale, Normalise::Standardize] {
            let settings = Settings { normalise, ..settings(Method::RqKmeans) };
            let one = fit_to(&settings, &ids, &vectors).unwrap().codes;
            let other = fit_to(&settings, &ids, &moved).unwrap().codes;
            let same = one.iter().zip(&other).filter(|(a, b)| a == b).count();
            assert!(same * 100 >= one.len() * 95, "{normalise:?}: {same} of {}", one.len());
        }
    }

    #[test]
    fn learned_numbers_keep_their_weight_whatever_is_done_to_the_vectors() {
        let (ids, vectors) = items(200);
        // The last four of ten are learned.
        let weighted = |weight: f32| {
            let data = vectors.data.iter().enumerate();
            let data = data.map(|(at, x)| if at % 10 < 6 { *x } else { x * weight }).collect();
            Vectors { dimensions: 10, data }
        };
        for normalise in [Normalise::Scale, Normalise::Standardize] {
            let settings = Settings { normalise, learned: 4, ..settings(Method::RqKmeans) };
            let codes = |weight| fit_to(&settings, &ids, &weighted(weight)).unwrap().codes;
            assert_ne!(codes(0.01), codes(100.0), "{normalise:?}");
        }
    }

    #[test]
    fn codes_of_kmeans_do_not_depend_on_the_origin() {
        let (ids, vectors) = items(200);
        let far = vectors.data.iter().map(|x| x + 10_000.0).collect();
        let far = Vectors { dimensions: 10, data: far };
        for method in [Method::RqKmeans, Method::HierarchicalKmeans, Method::Opq] {
            let lost = |vectors| fit_to(&settings(method), &ids, vectors).unwrap().reconstruction;
            let (near, far) = (lost(&vectors).unwrap(), lost(&far).unwrap());
            // The vectors themselves are rounded to a thousandth there.
            assert!((near - far).abs() < 0.03, "{method:?}: {near} and {far}");
        }
    }

    #[test]
    fn a_balanced_last_level_tells_items_apart() {
        let (ids, vectors) = items(200);
        for method in [Method::RqVae, Method::RqKmeans] {
            let plain = settings(method);
            let balanced = Settings { balance_last: true, ..plain.clone() };
            let distinct = |settings: &Settings| {
                let fitted = fit_to(settings, &ids, &vectors).unwrap();
                crate::tokenizer::collisions::collisions(&fitted.codes, 3).distinct
            };
            assert!(distinct(&balanced) > distinct(&plain), "{method:?}");
        }
    }

    #[test]
    fn a_column_that_hardly_varies_never_gives_a_number_that_is_not_finite() {
        let (ids, mut vectors) = items(60);
        // Constant but for one item, by the least that f32 can tell apart.
        for row in 0..60 {
            vectors.data[10 * row + 4] = if row == 7 { 1.0 + f32::EPSILON } else { 1.0 };
            vectors.data[10 * row + 5] = if row == 9 { 1e-30 } else { 0.0 };
        }
        for &method in Method::value_variants() {
            for normalise in
                [Normalise::None, Normalise::Center, Normalise::Scale, Normalise::Standardize]
            {
                let settings = Settings { normalise, sizes: vec![4, 4], ..settings(method) };
                let fitted = fit_to(&settings, &ids, &vectors).unwrap();
                let bytes = fitted.quantizer.to_bytes(Default::default()).unwrap();
                assert!(Quantizer::from_bytes(&bytes).is_ok(), "{method:?} {normalise:?}");
                let lost = fitted.reconstruction;
                assert!(lost.is_none_or(f64::is_finite), "{method:?} {normalise:?} {lost:?}");
            }
        }
    }

    #[test]
    fn the_number_of_threads_changes_no_code_but_those_of_autoencoders() {
        let (ids, vectors) = items(600);
        for &method in Method::value_variants().iter().filter(|method| !method.has_autoencoder()) {
            let codes = || fit_to(&settings(method), &ids, &vectors).unwrap().codes;
            let [one, two, three] = with_threads([1, 2, 3], codes);
            assert!(one == two && one == three, "{method:?}");
        }
    }

    #[test]
    fn what_no_method_that_looks_at_vectors_can_use_is_refused_by_each() {
        let (ids, vectors) = items(12);
        let constant = constant_column();
        for &method in Method::value_variants().iter().filter(|&&one| one != Method::Random) {
            let refused = |sizes: &[u32], vectors| {
                let settings = Settings { sizes: sizes.to_vec(), ..settings(method) };
                fit_to(&settings, &ids, vectors).err().map(|error| error.to_string())
            };
            let of_column = refused(&[4], &constant);
            let said = |part: &str, error: Option<String>| error.is_some_and(|e| e.contains(part));
            assert!(said("number 7 of the vectors", of_column), "{method:?}");
            let of_few = refused(&[16], &vectors);
            assert_eq!(
                said("12 items cannot fill 16", of_few),
                method != Method::Lsh,
                "{method:?}"
            );
        }
    }

    /// The vectors of twelve items, of which one number is always the same.
    fn constant_column() -> Vectors {
        let number = |i: i32| if i % 10 == 7 { 0.5 } else { i as f32 };
        Vectors { dimensions: 10, data: (0..120).map(number).collect() }
    }

    #[test]
    fn settings_that_do_not_fit_are_refused_with_what_to_do() {
        let (ids, vectors) = items(12);
        let mut huge = vectors.clone();
        huge.data[13] = 1e20;
        let lsh = |sizes: &[u32]| Settings { sizes: sizes.to_vec(), ..settings(Method::Lsh) };
        let mut deep = settings(Method::RqVae);
        deep.autoencoder.as_mut().unwrap().hidden = vec![8; 16];
        let wide = Vectors { dimensions: 65_537, data: vec![0.0; 65_537 * 12] };
        for (settings, vectors, message) in [
            (deep, &vectors, "--hidden names 16 widths, at most 15"),
            (settings(Method::RqKmeans), &wide, "the vectors have 65537 numbers, at most 65536"),
            (lsh(&[4, 6]), &vectors, "power of two"),
            (Settings { balance_last: true, ..lsh(&[4]) }, &vectors, "--method lsh has none"),
            (lsh(&[4]), &huge, "number 3 of the vector of item \"item-1\" is 1e20; distances"),
            (
                Settings { sizes: vec![2; 11], ..settings(Method::Opq) },
                &vectors,
                "cuts a vector into 11 parts",
            ),
        ] {
            let error = fit_to(&settings, &ids, vectors).unwrap_err().to_string();
            assert!(error.contains(message), "\"{error}\" does not say \"{message}\"");
        }
    }
}
