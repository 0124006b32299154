//! Each kernel against plain loops, over odd shapes.

use bytemuck::Pod;
use pollster::block_on;
use tigret_shaders::{Requirement, Shader};

use super::GpuOptions;
use super::executor::Executor;
use super::pack::{self, Axis};
use super::params::{
    AttentionParams, BeamsAttentionParams, CandidatesParams, EmbedParams, LinearParams,
    LogSumExpParams, SelectParams, words as params_of,
};
use super::plan::{BufferId, Dispatch, Kernels, Products, RECORD, cover, kernel, pack_codes};
use crate::error::InferError;
use crate::sampling::Sampling;
use crate::search::{Beam, Candidates, EngineQuery, ItemFilter};
use crate::testing::{Random, Shape, leave_out, on_gpu, random_bundle};
use crate::tokens::Level;
use crate::weights::{Weight, WeightFormat};

fn device() -> Option<Executor> {
    on_gpu(block_on(Executor::new(&[], GpuOptions::default())))
}

/// Whether the device can run a kernel; says so where it cannot.
fn can_run(device: &Executor, shader: &Shader) -> bool {
    let extras = device.info().extras;
    let can = match shader.requires {
        None => true,
        Some(Requirement::Halves) => extras.halves,
        Some(Requirement::PackedProducts) => extras.packed_products,
        Some(Requirement::Subgroups) => extras.subgroups,
    };
    if !can {
        leave_out(shader.name, device.adapter());
    }
    can
}

/// A kernel, with and without subgroups, as far as the device has them.
fn with_and_without_subgroups(device: &Executor, name: &str) -> Vec<&'static Shader> {
    let of = |subgroups| Kernels { subgroups, ..Kernels::default() }.reducing(name);
    [false, true].map(of).into_iter().filter(|shader| can_run(device, shader)).collect()
}

/// Runs one kernel over buffers in the order of its bindings and returns buffer `result`.
fn run(
    device: &mut Executor,
    shader: &'static Shader,
    params: impl Pod,
    buffers: &[&[u32]],
    invocations: [u32; 2],
    result: usize,
) -> Vec<u32> {
    let all: Vec<usize> = (0..buffers.len()).collect();
    let dispatch = launch(shader, params, &all, invocations);
    run_all(device, &[dispatch], buffers, result)
}

/// A launch of a kernel over the buffers with these indices.
fn launch(
    shader: &'static Shader,
    params: impl Pod,
    buffers: &[usize],
    invocations: [u32; 2],
) -> Dispatch {
    Dispatch {
        shader,
        buffers: buffers.iter().copied().map(BufferId).collect(),
        params: params_of(params),
        groups: cover(shader, invocations),
    }
}

/// Runs kernels one after the other and returns buffer `result`.
fn run_all(
    device: &mut Executor,
    dispatches: &[Dispatch],
    buffers: &[&[u32]],
    result: usize,
) -> Vec<u32> {
    let scratch: Vec<_> = buffers
        .iter()
        .enumerate()
        .map(|(index, words)| (format!("buffer {index}"), words.len().max(4) as u64 * 4))
        .collect();
    device.set_scratch(&scratch).unwrap();
    for (index, words) in buffers.iter().enumerate() {
        device.upload(BufferId(index), words);
    }
    block_on(device.run(dispatches, BufferId(result), buffers[result].len())).unwrap()
}

fn floats(words: &[u32]) -> Vec<f32> {
    words.iter().map(|&bits| f32::from_bits(bits)).collect()
}

fn words(values: &[f32]) -> Vec<u32> {
    values.iter().map(|value| value.to_bits()).collect()
}

/// Rows of `width` values on quads.
fn rows_on_quads(values: &[f32], width: usize) -> Vec<u32> {
    values.chunks(width).flat_map(pack::vector).collect()
}

fn log_sum_exp(row: &[f32]) -> f32 {
    row.iter().map(|&value| f64::from(value).exp()).sum::<f64>().ln() as f32
}

fn close(found: f32, expected: f32, what: &str) {
    let tolerance = 1e-4 * expected.abs().max(1.0);
    assert!((found - expected).abs() <= tolerance, "{what}: {found} instead of {expected}");
}

