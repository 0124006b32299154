// A linear layer (`shared/linear_layer.wgsl`) in floats, for software adapters.
//
// There a load costs twenty times as much as a product, whatever its pattern, since it is made and
// checked for each component of each invocation; a sum that lives on to the next iteration
// costs three products. So an invocation computes 8 rows by 16 outputs and two quads of inputs an
// iteration, and loads two of the rows only: the others come from its quad of invocations.
#import weights
#import linear_layer
#import quad

const LANES: u32 = 8u; // invocations, with quads of outputs LANES apart

@compute @workgroup_size(LANES)
fn main(
    @builtin(workgroup_id) group: vec3u,
    @builtin(local_invocation_index) lane: u32,
    @builtin(subgroup_invocation_id) invocation: u32,
) {
    let row = group.y * 8u;
    let outputs4 = p.outputs / 4u;
    let first = group.x * 4u * LANES + lane;
    let own = invocation % 4u;
    // Rows past the end repeat the last one, outputs past the end read anything; neither is stored.
    let at = min(vec2u(row, row + 4u) + own, vec2u(p.rows - 1u)) * p.inputs4;
    // A column a row of x, a component an output; a matrix for each quad of outputs.
    var near0 = mat4x4f();
    var near1 = mat4x4f();
    var near2 = mat4x4f();
    var near3 = mat4x4f();
    var far0 = mat4x4f();
    var far1 = mat4x4f();
    var far2 = mat4x4f();
    var far3 = mat4x4f();
    var squares = vec2f(0.0);
    for (var k = 0u; k < p.inputs4; k += 2u) {
        // The last iteration may have one quad: it is taken twice, the second time as zeros.
        let l = min(k + 1u, p.inputs4 - 1u);
        let second = f32(l - k);
        let near_k = x[at.x + k];
        let near_l = second * x[at.x + l];
        let far_k = x[at.y + k];
        let far_l = second * x[at.y + l];
        squares += vec2f(
            dot(near_k, near_k) + dot(near_l, near_l),
            dot(far_k, far_k) + dot(far_l, far_l),
        );
        // Both are read in any case: where there is no norm, the buffer may be a shorter one.
        let norm_k = select(vec4f(1.0), norm[k], p.normalise == 1u);
        let norm_l = select(vec4f(1.0), norm[l], p.normalise == 1u);
        let nears_k = of_quad(near_k * norm_k);
        let nears_l = of_quad(near_l * norm_l);
        let fars_k = of_quad(far_k * norm_k);
        let fars_l = of_quad(far_l * norm_l);
        let weights0_k = weights_of(k, first, outputs4);
        let weights0_l = weights_of(l, first, outputs4);
        near0 += weights0_k * nears_k + weights0_l * nears_l;
        far0 += weights0_k * fars_k + weights0_l * fars_l;
        let weights1_k = weights_of(k, first + LANES, outputs4);
        let weights1_l = weights_of(l, first + LANES, outputs4);
        near1 += weights1_k * nears_k + weights1_l * nears_l;
        far1 += weights1_k * fars_k + weights1_l * fars_l;
        let weights2_k = weights_of(k, first + 2u * LANES, outputs4);
        let weights2_l = weights_of(l, first + 2u * LANES, outputs4);
        near2 += weights2_k * nears_k + weights2_l * nears_l;
        far2 += weights2_k * fars_k + weights2_l * fars_l;
        let weights3_k = weights_of(k, first + 3u * LANES, outputs4);
        let weights3_l = weights_of(l, first + 3u * LANES, outputs4);
        near3 += weights3_k * nears_k + weights3_l * nears_l;
        far3 += weights3_k * fars_k + weights3_l * fars_l;
    }
    // A column a row, the first two components the near one's and the far one's.
    let all = transpose(of_quad(vec4f(squares, 0.0, 0.0)));
    let near = factors_of(all[0]);
    let far = factors_of(all[1]);
    let rows = row + rows_of_quad(own);
    store_copy(rows, first, near0, near);
    store_copy(rows, first + LANES, near1, near);
    store_copy(rows, first + 2u * LANES, near2, near);
    store_copy(rows, first + 3u * LANES, near3, near);
    store_copy(rows + 4u, first, far0, far);
    store_copy(rows + 4u, first + LANES, far1, far);
    store_copy(rows + 4u, first + 2u * LANES, far2, far);
    store_copy(rows + 4u, first + 3u * LANES, far3, far);
}

// Stores a copy, since sums that a pointer leads to stay in memory while they grow.
fn store_copy(rows: vec4u, outputs: u32, sums: mat4x4f, factors: vec4f) {
    var copy = sums;
    store_four(rows, outputs, &copy, factors);
}
