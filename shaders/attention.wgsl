// Attention of sixteen queries and one head a workgroup, over keys that all queries of a user share:
// the encoder's self-attention (with relative position bias) and the decoder's cross-attention
// (without). Unscaled, as in T5: out = softmax(q . k + bias) v.
//
// The queries are tiles of four. Keys come transposed, in quads: an invocation of a tile scores four
// of them, then sums up a quad of the values' components. Any number of keys: the softmax is kept up
// from chunk to chunk. Tiles share nothing but the barriers.
#import attention_operands

// Invocations of a tile: as many as a head of 64 has quads. More make more barriers, fewer make sums
// twice.
const LANES: u32 = 16u;
// Tiles of a workgroup: as many as fill subgroups of up to 64.
const TILES: u32 = 4u;
// Keys that a tile scores before it sums up their values. More would take memory that other
// workgroups of the same core need.
const CHUNK: u32 = 128u;

// A tile after the other, a component a query.
var<workgroup> scores: array<vec4f, CHUNK * TILES>;
var<workgroup> largest_of: array<vec4f, LANES * TILES>;

@compute @workgroup_size(LANES, TILES)
fn main(
    @builtin(workgroup_id) group: vec3u,
    @builtin(local_invocation_id) invocation: vec3u,
) {
    let lane = invocation.x;
    let tile = invocation.y;
    let scores_at = tile * CHUNK;
    let lanes_at = tile * LANES;
    let first = 4u * (group.x * TILES + tile);
    let head = group.y % p.heads;
    let user = group.y / p.heads;
    let key_count = lengths[user];
    // A tile past the end has no keys, and only meets the barriers; in a tile, queries past the end
    // repeat the last one. Neither is stored.
    let own_keys = select(0u, key_count, first < p.queries);
    let query = min(first + vec4u(0u, 1u, 2u, 3u), vec4u(p.queries - 1u));
    let q_at = (user * p.queries + query) * p.q_stride4 + head * p.head4;
    let k_at = keys_at(head, user);
    let v_at = values_at(head, user);
    let bias_at = bias_row(head, query);

    for (var block = 0u; block < p.head4; block += LANES) {
        // Components past the end are not stored.
        let quad = block + lane;
        var largest = vec4f(NEVER);
        var sum = vec4f(0.0);
        // A column a query.
        var out = mat4x4f();
        for (var begin = 0u; begin < key_count; begin += CHUNK) {
            let end = max(begin, min(begin + CHUNK, own_keys));
            var mine = vec4f(NEVER);
            for (var key = begin + 4u * lane; key < end; key += 4u * LANES) {
                // A column a query, a component a key.
                var of_queries = mat4x4f();
                var at = k_at + key / 4u;
                for (var i = 0u; i < p.head4; i++) {
                    let components = mat4x4f(
                        kv[at],
                        kv[at + p.k_stride4],
                        kv[at + 2u * p.k_stride4],
                        kv[at + 3u * p.k_stride4],
                    );
                    at += 4u * p.k_stride4;
                    of_queries += components
                        * mat4x4f(q[q_at.x + i], q[q_at.y + i], q[q_at.z + i], q[q_at.w + i]);
                }
                let of_keys = transpose(of_queries);
                let to = scores_at + key - begin;
                mine = max(mine, score(to, key, end, bias_at, of_keys[0]));
                mine = max(mine, score(to + 1u, key + 1u, end, bias_at, of_keys[1]));
                mine = max(mine, score(to + 2u, key + 2u, end, bias_at, of_keys[2]));
                mine = max(mine, score(to + 3u, key + 3u, end, bias_at, of_keys[3]));
            }
            largest_of[lanes_at + lane] = mine;
            workgroupBarrier();
            var next = largest;
            for (var i = 0u; i < LANES; i++) {
                next = max(next, largest_of[lanes_at + i]);
            }
            for (var i = scores_at + lane; i < scores_at + end - begin; i += LANES) {
                scores[i] = exp(scores[i] - next);
            }
            workgroupBarrier();
            let by = exp(largest - next);
            largest = next;
            sum *= by;
            out = mat4x4f(out[0] * by.x, out[1] * by.y, out[2] * by.z, out[3] * by.w);
            if quad < p.head4 {
                var at = v_at + quad + begin * p.v_stride4;
                for (var i = scores_at; i < scores_at + end - begin; i++) {
                    let weights = scores[i];
                    let value = kv[at];
                    at += p.v_stride4;
                    sum += weights;
                    out += mat4x4f(
                        weights.x * value,
                        weights.y * value,
                        weights.z * value,
                        weights.w * value,
                    );
                }
            }
            workgroupBarrier();
        }
        if quad < p.head4 {
            let to_query = p.heads * p.head4;
            let at = (user * p.queries + first) * to_query + head * p.head4 + quad;
            if first < p.queries {
                context[at] = out[0] / sum.x;
            }
            if first + 1u < p.queries {
                context[at + to_query] = out[1] / sum.y;
            }
            if first + 2u < p.queries {
                context[at + 2u * to_query] = out[2] / sum.z;
            }
            if first + 3u < p.queries {
                context[at + 3u * to_query] = out[3] / sum.w;
            }
        }
    }
}

// Keeps the scores of a key, if there is such a one, and returns them; a component a query.
fn score(to: u32, key: u32, end: u32, bias_at: vec4u, products: vec4f) -> vec4f {
    if key >= end {
        return vec4f(NEVER);
    }
    var sums = products;
    if p.biased == 1u {
        let at = bias_at + key;
        sums += vec4f(bias[at.x], bias[at.y], bias[at.z], bias[at.w]);
    }
    scores[to] = sums;
    return sums;
}
