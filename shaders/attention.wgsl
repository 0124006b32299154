// Attention of one query and head a workgroup, over keys that all queries share: the encoder's
// self-attention (with relative position bias) and the decoder's cross-attention (without).
// Unscaled, as in T5: out = softmax(q . k + bias) v.

struct Params {
    keys: u32,
    head4: u32, // quads of d_kv
    q_stride4: u32, // quads between queries
    kv_stride4: u32, // quads between keys
    k_offset4: u32, // first quad of the keys
    v_offset4: u32, // first quad of the values
    out_stride4: u32, // quads between outputs
    biased: u32, // 1: add the bias
    reach: u32, // the bias table's centre
}

const LANES: u32 = 32u;
const MAX_KEYS: u32 = 3072u;

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> q: array<vec4<f32>>; // [queries, heads, head4] at stride
@group(0) @binding(2) var<storage, read> kv: array<vec4<f32>>; // [keys, heads, head4] at stride
@group(0) @binding(3) var<storage, read> bias: array<f32>; // [heads, 2 * reach + 1]
@group(0) @binding(4) var<storage, read_write> context: array<vec4<f32>>; // [queries, heads, head4]

var<workgroup> scores: array<f32, MAX_KEYS>;
var<workgroup> reduced: array<f32, LANES>;
var<workgroup> partial: array<vec4<f32>, LANES>;

@compute @workgroup_size(LANES)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let query = group.x;
    let head = group.y;
    let q_at = query * p.q_stride4 + head * p.head4;
    let k_at = p.k_offset4 + head * p.head4;
    let v_at = p.v_offset4 + head * p.head4;

    var largest = -3.4e38;
    for (var key = lane; key < p.keys; key += LANES) {
        var score = 0.0;
        for (var i = 0u; i < p.head4; i++) {
            score += dot(q[q_at + i], kv[key * p.kv_stride4 + k_at + i]);
        }
        if p.biased == 1u {
            score += bias[head * (2u * p.reach + 1u) + key + p.reach - query];
        }
        scores[key] = score;
        largest = max(largest, score);
    }
    reduced[lane] = largest;
    workgroupBarrier();
    for (var i = 0u; i < LANES; i++) {
        largest = max(largest, reduced[i]);
    }
    workgroupBarrier();
    var sum = 0.0;
    for (var key = lane; key < p.keys; key += LANES) {
        let e = exp(scores[key] - largest);
        scores[key] = e;
        sum += e;
    }
    reduced[lane] = sum;
    workgroupBarrier();
    sum = 0.0;
    for (var i = 0u; i < LANES; i++) {
        sum += reduced[i];
    }

    // Narrow heads: several lanes share a quad of the output, each with a part of the keys.
    let width = min(p.head4, LANES);
    let parts = LANES / width;
    let part = lane / width;
    let out_at = query * p.out_stride4 + head * p.head4;
    for (var first = 0u; first < p.head4; first += width) {
        let quad = first + lane % width;
        var value = vec4<f32>(0.0);
        if part < parts && quad < p.head4 {
            for (var key = part; key < p.keys; key += parts) {
                value += scores[key] * kv[key * p.kv_stride4 + v_at + quad];
            }
        }
        partial[lane] = value;
        workgroupBarrier();
        if part == 0u && quad < p.head4 {
            for (var i = 1u; i < parts; i++) {
                value += partial[lane + i * width];
            }
            context[out_at + quad] = value / sum;
        }
        workgroupBarrier();
    }
}