#[test]
fn linear_is_the_plain_loop_in_every_format() {
    let Some(mut device) = device() else { return };
    let mut random = Random::new(1);
    // Rows, inputs, outputs.
    let shapes = [
        (1, 1, 1),
        (3, 7, 5),
        (5, 31, 13),
        (4, 32, 64),
        (7, 33, 9),
        (50, 97, 29),
        (2, 260, 130),
        (18, 515, 70),
    ];
    let all = [Products::Narrow, Products::Split, Products::Wide, Products::Rounded];
    for (products, format) in all.into_iter().flat_map(|p| WeightFormat::ALL.map(|f| (p, f))) {
        let shader = products.linear(format);
        if !can_run(&device, shader) {
            continue;
        }
        // Of the sum of all products' magnitudes: half a step of 16 bits, or of 11.
        let rounding = match (products, format) {
            (Products::Rounded, WeightFormat::F16) => 1e-3,
            (Products::Rounded, _) => 3e-5,
            (Products::Narrow | Products::Split | Products::Wide, _) => 0.0,
        };
        for (index, (rows, inputs, outputs)) in shapes.into_iter().enumerate() {
            let mut values =
                |count: usize| -> Vec<f32> { (0..count).map(|_| random.signed()).collect() };
            let (x, norm, before) = (values(rows * inputs), values(inputs), values(rows * outputs));
            let weight = Weight::quantize(format, [outputs, inputs], values(outputs * inputs));
            let packed = pack::matrix(&[&weight], Axis::Plain(outputs), Axis::Plain(inputs));
            assert_eq!(packed.format, format);
            let weight = weight.to_f32();
            // Each switch in turn, then all.
            let on = |bit: usize| index % 5 == bit || index % 5 == 4;
            let (normalise, relu, residual) = (on(1), on(2), on(3));
            let (epsilon, scale) = (1e-3f32, 0.7f32);

            let padded = outputs.next_multiple_of(4);
            let offset = 12 * (index % 2);
            let mut y = vec![0u32; offset];
            y.extend(rows_on_quads(&before, outputs));
            // Nothing is written behind the last row.
            let behind = y.len();
            y.resize(behind + 8 * padded, 7);
            let params = LinearParams {
                rows: rows as u32,
                inputs4: inputs.div_ceil(4) as u32,
                outputs: padded as u32,
                y_offset: offset as u32,
                inputs: inputs as u32,
                normalise: u32::from(normalise),
                relu: u32::from(relu),
                residual: u32::from(residual),
                epsilon,
                scale,
                ..LinearParams::default()
            };
            let (x_words, norm_words) = (rows_on_quads(&x, inputs), pack::vector(&norm));
            let mut buffers = vec![&x_words[..], &norm_words, &y, &packed.words];
            if !packed.scales.is_empty() {
                buffers.push(&packed.scales);
            }
            let all: Vec<usize> = (0..buffers.len()).collect();
            let groups = products.groups(shader, rows as u32, padded as u32);
            let dispatch = Dispatch { groups, ..launch(shader, params, &all, [1, 1]) };
            let found = run_all(&mut device, &[dispatch], &buffers, 2);
            let what = format!("{} {rows}x{inputs}x{outputs}", shader.name);
            assert!(found[behind..].iter().all(|&word| word == 7), "{what}: past the end");
            let found = floats(&found);
            for row in 0..rows {
                let x = &x[row * inputs..][..inputs];
                let mean = x.iter().map(|v| v * v).sum::<f32>() / inputs as f32;
                let factor = if normalise { 1.0 / (mean + epsilon).sqrt() } else { 1.0 };
                for output in 0..outputs {
                    let w = &weight[output * inputs..][..inputs];
                    let terms = x.iter().zip(w).zip(&norm).map(|((x, w), norm)| {
                        if normalise { x * factor * norm * w } else { x * w }
                    });
                    let (sum, size) = terms.fold((0.0f32, 0.0f32), |(sum, size), term| {
                        (sum + term, size + term.abs())
                    });
                    let mut expected = scale * sum;
                    if relu {
                        expected = expected.max(0.0);
                    }
                    if residual {
                        expected += before[row * outputs + output];
                    }
                    let found = found[offset + row * padded + output];
                    let tolerance = 1e-4 * expected.abs().max(1.0) + rounding * scale * size;
                    let off = (found - expected).abs();
                    assert!(off <= tolerance, "{what}: {found} instead of {expected}");
                }
            }
        }
    }
}

/// Activations of T5 have outliers: scaled by one, the others must not vanish among the least halves.
#[test]
fn halves_keep_small_inputs_beside_a_large_one() {
    let Some(mut device) = device() else { return };
    let shader = Products::Rounded.linear(WeightFormat::F16);
    if !can_run(&device, shader) {
        return;
    }
    let inputs = 64;
    // Nothing of the large one reaches the sum.
    let weights = (0..inputs).map(|i| if i == 0 { 0.0 } else { 0.5 }).collect();
    let weight = Weight::quantize(WeightFormat::F16, [1, inputs], weights);
    let packed = pack::matrix(&[&weight], Axis::Plain(1), Axis::Plain(inputs));
    let params = LinearParams {
        rows: 1,
        inputs4: 16,
        outputs: 4,
        inputs: 64,
        scale: 1.0,
        ..LinearParams::default()
    };
    // And a row of small inputs is a row all the same.
    for size in [1.0, 1e-12] {
        let x: Vec<f32> = (0..inputs).map(|i| if i == 0 { 2e6 * size } else { size }).collect();
        let buffers = [&words(&x)[..], &words(&x), &[0; 4], &packed.words];
        let found = floats(&run(&mut device, shader, params, &buffers, [1, 1], 2))[0];
        let expected = size * weight.to_f32().iter().skip(1).sum::<f32>();
        assert!((found / expected - 1.0).abs() < 2e-3, "{found} instead of {expected}");
    }
}

