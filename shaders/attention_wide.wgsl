// The attention of `attention.wgsl` for software adapters, where a load costs twenty times as much as
// a product and a barrier as much as thousands.
//
// A quad of invocations attends from eight queries with one head, and needs no barrier: each
// invocation scores four of sixteen keys and sums up four quads of the values' components; what the
// others have scored comes from them. Softmaxes are kept up from sixteen keys to the next.
#import attention_operands
#import quad

@compute @workgroup_size(4)
fn main(
    @builtin(workgroup_id) group: vec3u,
    @builtin(subgroup_invocation_id) invocation: u32,
) {
    let first = group.x * 8u;
    let head = group.y % p.heads;
    let user = group.y / p.heads;
    let key_count = lengths[user];
    let own = invocation % 4u;
    // Queries in this invocation's order; those past the end repeat the last one and are not stored.
    let order = rows_of_quad(own);
    let last = vec4u(p.queries - 1u);
    let near = min(first + order, last);
    let far = min(first + 4u + order, last);
    let q_at = (user * p.queries + vec2u(near.x, far.x)) * p.q_stride4 + head * p.head4;
    let k_at = keys_at(head, user);
    let v_at = values_at(head, user);
    let near_bias = bias_row(head, near);
    let far_bias = bias_row(head, far);

    for (var block = 0u; block < p.head4; block += 16u) {
        // Of the values' components, the first quad of four.
        let quad = block + 4u * own;
        var near_largest = vec4f(NEVER);
        var far_largest = vec4f(NEVER);
        var near_sum = vec4f(0.0);
        var far_sum = vec4f(0.0);
        // A column a query, a matrix for each quad of the values' components.
        var near0 = mat4x4f();
        var near1 = mat4x4f();
        var near2 = mat4x4f();
        var near3 = mat4x4f();
        var far0 = mat4x4f();
        var far1 = mat4x4f();
        var far2 = mat4x4f();
        var far3 = mat4x4f();
        for (var begin = 0u; begin < key_count; begin += 16u) {
            let key = begin + 4u * own;
            // A column a query, a component a key.
            var near_scores = mat4x4f();
            var far_scores = mat4x4f();
            var at = k_at + min(key, p.key_rows - 4u) / 4u;
            for (var i = 0u; i < p.head4; i++) {
                let components = mat4x4f(
                    kv[at],
                    kv[at + p.k_stride4],
                    kv[at + 2u * p.k_stride4],
                    kv[at + 3u * p.k_stride4],
                );
                at += 4u * p.k_stride4;
                near_scores += components * of_quad(q[q_at.x + i]);
                far_scores += components * of_quad(q[q_at.y + i]);
            }
            near_scores = biased_scores(near_scores, near_bias, key, key_count);
            far_scores = biased_scores(far_scores, far_bias, key, key_count);
            let near_next = max(near_largest, largest_of_quad(near_scores));
            let far_next = max(far_largest, largest_of_quad(far_scores));
            let near_shrink = exp(near_largest - near_next);
            let far_shrink = exp(far_largest - far_next);
            near_largest = near_next;
            far_largest = far_next;
            // A column a key, a component a query.
            var near_weights = weights_of_keys(near_scores, near_next);
            var far_weights = weights_of_keys(far_scores, far_next);
            let ones = vec4f(1.0);
            near_sum = near_sum * near_shrink + near_weights * ones;
            far_sum = far_sum * far_shrink + far_weights * ones;
            near0 = shrunk(near0, near_shrink);
            near1 = shrunk(near1, near_shrink);
            near2 = shrunk(near2, near_shrink);
            near3 = shrunk(near3, near_shrink);
            far0 = shrunk(far0, far_shrink);
            far1 = shrunk(far1, far_shrink);
            far2 = shrunk(far2, far_shrink);
            far3 = shrunk(far3, far_shrink);
            for (var i = 0u; i < 4u; i++) {
                // One key of each invocation. Keys past the end have no weight.
                let rows = min(begin + 4u * order + i, vec4u(key_count - 1u));
                let values = v_at + rows * p.v_stride4 + quad;
                let of_near = transpose(of_same_rows(near_weights[i]));
                let of_far = transpose(of_same_rows(far_weights[i]));
                let values0 = rows_at(values);
                near0 += values0 * of_near;
                far0 += values0 * of_far;
                let values1 = rows_at(values + 1u);
                near1 += values1 * of_near;
                far1 += values1 * of_far;
                let values2 = rows_at(values + 2u);
                near2 += values2 * of_near;
                far2 += values2 * of_far;
                let values3 = rows_at(values + 3u);
                near3 += values3 * of_near;
                far3 += values3 * of_far;
            }
        }
        let ones = vec4f(1.0);
        near_sum = of_same_rows(near_sum) * ones;
        far_sum = of_same_rows(far_sum) * ones;
        let context_at = user * p.queries * p.heads * p.head4 + head * p.head4;
        let near_rows = first + order;
        let far_rows = near_rows + 4u;
        store_quads(context_at, near_rows, quad, near0, near_sum);
        store_quads(context_at, near_rows, quad + 1u, near1, near_sum);
        store_quads(context_at, near_rows, quad + 2u, near2, near_sum);
        store_quads(context_at, near_rows, quad + 3u, near3, near_sum);
        store_quads(context_at, far_rows, quad, far0, far_sum);
        store_quads(context_at, far_rows, quad + 1u, far1, far_sum);
        store_quads(context_at, far_rows, quad + 2u, far2, far_sum);
        store_quads(context_at, far_rows, quad + 3u, far3, far_sum);
    }
}

