// Stochastic beam search (Kool, van Hoof & Welling, "Stochastic Beams and Where to Find Them", ICML
// 2019, algorithm 1): turns the keys of the live candidates from their scores into those of their
// perturbed log-probabilities, Gumbel noise with the maximum among a beam's children being the
// beam's own. The best of them are a sample without replacement. One workgroup a row.
#import trie
#import beam
#import level
#import ordering
#import philox
#import sampled
#import reduce

const LANES: u32 = 64u;

@group(0) @binding(2) var<storage, read> beams: array<u32>; // beam state
@group(0) @binding(3) var<storage, read> logits: array<f32>; // [rows, vocabulary] at stride
@group(0) @binding(4) var<storage, read_write> keys: array<u32>; // [rows, codes]
@group(0) @binding(5) var<storage, read_write> normalisers: array<vec4f>; // [rows], `sampled.wgsl`
// [levels, users] the generator's key, the inverse of the temperature (f32 bits), unused
@group(0) @binding(6) var<storage, read> samplings: array<vec4u>;

@compute @workgroup_size(LANES)
fn main(
    @builtin(workgroup_id) group: vec3u,
    @builtin(local_invocation_index) lane: u32,
) {
    let row = group.x;
    let beam = beam_at(row);
    let begin = row * p.codes;
    let logits_at = row * p.stride + p.offset;
    var normaliser = normalisers[row];
    let sampling = samplings[p.level * p.users + row / p.rows];
    let inverse_temperature = bitcast<f32>(sampling.z);

    var largest = -3.4e38;
    for (var code = lane; code < p.codes; code += LANES) {
        if keys[begin + code] != 0u {
            largest = max(largest, logits[logits_at + code] - normaliser.x);
        }
    }
    normaliser.y = largest_of_all(lane, largest);
    normaliser.z = 0.0;
    var sum = 0.0;
    for (var code = lane; code < p.codes; code += LANES) {
        if keys[begin + code] != 0u {
            let log_prob = logits[logits_at + code] - normaliser.x;
            sum += exp(sampled_log_prob(log_prob, normaliser, inverse_temperature));
        }
    }
    sum = sum_of_all(lane, sum);
    // At least 1, the largest one's part, where any child is alive.
    normaliser.z = log(max(sum, 1.0));
    if lane == 0u {
        normalisers[row] = normaliser;
    }

    // The counter is the semantic ID so far.
    var counter = array<u32, 4>(0u, 0u, 0u, 0u);
    for (var level = 0u; level < p.level; level++) {
        let code = code_at(beams[beam + 1u], level, p.words);
        counter[level / 2u] |= code << (16u * (level % 2u));
    }
    let parent = bitcast<f32>(beams[beam + SAMPLED]);
    largest = -3.4e38;
    for (var code = lane; code < p.codes; code += LANES) {
        if keys[begin + code] != 0u {
            let log_prob = logits[logits_at + code] - normaliser.x;
            let sampled = parent + sampled_log_prob(log_prob, normaliser, inverse_temperature);
            var own = counter;
            own[p.level / 2u] |= code << (16u * (p.level % 2u));
            let bits = philox(vec4u(own[0], own[1], own[2], own[3]), sampling.xy);
            let raw = sampled + gumbel(bits);
            keys[begin + code] = order_key(raw);
            largest = max(largest, raw);
        }
    }
    largest = largest_of_all(lane, largest);
    let maximum = bitcast<f32>(beams[beam + PERTURBED]);
    for (var code = lane; code < p.codes; code += LANES) {
        let key = keys[begin + code];
        if key != 0u {
            keys[begin + code] = order_key(conditioned(ordered_value(key), largest, maximum));
        }
    }
}

// Standard Gumbel noise: -log(-log(1 - u)), u in steps of 2^-23 from 2^-24. The step is coarse
// enough for 1 - u to be exact and fine enough that u is never 0 or 1.
fn gumbel(bits: u32) -> f32 {
    let u = (f32(bits >> 9u) + 0.5) * 0x1p-23;
    // WGSL's log is not precise near 1.
    let series = u * (1.0 + u * (0.5 + u * (1.0 / 3.0 + u * (0.25 + u * (0.2 + u / 6.0)))));
    return -log(select(-log(1.0 - u), series, u < 0.0625));
}

// Gumbel noise of which the largest is `largest`, given that the largest is `maximum` (Kool et al.,
// appendix B.3).
fn conditioned(value: f32, largest: f32, maximum: f32) -> f32 {
    let gap = value - largest;
    if gap >= 0.0 {
        return maximum;
    }
    // 1 - exp(gap), precise near 0 too.
    let series = -gap * (1.0 + gap * (0.5 + gap * (1.0 / 6.0 + gap * (1.0 / 24.0 + gap / 120.0))));
    let part = select(1.0 - exp(gap), series, gap > -0.0625);
    let v = maximum - value + log(part);
    return maximum - max(v, 0.0) - log(1.0 + exp(-abs(v)));
}
