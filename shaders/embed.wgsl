// Embedding: x[row] = shared[token[row]].
// One invocation writes four values.
#import weights

struct Params {
    rows: u32,
    width4: u32, // quads of d_model
    outputs: u32, // rows of the embedding, a multiple of four
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> tokens: array<u32>; // [rows]
@group(0) @binding(2) var<storage, read_write> x: array<vec4f>; // [rows, width4]

@compute @workgroup_size(64)
fn main(
    @builtin(global_invocation_id) id: vec3u,
    @builtin(num_workgroups) groups: vec3u,
) {
    let at = id.y * groups.x * 64u + id.x;
    if at >= p.rows * p.width4 {
        return;
    }
    let token = tokens[at / p.width4];
    let rows = transpose(weights_of(at % p.width4, token / 4u, p.outputs / 4u));
    x[at] = rows[token % 4u] * scales_of(token / 4u)[token % 4u];
}