fn rows_at(at: vec4u) -> mat4x4f {
    return mat4x4f(kv[at.x], kv[at.y], kv[at.z], kv[at.w]);
}

// Scores of four keys with the bias, and NEVER where there is no key.
fn biased_scores(scores: mat4x4f, bias_at: vec4u, key: u32, end: u32) -> mat4x4f {
    return mat4x4f(
        biased_score(scores[0], bias_at.x, key, end),
        biased_score(scores[1], bias_at.y, key, end),
        biased_score(scores[2], bias_at.z, key, end),
        biased_score(scores[3], bias_at.w, key, end),
    );
}

fn biased_score(scores: vec4f, bias_at: u32, key: u32, end: u32) -> vec4f {
    var sums = scores;
    if p.biased == 1u {
        let at = bias_at + key;
        sums += vec4f(bias[at], bias[at + 1u], bias[at + 2u], bias[at + 3u]);
    }
    return select(vec4f(NEVER), sums, key + vec4u(0u, 1u, 2u, 3u) < vec4u(end));
}

// The largest score of each query, of all keys of the quad.
fn largest_of_quad(scores: mat4x4f) -> vec4f {
    let keys = transpose(scores);
    let all = of_same_rows(max(max(keys[0], keys[1]), max(keys[2], keys[3])));
    return max(max(all[0], all[1]), max(all[2], all[3]));
}

fn weights_of_keys(scores: mat4x4f, largest: vec4f) -> mat4x4f {
    let keys = transpose(scores);
    return mat4x4f(
        weights_of_key(keys[0], largest),
        weights_of_key(keys[1], largest),
        weights_of_key(keys[2], largest),
        weights_of_key(keys[3], largest),
    );
}

// No key has no weight, also where all scores lie below NEVER: nothing has then, which is no number.
fn weights_of_key(scores: vec4f, largest: vec4f) -> vec4f {
    return select(exp(scores - largest), vec4f(0.0), scores == vec4f(NEVER));
}

fn store_quads(at: u32, rows: vec4u, quad: u32, sums: mat4x4f, by: vec4f) {
    if quad >= p.head4 {
        return;
    }
    let to_query = p.heads * p.head4;
    for (var i = 0u; i < 4u; i++) {
        if rows[i] < p.queries {
            context[at + rows[i] * to_query + quad] = sums[i] / by[i];
        }
    }
}

// Sums of four queries, a column each, times a number each.
fn shrunk(sums: mat4x4f, by: vec4f) -> mat4x4f {
    return mat4x4f(sums[0] * by.x, sums[1] * by.y, sums[2] * by.z, sums[3] * by.w);
}