/// So that no layer hides it from the host.
#[test]
fn linear_hands_on_what_is_no_number() {
    let Some(mut device) = device() else { return };
    let all = [Products::Narrow, Products::Split, Products::Wide, Products::Rounded];
    for (products, format) in all.into_iter().flat_map(|p| WeightFormat::ALL.map(|f| (p, f))) {
        let shader = products.linear(format);
        if !can_run(&device, shader) {
            continue;
        }
        let weight = Weight::quantize(format, [4, 8], vec![0.5; 32]);
        let packed = pack::matrix(&[&weight], Axis::Plain(4), Axis::Plain(8));
        for (nan, switch) in [f32::NAN, -f32::NAN].into_iter().flat_map(|nan| [(nan, 0), (nan, 1)])
        {
            let params = LinearParams {
                rows: 1,
                inputs4: 2,
                outputs: 4,
                inputs: 8,
                normalise: switch,
                relu: 1,
                residual: switch,
                scale: 1.0,
                ..LinearParams::default()
            };
            let mut x = [1.0; 8];
            x[3] = nan;
            let mut buffers = vec![words(&x), words(&[1.0; 8]), vec![0; 4], packed.words.clone()];
            if !packed.scales.is_empty() {
                buffers.push(packed.scales.clone());
            }
            let buffers: Vec<_> = buffers.iter().map(Vec::as_slice).collect();
            let found = floats(&run(&mut device, shader, params, &buffers, [1, 1], 2));
            assert!(found.iter().all(|y| y.is_nan()), "{}: {found:?}", shader.name);
        }
    }
}

#[test]
fn a_launch_that_the_device_refuses_fails_and_nothing_is_launched_after_it() {
    let Some(mut device) = device() else { return };
    let shader = kernel(&["log_sum_exp"]);
    let params = LogSumExpParams { vocabulary: 1, stride: 4 };
    device.set_scratch(&[("logits".into(), 16), ("normalisers".into(), 16)]).unwrap();
    let valid = launch(shader, params, &[0, 1], [1, 1]);
    // WebGPU allows 65,535 workgroups.
    let refused = Dispatch { groups: [70_000, 1], ..valid.clone() };
    let mut run = |dispatch: &Dispatch| {
        let outcome = block_on(device.run(std::slice::from_ref(dispatch), BufferId(1), 4));
        let is_lost = matches!(outcome, Err(InferError::DeviceLost(_)));
        (is_lost, device.counts().submits)
    };
    assert_eq!([&valid, &refused, &valid].map(&mut run), [(false, 1), (true, 2), (true, 2)]);
}

#[test]
fn keys_are_written_transposed_and_all_else_in_rows() {
    let Some(mut device) = device() else { return };
    let mut random = Random::new(8);
    // Two layers of three parts of eight outputs, the second of each its keys.
    let (rows, inputs, part, parts, layers, stride) = (6, 5, 8, 3, 2, 9);
    let outputs = part * parts * layers;
    let mut values = |count: usize| -> Vec<f32> { (0..count).map(|_| random.signed()).collect() };
    let x = values(rows * inputs);
    let weight = Weight::quantize(WeightFormat::F32, [outputs, inputs], values(outputs * inputs));
    let packed = pack::matrix(&[&weight], Axis::Plain(outputs), Axis::Plain(inputs));
    let weight = weight.to_f32();
    let key_offset = rows * outputs;
    let y = vec![0u32; key_offset + layers * part * stride];
    let params = LinearParams {
        rows: rows as u32,
        inputs4: 2,
        outputs: outputs as u32,
        inputs: inputs as u32,
        scale: 1.0,
        part: part as u32,
        parts: parts as u32,
        key_part: 1,
        key_offset: key_offset as u32,
        key_stride: stride as u32,
        ..LinearParams::default()
    };
    let x_words = rows_on_quads(&x, inputs);
    let buffers = [&x_words[..], &x_words, &y, &packed.words];
    for products in [Products::Narrow, Products::Split, Products::Wide] {
        let shader = products.linear(WeightFormat::F32);
        if !can_run(&device, shader) {
            continue;
        }
        let groups = products.groups(shader, rows as u32, outputs as u32);
        let dispatch = Dispatch { groups, ..launch(shader, params, &[0, 1, 2, 3], [1, 1]) };
        let found = floats(&run_all(&mut device, &[dispatch], &buffers, 2));
        for (row, x) in x.chunks(inputs).enumerate() {
            for (output, w) in weight.chunks(inputs).enumerate() {
                let expected: f32 = x.iter().zip(w).map(|(x, w)| x * w).sum();
                let (layer, which) = (output / part / parts, output / part % parts);
                let transposed = key_offset + (layer * part + output % part) * stride + row;
                let in_row = row * outputs + output;
                let at = if which == 1 { transposed } else { in_row };
                let what = format!("{}, row {row}, output {output}", shader.name);
                close(found[at], expected, &what);
                if which == 1 {
                    assert_eq!(found[in_row], 0.0, "a key is written once");
                }
            }
        }
    }
}

#[test]
fn attention_projections_read_heads_of_any_width() {
    let Some(mut device) = device() else { return };
    let mut random = Random::new(2);
    for format in WeightFormat::ALL {
        // Heads of a width that is no multiple of four have padding between them; q4 is widened.
        for (heads, d_kv) in [(3, 5), (9, 5), (2, 36), (6, 64)] {
            let inputs = heads * d_kv;
            let mut values =
                |count: usize| -> Vec<f32> { (0..count).map(|_| random.signed()).collect() };
            let (x, outputs) = (values(inputs), 6);
            let weight = Weight::quantize(format, [outputs, inputs], values(outputs * inputs));
            let axis = Axis::Heads { heads, d_kv };
            let packed = pack::matrix(&[&weight], Axis::Plain(outputs), axis);
            let x_words = rows_on_quads(&x, d_kv);
            let params = LinearParams {
                rows: 1,
                inputs4: axis.quads(),
                outputs: 8,
                inputs: x_words.len() as u32,
                scale: 1.0,
                ..LinearParams::default()
            };
            let y = [0u32; 8];
            let mut buffers = vec![&x_words[..], &x_words, &y, &packed.words];
            if !packed.scales.is_empty() {
                buffers.push(&packed.scales);
            }
            for products in [Products::Narrow, Products::Split, Products::Wide, Products::Rounded] {
                let shader = products.linear(packed.format);
                if !can_run(&device, shader) {
                    continue;
                }
                let tolerance = if shader.name == "linear_f16_half" { 2e-2 } else { 1e-3 };
                let found = floats(&run(&mut device, shader, params, &buffers, [2, 1], 2));
                for (row, found) in weight.to_f32().chunks(inputs).zip(found) {
                    let expected: f32 = row.iter().zip(&x).map(|(w, x)| w * x).sum();
                    let what = format!("{}, {heads} heads of {d_kv}", shader.name);
                    let off = (found - expected).abs();
                    assert!(off <= tolerance, "{what}: {found} instead of {expected}");
                }
            }
        }
    }
}

