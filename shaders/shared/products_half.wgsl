// Products in halves: four products of a quad in halves, the sum of quads in floats. Inputs are at
// most 256 in magnitude and weights 32, so that four products fit into a half, and small ones are
// not lost below the smallest half. The weights are those of `weights_f16`, read as what they are.

@group(0) @binding(5) var<storage, read> weights: array<vec4h>; // [inputs / 2, outputs / 2], two of two outputs

alias Quad = vec4h;
const LARGEST: f32 = 256.0;

fn rounded(values: vec4f) -> Quad {
    return vec4h(values);
}

// Products of four staged rows from `first` on, columns, with a quad of outputs; `outputs4` counts
// those of the matrix, `begin` and `end` are quads of inputs.
fn products_of(first: u32, begin: u32, end: u32, outputs: u32, outputs4: u32) -> mat4x4f {
    var sums = mat4x4f();
    for (var k = begin; k < end; k++) {
        let low = 2u * (2u * k * outputs4 + outputs);
        let high = low + 2u * outputs4;
        let low_xy = weights[low];
        let low_zw = weights[low + 1u];
        let high_xy = weights[high];
        let high_zw = weights[high + 1u];
        // A column an output, a component an input.
        let w = mat4x4h(
            vec4h(low_xy.xy, high_xy.xy),
            vec4h(low_xy.zw, high_xy.zw),
            vec4h(low_zw.xy, high_zw.xy),
            vec4h(low_zw.zw, high_zw.zw),
        );
        let at = (k - begin) * ROWS + first;
        sums += mat4x4f(
            vec4f(staged[at] * w),
            vec4f(staged[at + 1u] * w),
            vec4f(staged[at + 2u] * w),
            vec4f(staged[at + 3u] * w),
        );
    }
    return sums;
}

fn scales_of(outputs: u32) -> vec4f {
    return vec4f(1.0);
}
