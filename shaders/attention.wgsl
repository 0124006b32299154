// Attention of four queries and one head a workgroup, over keys that all queries of a user share: the
// encoder's self-attention (with relative position bias) and the decoder's cross-attention
// (without). Unscaled, as in T5: out = softmax(q . k + bias) v.
//
// Keys come transposed, so that neighbouring invocations read neighbouring keys, then neighbouring
// values. Any number of keys: the softmax is kept up from chunk to chunk.

struct Params {
    queries: u32, // of a user
    key_rows: u32, // rows of keys and values of a user
    heads: u32,
    head4: u32, // quads of d_kv
    q_stride4: u32, // quads between queries
    k_offset: u32, // first value of the keys
    k_stride: u32, // values between the components of a key
    v_offset: u32, // first value of the values
    v_stride: u32, // values between values
    out_stride: u32, // values between outputs
    biased: u32, // 1: add the bias
    reach: u32, // the bias table's centre
}

const LANES: u32 = 32u;
// Keys that one invocation scores at once; three fit twenty items best.
const TILE: u32 = 3u * LANES;
const CHUNK: u32 = 4u * TILE;
// Components of values that a workgroup sums up at once, two an invocation.
const BLOCK: u32 = 2u * LANES;

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> q: array<vec4<f32>>; // [users, queries, heads, head4] at stride
@group(0) @binding(2) var<storage, read> kv: array<f32>; // [heads, 4 * head4, k_stride], [users, key_rows, heads, 4 * head4] at stride
@group(0) @binding(3) var<storage, read> bias: array<f32>; // [heads, 2 * reach + 1]
@group(0) @binding(4) var<storage, read_write> context: array<f32>; // [users, queries, heads, 4 * head4]
@group(0) @binding(5) var<storage, read> lengths: array<u32>; // [users], keys of each

// A component a query.
var<workgroup> scores: array<vec4<f32>, CHUNK>;
var<workgroup> maxima: array<vec4<f32>, LANES>;
var<workgroup> fewer: array<vec4<f32>, 8>;

@compute @workgroup_size(LANES)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let first = group.x * 4u;
    let head = group.y % p.heads;
    let user = group.y / p.heads;
    let key_count = lengths[user];
    let width = 4u * p.head4;
    // Queries past the end repeat the last one and are not stored.
    let query = min(first + vec4<u32>(0u, 1u, 2u, 3u), vec4<u32>(p.queries - 1u));
    let q_at = (user * p.queries + query) * p.q_stride4 + head * p.head4;
    let k_at = p.k_offset + head * width * p.k_stride + user * p.key_rows;
    let v_at = p.v_offset + head * width + user * p.key_rows * p.v_stride;
    let bias_at = head * (2u * p.reach + 1u) + p.reach - query;

    for (var block = 0u; block < width; block += BLOCK) {
        let component = block + vec2<u32>(lane, lane + LANES);
        // Components past the end read anything and are not stored.
        let v_lane = v_at + component;
        var largest = vec4<f32>(-3.4e38);
        var sum = vec4<f32>(0.0);
        var out0 = vec4<f32>(0.0);
        var out1 = vec4<f32>(0.0);
        for (var begin = 0u; begin < key_count; begin += CHUNK) {
            let end = min(begin + CHUNK, key_count);
            var mine = vec4<f32>(-3.4e38);
            for (var key = begin + lane; key < end; key += TILE) {
                let keys = min(key + vec3<u32>(0u, LANES, 2u * LANES), vec3<u32>(key_count - 1u));
                var score0 = vec4<f32>(0.0);
                var score1 = vec4<f32>(0.0);
                var score2 = vec4<f32>(0.0);
                for (var i = 0u; i < p.head4; i++) {
                    let q0 = q[q_at.x + i];
                    let q1 = q[q_at.y + i];
                    let q2 = q[q_at.z + i];
                    let q3 = q[q_at.w + i];
                    let k0 = key_quad(k_at, i, keys.x);
                    let k1 = key_quad(k_at, i, keys.y);
                    let k2 = key_quad(k_at, i, keys.z);
                    score0 += vec4<f32>(dot(q0, k0), dot(q1, k0), dot(q2, k0), dot(q3, k0));
                    score1 += vec4<f32>(dot(q0, k1), dot(q1, k1), dot(q2, k1), dot(q3, k1));
                    score2 += vec4<f32>(dot(q0, k2), dot(q1, k2), dot(q2, k2), dot(q3, k2));
                }
                if p.biased == 1u {
                    score0 += bias_of(bias_at + keys.x);
                    score1 += bias_of(bias_at + keys.y);
                    score2 += bias_of(bias_at + keys.z);
                }
                // Keys past the end repeat the last one, which changes no maximum.
                mine = max(mine, max(score0, max(score1, score2)));
                scores[key - begin] = score0;
                if key + LANES < end {
                    scores[key + LANES - begin] = score1;
                }
                if key + 2u * LANES < end {
                    scores[key + 2u * LANES - begin] = score2;
                }
            }
            maxima[lane] = mine;
            workgroupBarrier();
            if lane < 8u {
                let at = 4u * lane;
                fewer[lane] =
                    max(max(maxima[at], maxima[at + 1u]), max(maxima[at + 2u], maxima[at + 3u]));
            }
            workgroupBarrier();
            var next = largest;
            for (var i = 0u; i < 8u; i++) {
                next = max(next, fewer[i]);
            }
            for (var key = begin + lane; key < end; key += LANES) {
                scores[key - begin] = exp(scores[key - begin] - next);
            }
            workgroupBarrier();
            let shrink = exp(largest - next);
            largest = next;
            sum *= shrink;
            out0 *= shrink;
            out1 *= shrink;
            if component.x < width {
                for (var key = begin; key < end; key++) {
                    let weights = scores[key - begin];
                    let at = v_lane + key * p.v_stride;
                    sum += weights;
                    out0 += weights * kv[at.x];
                    out1 += weights * kv[at.y];
                }
            }
            workgroupBarrier();
        }
        for (var i = 0u; i < min(4u, p.queries - first); i++) {
            let at = (user * p.queries + first + i) * p.out_stride + head * width + component;
            if component.x < width {
                context[at.x] = out0[i] / sum[i];
            }
            if component.y < width {
                context[at.y] = out1[i] / sum[i];
            }
        }
    }
}

// Four neighbouring components of a key.
fn key_quad(k_at: u32, quad: u32, key: u32) -> vec4<f32> {
    let at = k_at + 4u * quad * p.k_stride + key;
    return vec4<f32>(
        kv[at],
        kv[at + p.k_stride],
        kv[at + 2u * p.k_stride],
        kv[at + 3u * p.k_stride],
    );
}

fn bias_of(at: vec4<u32>) -> vec4<f32> {
    return vec4<f32>(bias[at.x], bias[at.y], bias[at.z], bias[at.w]);
}