#[test]
fn embed_reads_rows_in_every_format() {
    let Some(mut device) = device() else { return };
    let mut random = Random::new(3);
    for format in WeightFormat::ALL {
        for (vocabulary, width) in [(1, 1), (11, 7), (9, 64), (70, 33), (13, 100)] {
            let values = (0..vocabulary * width).map(|_| random.signed()).collect();
            let weight = Weight::quantize(format, [vocabulary, width], values);
            let packed = pack::matrix(&[&weight], Axis::Plain(vocabulary), Axis::Plain(width));
            let tokens: Vec<u32> = (0..7).map(|_| random.below(vocabulary) as u32).collect();
            let width4 = width.div_ceil(4);
            let x = vec![0u32; tokens.len() * width4 * 4];
            let mut buffers = vec![&tokens[..], &x, &packed.words];
            if !packed.scales.is_empty() {
                buffers.push(&packed.scales);
            }
            let outputs = vocabulary.next_multiple_of(4) as u32;
            let params = EmbedParams { rows: tokens.len() as u32, width4: width4 as u32, outputs };
            let invocations = [(tokens.len() * width4) as u32, 1];
            let shader = kernel(&["embed_", format.name()]);
            let found = run(&mut device, shader, params, &buffers, invocations, 1);
            // Folded into two dimensions, as launches beyond WebGPU's limit are.
            let mut folded = launch(shader, params, &[0, 1, 2, 3][..buffers.len()], [1, 1]);
            folded.groups = [1, invocations[0].div_ceil(64)];
            assert_eq!(run_all(&mut device, &[folded], &buffers, 1), found);
            let found = floats(&found);
            let values = weight.to_f32();
            for (row, token) in found.chunks(4 * width4).zip(&tokens) {
                for (found, expected) in row.iter().zip(&values[*token as usize * width..][..width])
                {
                    let what = format!("{} {vocabulary}x{width}", shader.name);
                    close(*found, *expected, &what);
                }
            }
        }
    }
}

#[test]
fn log_sum_exp_is_the_plain_loop() {
    let Some(mut device) = device() else { return };
    let mut random = Random::new(4);
    for (rows, vocabulary) in [(1, 1usize), (3, 63), (2, 65), (5, 1030)] {
        let stride = vocabulary.next_multiple_of(4);
        let logits: Vec<f32> = (0..rows * vocabulary).map(|_| 40.0 * random.signed()).collect();
        let buffers = [&rows_on_quads(&logits, vocabulary)[..], &vec![0; 4 * rows]];
        let params = LogSumExpParams { vocabulary: vocabulary as u32, stride: stride as u32 };
        // A workgroup a row.
        let invocations = [64 * rows as u32, 1];
        for shader in with_and_without_subgroups(&device, "log_sum_exp") {
            let found = floats(&run(&mut device, shader, params, &buffers, invocations, 1));
            for (row, found) in logits.chunks(vocabulary).zip(found.chunks(4)) {
                close(found[0], log_sum_exp(row), &format!("{} {rows}x{vocabulary}", shader.name));
            }
        }
    }
}

/// A step of a search.
#[derive(Clone)]
struct SearchCase {
    name: &'static str,
    sizes: Vec<u32>,
    items: usize,
    /// The level that is searched.
    level: usize,
    /// Beams before it.
    rows: usize,
    /// Beams after it.
    width: usize,
    filter: ItemFilter,
    temperature: Option<f32>,
    /// How many logits differ, the same under every beam, so that ties decide; none ties without.
    distinct: Option<usize>,
}

