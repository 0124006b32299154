// The decoder's self-attention: every beam attends to its own ancestors. Keys and values of a step
// stay in the row where they were made; the beam's path says which row that is in each step.
// One invocation computes one head of one beam; there are at most eight keys.
#import beam

struct Params {
    rows: u32, // of all users
    heads: u32,
    head4: u32, // quads of d_kv
    step: u32, // this step, counted from 0
    step_rows: u32, // rows that the cache keeps a step, of all users
    bias_stride: u32, // distances in the bias table of a head
    users: u32,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> qkv: array<vec4f>; // [steps, step_rows, 3, heads, head4]
@group(0) @binding(2) var<storage, read> beams: array<u32>; // beam state
@group(0) @binding(3) var<storage, read> bias: array<f32>; // [heads, steps], by distance back
@group(0) @binding(4) var<storage, read_write> context: array<vec4f>; // [rows, heads, head4]

@compute @workgroup_size(64)
fn main(
    @builtin(global_invocation_id) id: vec3u,
    @builtin(num_workgroups) groups: vec3u,
) {
    let of_head = id.y * groups.x * 64u + id.x;
    if of_head >= p.rows * p.heads {
        return;
    }
    let row = of_head / p.heads;
    let head = of_head % p.heads;
    let part4 = p.heads * p.head4;
    let q_at = (p.step * p.step_rows + row) * 3u * part4 + head * p.head4;

    var at: array<u32, 8>;
    var scores: array<f32, 8>;
    var largest = -3.4e38;
    for (var s = 0u; s <= p.step; s++) {
        var source = row;
        if s < p.step {
            source = beams[beam_at(row) + PATH + s];
        }
        at[s] = (s * p.step_rows + source) * 3u * part4 + part4 + head * p.head4;
        var score = bias[head * p.bias_stride + p.step - s];
        for (var i = 0u; i < p.head4; i++) {
            score += dot(qkv[q_at + i], qkv[at[s] + i]);
        }
        scores[s] = score;
        largest = max(largest, score);
    }
    var sum = 0.0;
    for (var s = 0u; s <= p.step; s++) {
        scores[s] = exp(scores[s] - largest);
        sum += scores[s];
    }
    for (var i = 0u; i < p.head4; i++) {
        var value = vec4f(0.0);
        for (var s = 0u; s <= p.step; s++) {
            value += scores[s] * qkv[at[s] + part4 + i];
        }
        context[row * part4 + head * p.head4 + i] = value / sum;
    }
}
