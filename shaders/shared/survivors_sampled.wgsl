// Survivors of sampling: a candidate's key is its perturbed log-probability. Its score and its
// log-probability under the sampled distribution are computed once more.
#import sampled

@group(0) @binding(6) var<storage, read> logits: array<f32>; // [rows, vocabulary] at stride
@group(0) @binding(7) var<storage, read> normalisers: array<vec4f>; // [rows], `sampled.wgsl`
// [levels, users] the generator's key, the inverse of the temperature (f32 bits), unused
@group(0) @binding(8) var<storage, read> samplings: array<vec4u>;

fn write_scores(beam: u32, parent: u32, parent_row: u32, code: u32, key: u32) {
    let normaliser = normalisers[parent_row];
    let log_prob = logits[parent_row * p.stride + p.offset + code] - normaliser.x;
    let sampling = samplings[p.level * p.users + parent_row / p.rows];
    let sampled = sampled_log_prob(log_prob, normaliser, bitcast<f32>(sampling.z));
    next[beam] = bitcast<u32>(bitcast<f32>(beams[parent]) + log_prob);
    next[beam + SAMPLED] = bitcast<u32>(bitcast<f32>(beams[parent + SAMPLED]) + sampled);
    next[beam + PERTURBED] = bitcast<u32>(ordered_value(key));
}