fn search_cases() -> Vec<SearchCase> {
    let base = |name, level, rows, width| SearchCase {
        name,
        sizes: vec![13, 70, 5, 300],
        items: 2000,
        level,
        rows,
        width,
        filter: ItemFilter::everything(),
        temperature: None,
        distinct: None,
    };
    let third: Vec<u32> = (0..2000).filter(|rank| rank % 3 == 1).collect();
    let mut cases = vec![
        base("the first level", 0, 1, 10),
        base("the second level", 1, 13, 50),
        base("one beam", 2, 50, 1),
        base("the last level", 3, 50, 20),
        base("more beams than prefixes", 1, 5, 512),
        SearchCase { distinct: Some(1), ..base("ties", 2, 40, 33) },
        SearchCase { distinct: Some(1), ..base("ties at the end", 3, 40, 512) },
        // The last tie that survives has others behind it that the same invocation walks, and before
        // the best that the next one finds.
        SearchCase { distinct: Some(4), ..base("ties beside better ones", 1, 13, 197) },
        SearchCase {
            filter: ItemFilter::new(&third, None, 2000),
            ..base("a third excluded", 3, 40, 100)
        },
        SearchCase {
            filter: ItemFilter::new(&[], Some(&third[..40]), 2000),
            ..base("forty allowed", 1, 13, 100)
        },
        SearchCase {
            filter: ItemFilter::new(&third[..30], Some(&third), 2000),
            ..base("a third allowed, of which thirty are not", 3, 40, 512)
        },
        SearchCase {
            filter: ItemFilter::new(&[], Some(&[7]), 2000),
            ..base("one allowed", 3, 1, 4)
        },
        SearchCase { sizes: vec![3, 4096], items: 9000, ..base("a codebook of 4096", 1, 3, 512) },
        SearchCase {
            sizes: vec![3, 65_536],
            items: 9000,
            ..base("the largest codebook", 1, 3, 20)
        },
        SearchCase {
            sizes: vec![65_536, 3],
            items: 9000,
            ..base("the largest codebook first", 0, 1, 20)
        },
        SearchCase { items: 1, ..base("one item", 2, 1, 9) },
    ];
    for index in 0..cases.len() {
        let temperature = [0.5, 1.0, 3.0][index % 3];
        cases.push(SearchCase { temperature: Some(temperature), ..cases[index].clone() });
    }
    cases
}

/// The number of a call.
const CALL: u32 = 5;

/// Beam state of one user as the kernels keep it.
fn state(beams: &[Beam], room: usize, level: usize) -> Vec<u32> {
    let mut words = vec![0; (room + 1) * RECORD];
    words[..2].copy_from_slice(&[beams.len() as u32, CALL]);
    for (beam, record) in beams.iter().zip(words[RECORD..].chunks_exact_mut(RECORD)) {
        record[..6].copy_from_slice(&[
            beam.score.to_bits(),
            beam.node.start,
            beam.node.end,
            beam.code.into(),
            beam.sampled.to_bits(),
            beam.key.to_bits(),
        ]);
        // Ancestors: any numbers, which selection has to hand on.
        for step in 0..level {
            record[8 + step] = beam.node.start + step as u32;
        }
    }
    words
}

/// A step of a search: what the kernels are given, and what [`Candidates::extend`] makes of it.
#[derive(Clone)]
struct Step {
    name: &'static str,
    codes: Vec<u32>,
    before: Vec<u32>,
    logits: Vec<u32>,
    /// The first value of each row, and in sampling those that `perturb` adds.
    normalisers: Vec<[f32; 4]>,
    listed: Vec<u32>,
    samplings: Vec<u32>,
    params: CandidatesParams,
    width: usize,
    sampled: bool,
    beams: Vec<Beam>,
    /// All live children of the beams.
    children: Vec<Beam>,
    /// Those of them that survive.
    survivors: Vec<Beam>,
}

impl Step {
    fn new(case: SearchCase, seed: u64) -> Self {
        let SearchCase { name, sizes, items, level, rows, width, filter, temperature, distinct } =
            case;
        let shape = Shape { levels: sizes, items, layers: (1, 1), ..Shape::default() };
        let bundle = random_bundle(&shape, WeightFormat::F32, 1);
        let (catalog, layout) = (&*bundle.catalog, &bundle.tokens);
        let vocabulary = bundle.config.vocab_size;
        let sampling = temperature.map(|t| Sampling::new(&[t], layout.levels.len(), seed).unwrap());
        let mut random = Random::new(seed);
        let mut logits = |rows: usize| -> Vec<f32> {
            if let Some(distinct) = distinct {
                let row: Vec<_> = (0..vocabulary).map(|_| random.below(distinct) as f32).collect();
                return row.repeat(rows);
            }
            (0..rows * vocabulary).map(|_| 6.0 * random.signed()).collect()
        };
        let log_probs = |level: usize, logits: &[f32]| -> Vec<f32> {
            let Level { offset, size } = layout.levels[level];
            let of_row = |row| {
                let normaliser = log_sum_exp(row);
                row[offset as usize..][..size as usize].iter().map(move |logit| logit - normaliser)
            };
            logits.chunks_exact(vocabulary).flat_map(of_row).collect()
        };
        let extended = |level: usize, beams: &[Beam], log_probs: &[f32], width: usize| {
            let (filter, sampling) = (filter.clone(), sampling.clone());
            let query = EngineQuery { input: vec![], beams: width, filter, sampling };
            let mut next = beams.to_vec();
            Candidates::default().extend(catalog, &query, level, &mut next, log_probs);
            next
        };
        let mut beams = vec![Beam::root(catalog)];
        for before in 0..level {
            beams = extended(before, &beams, &log_probs(before, &logits(beams.len())), rows);
        }
        let logits = logits(beams.len());
        let log_probs = log_probs(level, &logits);
        let children = extended(level, &beams, &log_probs, usize::MAX);
        let survivors = extended(level, &beams, &log_probs, width);

        let Level { offset, size } = layout.levels[level];
        let mut samplings = vec![0; 4 * (level + 1)];
        let mut normalisers: Vec<[f32; 4]> =
            logits.chunks_exact(vocabulary).map(|row| [log_sum_exp(row), 0.0, 0.0, 0.0]).collect();
        if let Some(sampling) = &sampling {
            let inverse = sampling.inverse_temperature(level);
            samplings[4 * level..][..2].copy_from_slice(&sampling.key(level));
            samplings[4 * level + 2] = inverse.to_bits();
            for (row, [_, largest, sum, _]) in normalisers.iter_mut().enumerate() {
                let live = children.iter().filter(|child| child.parent == row);
                let of_child = |child: &Beam| log_probs[row * size as usize + child.code as usize];
                let live: Vec<f32> = live.map(of_child).collect();
                *largest = live.iter().copied().fold(-3.4e38, f32::max);
                let scaled: Vec<f32> = live.iter().map(|v| (v - *largest) * inverse).collect();
                *sum = if live.is_empty() { 0.0 } else { log_sum_exp(&scaled) };
            }
        }
        Self {
            name,
            codes: pack_codes(catalog),
            before: state(&beams, beams.len(), level),
            logits: rows_on_quads(&logits, vocabulary),
            normalisers,
            listed: [&[1][..], &filter.words()].concat(),
            samplings,
            params: CandidatesParams {
                level: level as u32,
                words: layout.levels.len().div_ceil(2) as u32,
                codes: size,
                offset,
                stride: vocabulary.next_multiple_of(4) as u32,
                users: 1,
                rows: beams.len() as u32,
            },
            width,
            sampled: sampling.is_some(),
            beams,
            children,
            survivors,
        }
    }

