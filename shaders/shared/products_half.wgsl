// Products in halves: four products of a quad in halves, the sum of quads in floats. Inputs are at
// most 256 in magnitude and weights 32, so that four products fit into a half, and small ones are
// not lost below the smallest half. The weights are those of `weights_f16`, read as what they are.

@group(0) @binding(5) var<storage, read> weights: array<vec4<f16>>; // [inputs / 2, outputs / 2], two of two outputs

alias Quad = vec4<f16>;
const LARGEST: f32 = 256.0;

fn rounded(values: vec4<f32>) -> Quad {
    return vec4<f16>(values);
}

// Products of four staged rows from `first` on, columns, with a quad of outputs; `outputs4` counts
// those of the matrix, `begin` and `end` are quads of inputs.
fn products_of(first: u32, begin: u32, end: u32, outputs: u32, outputs4: u32) -> mat4x4<f32> {
    var sums = mat4x4<f32>();
    for (var k = begin; k < end; k++) {
        let low = 2u * (2u * k * outputs4 + outputs);
        let high = low + 2u * outputs4;
        let low_xy = weights[low];
        let low_zw = weights[low + 1u];
        let high_xy = weights[high];
        let high_zw = weights[high + 1u];
        // A column an output, a component an input.
        let w = mat4x4<f16>(
            vec4<f16>(low_xy.xy, high_xy.xy),
            vec4<f16>(low_xy.zw, high_xy.zw),
            vec4<f16>(low_zw.xy, high_zw.xy),
            vec4<f16>(low_zw.zw, high_zw.zw),
        );
        let at = (k - begin) * ROWS + first;
        sums += mat4x4<f32>(
            vec4<f32>(staged[at] * w),
            vec4<f32>(staged[at + 1u] * w),
            vec4<f32>(staged[at + 2u] * w),
            vec4<f32>(staged[at + 3u] * w),
        );
    }
    return sums;
}

fn scales_of(outputs: u32) -> vec4<f32> {
    return vec4<f32>(1.0);
}
