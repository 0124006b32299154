// The softmax's normaliser: out[row].x = log(sum(exp(logits[row]))) over the whole vocabulary.
// One workgroup a row.
#import reduce

struct Params {
    vocabulary: u32,
    stride: u32, // values between rows
}

const LANES: u32 = 64u;

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> logits: array<f32>; // [rows, vocabulary] at stride
@group(0) @binding(2) var<storage, read_write> normalisers: array<vec4f>; // [rows], the first value

@compute @workgroup_size(LANES)
fn main(
    @builtin(workgroup_id) group: vec3u,
    @builtin(local_invocation_index) lane: u32,
) {
    let begin = group.x * p.stride;
    var largest = -3.4e38;
    for (var i = lane; i < p.vocabulary; i += LANES) {
        largest = max(largest, logits[begin + i]);
    }
    largest = largest_of_all(lane, largest);
    var sum = 0.0;
    for (var i = lane; i < p.vocabulary; i += LANES) {
        sum += exp(logits[begin + i] - largest);
    }
    sum = sum_of_all(lane, sum);
    if lane == 0u {
        normalisers[group.x].x = largest + log(sum);
    }
}