    /// Keys of all candidates, `[rows, codes]`: 0 for those that are not alive.
    fn keys(&self, value: impl Fn(&Beam) -> f32) -> Vec<u32> {
        let codes = self.params.codes as usize;
        let mut keys = vec![0; self.beams.len() * codes];
        for child in &self.children {
            keys[child.parent * codes + usize::from(child.code)] = order_key(value(child));
        }
        keys
    }

    fn assert_keys(&self, found: &[u32], value: impl Fn(&Beam) -> f32) {
        for (at, (&found, expected)) in found.iter().zip(self.keys(value)).enumerate() {
            let what = format!("{}, candidate {at}", self.name);
            assert_eq!(found == 0, expected == 0, "{what}: whether it is alive");
            close(ordered_value(found), ordered_value(expected), &what);
        }
    }

    fn normalisers(&self) -> Vec<u32> {
        words(self.normalisers.as_flattened())
    }
}

/// A float as an integer that orders as it does, as `shaders/shared/ordering.wgsl` has it.
fn order_key(value: f32) -> u32 {
    let bits = value.to_bits();
    if bits >> 31 == 0 { bits | 1 << 31 } else { !bits }
}

/// The float of such an integer; of 0, which stands for no candidate, 0.
fn ordered_value(key: u32) -> f32 {
    match key {
        0 => 0.0,
        _ if key >> 31 == 0 => f32::from_bits(!key),
        _ => f32::from_bits(key & !(1 << 31)),
    }
}

fn steps() -> Vec<Step> {
    search_cases().into_iter().zip(0..).map(|(case, seed)| Step::new(case, seed)).collect()
}

#[test]
fn candidates_are_the_live_children_with_their_scores() {
    let Some(mut device) = device() else { return };
    for step in steps() {
        let found = scored(&mut device, &step);
        step.assert_keys(&found, |child| child.score);
    }
}

/// The keys that `candidates` makes.
fn scored(device: &mut Executor, step: &Step) -> Vec<u32> {
    let Step { codes, before, logits, listed, params, .. } = step;
    let (normalisers, keys) = (step.normalisers(), vec![7; (params.rows * params.codes) as usize]);
    let buffers = [codes, before, logits, &normalisers, listed, &keys].map(Vec::as_slice);
    run(device, kernel(&["candidates"]), *params, &buffers, [params.codes, params.rows], 5)
}

#[test]
fn perturb_draws_as_the_cpu_does() {
    let Some(mut device) = device() else { return };
    for step in steps().into_iter().filter(|step| step.sampled) {
        for shader in with_and_without_subgroups(&device, "perturb") {
            let mut found = |result| perturbed(&mut device, shader, &step, result);
            step.assert_keys(&found(3), |child| child.key);
            let normalisers = floats(&found(4));
            for (found, expected) in normalisers.iter().zip(step.normalisers.as_flattened()) {
                close(*found, *expected, &format!("{}: normalisers", step.name));
            }
        }
    }
}

/// What `perturb` makes of the candidates' keys.
fn perturbed(
    device: &mut Executor,
    shader: &'static Shader,
    step: &Step,
    result: usize,
) -> Vec<u32> {
    let Step { codes, before, logits, samplings, params, .. } = step;
    let keys = step.keys(|child| child.score);
    let first = step.normalisers.iter().flat_map(|&[first, ..]| [first, 0.0, 0.0, 0.0]);
    let first = words(&first.collect::<Vec<_>>());
    let buffers = [codes, before, logits, &keys, &first, samplings].map(Vec::as_slice);
    // A workgroup a row.
    run(device, shader, *params, &buffers, [64 * params.rows, 1], result)
}

