// Linear layer with what stands around it in T5:
//   y = [y +] [relu] (scale * ([RMS norm of] x) W^T)
// One invocation computes a tile of 4 rows by 4 outputs in registers, or by 16 where that pays
// (`tile`). Outputs come in quads, of which the weights of a quad of inputs are one load or a few;
// an invocation's quads lie LANES apart, so that neighbours read neighbouring weights, and all of a
// row read the same inputs. The norm's factor belongs to a whole row, so it is gathered on the way
// and applied at the end.
//
// Where outputs are keys of an attention over all rows, they are written transposed, as that reads
// them: neighbours there are keys.
#import weights
#import tile

struct Params {
    rows: u32,
    inputs4: u32, // quads of the input width
    outputs: u32, // the output width, a multiple of four
    y_offset: u32, // first value of y that is written
    inputs: u32, // the input width without padding
    normalise: u32, // 1: RMS norm of x before
    relu: u32, // 1: ReLU after
    residual: u32, // 1: add to y
    epsilon: f32,
    scale: f32,
    part: u32, // outputs of a part: of queries, of keys, of values
    parts: u32, // parts of a layer, 0: no keys among them
    key_part: u32, // which of a layer's parts are its keys
    key_offset: u32, // first value of the transposed keys in y: [layers, part, key_stride]
    key_stride: u32,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<vec4<f32>>; // [rows, inputs4]
@group(0) @binding(2) var<storage, read> norm: array<vec4<f32>>; // [inputs4]
@group(0) @binding(3) var<storage, read_write> y: array<f32>; // [rows, outputs] at y_offset

@compute @workgroup_size(LANES, TILES)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    let row = id.y * 4u;
    let outputs4 = p.outputs / 4u;
    let first = id.x / LANES * (OUTPUTS / 4u) * LANES + id.x % LANES;
    if row >= p.rows || first >= outputs4 {
        return;
    }
    // Rows past the end repeat the last one, outputs past the end read anything; neither is stored.
    let at = min(vec4<u32>(row, row + 1u, row + 2u, row + 3u), vec4<u32>(p.rows - 1u)) * p.inputs4;
    // A column a row of x, a component an output.
    var sums0 = mat4x4<f32>();
    var sums1 = mat4x4<f32>();
    var sums2 = mat4x4<f32>();
    var sums3 = mat4x4<f32>();
    var squares = vec4<f32>(0.0);
    for (var k = 0u; k < p.inputs4; k++) {
        var rows = mat4x4<f32>(x[at.x + k], x[at.y + k], x[at.z + k], x[at.w + k]);
        if p.normalise == 1u {
            squares += vec4<f32>(
                dot(rows[0], rows[0]),
                dot(rows[1], rows[1]),
                dot(rows[2], rows[2]),
                dot(rows[3], rows[3]),
            );
            let n = norm[k];
            rows = mat4x4<f32>(rows[0] * n, rows[1] * n, rows[2] * n, rows[3] * n);
        }
        sums0 += weights_of(k, first, outputs4) * rows;
        if OUTPUTS == 16u {
            sums1 += weights_of(k, first + LANES, outputs4) * rows;
            sums2 += weights_of(k, first + 2u * LANES, outputs4) * rows;
            sums3 += weights_of(k, first + 3u * LANES, outputs4) * rows;
        }
    }
    var factors = vec4<f32>(p.scale);
    if p.normalise == 1u {
        factors *= inverseSqrt(squares / f32(p.inputs) + p.epsilon);
    }
    store_four(row, first, sums0, factors);
    if OUTPUTS == 16u {
        store_four(row, first + LANES, sums1, factors);
        store_four(row, first + 2u * LANES, sums2, factors);
        store_four(row, first + 3u * LANES, sums3, factors);
    }
}

// Stores a quad of outputs of four rows.
fn store_four(row: u32, outputs: u32, sums: mat4x4<f32>, factors: vec4<f32>) {
    let output = 4u * outputs;
    if output >= p.outputs {
        return;
    }
    var at = p.y_offset + row * p.outputs + output;
    var to_row = p.outputs;
    var to_output = 1u;
    // A part is a multiple of four wide: a quad is keys or is not.
    if p.parts != 0u && (output / p.part) % p.parts == p.key_part {
        let layer = output / (p.part * p.parts);
        at = p.key_offset + (layer * p.part + output % p.part) * p.key_stride + row;
        to_row = 1u;
        to_output = p.key_stride;
    }
    let scales = scales_of(outputs);
    store_row(at, to_output, sums[0] * (scales * factors.x));
    if row + 1u < p.rows {
        store_row(at + to_row, to_output, sums[1] * (scales * factors.y));
    }
    if row + 2u < p.rows {
        store_row(at + 2u * to_row, to_output, sums[2] * (scales * factors.z));
    }
    if row + 3u < p.rows {
        store_row(at + 3u * to_row, to_output, sums[3] * (scales * factors.w));
    }
}

fn store_row(at: u32, to_output: u32, sums: vec4<f32>) {
    var values = sums;
    if p.relu == 1u {
        values = max(values, vec4<f32>(0.0));
    }
    store_one(at, values.x);
    store_one(at + to_output, values.y);
    store_one(at + 2u * to_output, values.z);
    store_one(at + 3u * to_output, values.w);
}

fn store_one(at: u32, sum: f32) {
    var value = sum;
    if p.residual == 1u {
        value += y[at];
    }
    y[at] = value;
}