/// So that they survive, and the host sees that the answer makes no sense.
#[test]
fn candidates_whose_scores_are_no_numbers_come_before_all_others() {
    let Some(mut device) = device() else { return };
    let steps = steps().into_iter().filter(|step| step.name == "the second level");
    for (mut step, nan) in steps.flat_map(|step| [(step.clone(), f32::NAN), (step, -f32::NAN)]) {
        let row = step.params.stride as usize;
        step.logits[row..2 * row].fill(nan.to_bits());
        let codes = step.params.codes as usize;
        let mut found = Vec::new();
        if step.sampled {
            for shader in with_and_without_subgroups(&device, "perturb") {
                found.push(perturbed(&mut device, shader, &step, 3));
            }
        } else {
            found.push(scored(&mut device, &step));
        }
        let alive = step.keys(|_| f32::NAN);
        for keys in found {
            for (at, (&key, &alive)) in keys.iter().zip(&alive).enumerate() {
                let expected = at / codes == 1 && alive != 0;
                assert_eq!(key == u32::MAX, expected, "{nan}, candidate {at}: {key:x}");
            }
        }
    }
}

#[test]
fn select_keeps_the_survivors_of_the_cpu() {
    let Some(mut device) = device() else { return };
    for step in steps() {
        let Step { name, codes, before, logits, samplings, params, width, sampled, .. } = &step;
        let CandidatesParams { level, words, codes: size, offset, stride, users, rows } = *params;
        let (width, level) = (*width, level as usize);
        let params = SelectParams {
            level: level as u32,
            words,
            codes: size,
            offset,
            rows,
            width: width as u32,
            next_rows: width as u32,
            users,
            stride,
        };
        let (keys, normalisers) = (step.keys(|child| child.key), step.normalisers());
        let (after, tokens) = (vec![7; (width + 1) * RECORD], vec![7; width]);
        let mut buffers = vec![&codes[..], before, &keys, &after, &tokens];
        if *sampled {
            buffers.extend([&logits[..], &normalisers, samplings]);
        }
        let kernel = if *sampled { "select_sampled" } else { "select" };
        for shader in with_and_without_subgroups(&device, kernel) {
            let mut found = |result| run(&mut device, shader, params, &buffers, [1, 1], result);
            let (after, tokens) = (found(3), found(4));
            let alive = step.survivors.len();
            assert_eq!(after[0] as usize, alive, "{name}: live beams");
            assert_eq!(after[1], CALL + 1, "{name}: the call and the step");
            let records = after[RECORD..].chunks_exact(RECORD);
            for (place, (beam, record)) in step.survivors.iter().zip(records).enumerate() {
                let what = format!("{} {name}, beam {place}", shader.name);
                let parent = &step.beams[beam.parent];
                assert_eq!(record[1..3], [beam.node.start, beam.node.end], "{what}: ranks");
                assert_eq!(record[3], u32::from(beam.code), "{what}: code");
                for step in 0..level {
                    assert_eq!(record[8 + step], parent.node.start + step as u32, "{what}: path");
                }
                assert_eq!(record[8 + level], beam.parent as u32, "{what}: parent");
                close(f32::from_bits(record[0]), beam.score, &format!("{what}: score"));
                if *sampled {
                    close(f32::from_bits(record[4]), beam.sampled, &format!("{what}: sampled"));
                    assert_eq!(record[5], beam.key.to_bits(), "{what}: key");
                }
            }
            let dead = &after[(alive + 1) * RECORD..];
            assert!(dead.iter().all(|&word| word == 0), "{name}: rows that no beam fills");
            for (place, token) in tokens.into_iter().enumerate() {
                let code = step.survivors.get(place).map_or(0, |beam| beam.code.into());
                assert_eq!(token, offset + code, "{name}: token {place}");
            }
        }
    }
}

/// `softmax(q . k + bias) v` of one head.
fn attend(q: &[f32], keys: &[&[f32]], values: &[&[f32]], bias: impl Fn(usize) -> f32) -> Vec<f32> {
    let scores = keys.iter().enumerate().map(|(key, k)| {
        f64::from(q.iter().zip(*k).map(|(q, k)| q * k).sum::<f32>() + bias(key)).exp()
    });
    let scores: Vec<f64> = scores.collect();
    let sum: f64 = scores.iter().sum();
    (0..q.len())
        .map(|at| {
            let parts = scores.iter().zip(values).map(|(s, v)| s * f64::from(v[at]));
            (parts.sum::<f64>() / sum) as f32
        })
        .collect()
}

#[test]
fn attention_is_the_plain_loop() {
    let Some(mut device) = device() else { return };
    let mut random = Random::new(6);
    let shapes = [
        (1, 1, 1, 1),
        (7, 7, 3, 5),
        (2, 33, 1, 64),
        (5, 90, 2, 136),
        (3, 200, 4, 9),
        (4, 84, 6, 64),
        (6, 1000, 2, 20),
        (16, 130, 1, 12),
        (50, 129, 2, 68),
    ];
    for (index, (queries, keys, heads, d_kv)) in shapes.into_iter().enumerate() {
        let inner = heads * d_kv;
        let mut values =
            |count: usize| -> Vec<f32> { (0..count).map(|_| random.signed()).collect() };
        let (q, k, v) = (values(queries * inner), values(keys * inner), values(keys * inner));
        // The bias reaches further than this input, as a model's does.
        let reach = keys.max(queries) + 2;
        // Scores are far below 0, as a model's may be.
        let bias: Vec<f32> =
            values(heads * (2 * reach + 1)).into_iter().map(|bias| bias - 128.0).collect();
        let biased = index % 2 == 1;
        let width = d_kv.next_multiple_of(4);
        let part = heads * width;
        // Keys transposed, with room between their components, then values.
        let key_stride = keys.next_multiple_of(4) + 4;
        let mut kv = vec![0u32; part * key_stride];
        for (key, row) in k.chunks(inner).enumerate() {
            for (at, value) in rows_on_quads(row, d_kv).into_iter().enumerate() {
                kv[at * key_stride + key] = value;
            }
        }
        let v_offset = kv.len();
        kv.extend(v.chunks(inner).flat_map(|row| rows_on_quads(row, d_kv)));
        // Rows past the end are another user's.
        let context = vec![7; (queries + 8) * part];
        let params = AttentionParams {
            queries: queries as u32,
            key_rows: keys.next_multiple_of(4) as u32,
            heads: heads as u32,
            head4: width as u32 / 4,
            q_stride4: part as u32 / 4,
            k_offset4: 0,
            k_stride4: key_stride as u32 / 4,
            v_offset4: v_offset as u32 / 4,
            v_stride4: part as u32 / 4,
            biased: u32::from(biased),
            reach: reach as u32,
        };
        let lengths = [keys as u32];
        let buffers = [&rows_on_quads(&q, d_kv)[..], &kv, &words(&bias), &context, &lengths];
        let all =
            [Kernels::default(), Kernels { subgroups: true, wide: true, ..Kernels::default() }];
        let mut names = Vec::new();
        let mut found = Vec::new();
        for kernels in all {
            if !can_run(&device, kernels.attention()) {
                continue;
            }
            let groups = [(queries as u32).div_ceil(kernels.queries()), heads as u32];
            let launched = launch(kernels.attention(), params, &[0, 1, 2, 3, 4], [1, 1]);
            let dispatch = Dispatch { groups, ..launched };
            let all = run_all(&mut device, &[dispatch], &buffers, 3);
            let name = kernels.attention().name;
            assert!(all[queries * part..].iter().all(|&word| word == 7), "{name}: past the end");
            found.push(floats(&all));
            names.push(name);
        }
        for (query, head) in (0..queries).flat_map(|q| (0..heads).map(move |h| (q, h))) {
            let at = head * d_kv;
            let k: Vec<&[f32]> = k.chunks(inner).map(|row| &row[at..][..d_kv]).collect();
            let v: Vec<&[f32]> = v.chunks(inner).map(|row| &row[at..][..d_kv]).collect();
            let expected = attend(&q[query * inner + at..][..d_kv], &k, &v, |key| {
                if biased { bias[head * (2 * reach + 1) + key + reach - query] } else { 0.0 }
            });
            for (name, found) in names.iter().zip(&found) {
                let found = &found[query * part + head * width..][..d_kv];
                for (found, expected) in found.iter().zip(&expected) {
                    close(*found, *expected, &format!("{name} {queries} {keys} {heads} {d_kv}"));
                }
            }
        }
    }
}

#[test]
fn attention_of_beams_follows_their_paths() {
    let Some(mut device) = device() else { return };
    let mut random = Random::new(7);
    // The last scores are too large for an exponential.
    for (rows, step, heads, d_kv, size) in [
        (1, 0, 1, 1usize, 1.0),
        (5, 1, 3, 5, 1.0),
        (50, 3, 2, 64, 1.0),
        (9, 7, 1, 130, 1.0),
        (9, 7, 1, 130, 6.0),
    ] {
        let inner = heads * d_kv;
        let step_rows = rows + 3;
        let head4 = d_kv.div_ceil(4);
        let qkv: Vec<f32> =
            (0..(step + 1) * step_rows * 3 * inner).map(|_| size * random.signed()).collect();
        let steps = 8;
        let bias: Vec<f32> = (0..heads * steps).map(|_| random.signed()).collect();
        let mut beams = vec![0u32; (rows + 1) * RECORD];
        let mut paths = Vec::new();
        for row in 0..rows {
            let mut path: Vec<usize> = (0..step).map(|_| random.below(step_rows)).collect();
            for (at, source) in path.iter().enumerate() {
                beams[(row + 1) * RECORD + 8 + at] = *source as u32;
            }
            path.push(row);
            paths.push(path);
        }
        let context = vec![0; rows * heads * head4 * 4];
        let params = BeamsAttentionParams {
            rows: rows as u32,
            heads: heads as u32,
            head4: head4 as u32,
            step: step as u32,
            step_rows: step_rows as u32,
            bias_stride: steps as u32,
            users: 1,
        };
        let buffers = [&rows_on_quads(&qkv, d_kv)[..], &beams, &words(&bias), &context];
        let invocations = [(rows * heads) as u32, 1];
        let shader = kernel(&["attention_beams"]);
        let found = floats(&run(&mut device, shader, params, &buffers, invocations, 3));
        for (row, path) in paths.iter().enumerate() {
            for head in 0..heads {
                let part = |at: usize, source: usize, which: usize| {
                    let row = (at * step_rows + source) * 3 * inner;
                    &qkv[row + which * inner + head * d_kv..][..d_kv]
                };
                let all = |which: usize| -> Vec<&[f32]> {
                    path.iter().enumerate().map(|(at, &row)| part(at, row, which)).collect()
                };
                let expected = attend(part(step, row, 0), &all(1), &all(2), |key| {
                    bias[head * steps + step - key]
                });
                let found = &found[(row * heads + head) * head4 * 4..][..d_kv];
                for (found, expected) in found.iter().zip(expected) {
                    close(*found, expected, &format!("{rows} rows, step {step}, heads of {d_kv}"));
                }
            }
        }
    }
}
