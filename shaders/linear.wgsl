// Linear layer with what stands around it in T5:
//   y = [y +] [relu] (scale * ([RMS norm of] x) W^T)
// One invocation computes a tile of 4 rows by 4 outputs in registers, or by 16 where that pays
// (`tile`). Its outputs lie LANES apart, so that neighbours read neighbouring weights, and all of a
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
    let first = id.x / LANES * OUTPUTS * LANES + id.x % LANES;
    if row >= p.rows || first >= p.outputs {
        return;
    }
    // Rows past the end repeat the last one, outputs past the end read anything; neither is stored.
    let at = min(vec4<u32>(row, row + 1u, row + 2u, row + 3u), vec4<u32>(p.rows - 1u)) * p.inputs4;
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
        sums0 += products(rows, k, first);
        if OUTPUTS == 16u {
            sums1 += products(rows, k, first + 4u * LANES);
            sums2 += products(rows, k, first + 8u * LANES);
            sums3 += products(rows, k, first + 12u * LANES);
        }
    }
    var factors = vec4<f32>(p.scale);
    if p.normalise == 1u {
        factors *= inverseSqrt(squares / f32(p.inputs) + p.epsilon);
    }
    store_four(row, first, sums0, factors);
    if OUTPUTS == 16u {
        store_four(row, first + 4u * LANES, sums1, factors);
        store_four(row, first + 8u * LANES, sums2, factors);
        store_four(row, first + 12u * LANES, sums3, factors);
    }
}

// Products of a quad of inputs: a column a row of x, a component an output.
fn products(rows: mat4x4<f32>, k: u32, first: u32) -> mat4x4<f32> {
    let w0 = weight(k, first, p.outputs);
    let w1 = weight(k, first + LANES, p.outputs);
    let w2 = weight(k, first + 2u * LANES, p.outputs);
    let w3 = weight(k, first + 3u * LANES, p.outputs);
    return mat4x4<f32>(
        vec4<f32>(dot(rows[0], w0), dot(rows[0], w1), dot(rows[0], w2), dot(rows[0], w3)),
        vec4<f32>(dot(rows[1], w0), dot(rows[1], w1), dot(rows[1], w2), dot(rows[1], w3)),
        vec4<f32>(dot(rows[2], w0), dot(rows[2], w1), dot(rows[2], w2), dot(rows[2], w3)),
        vec4<f32>(dot(rows[3], w0), dot(rows[3], w1), dot(rows[3], w2), dot(rows[3], w3)),
    );
}

fn store_four(row: u32, first: u32, sums: mat4x4<f32>, factors: vec4<f32>) {
    let of_outputs = transpose(sums);
    store(row, first, of_outputs[0] * factors);
    store(row, first + LANES, of_outputs[1] * factors);
    store(row, first + 2u * LANES, of_outputs[2] * factors);
    store(row, first + 3u * LANES, of_outputs[3] * factors);
}

// Stores one output of four rows.
fn store(row: u32, output: u32, sums: vec4<f32>) {
    if output >= p.outputs {
        return;
    }
    var at = p.y_offset + row * p.outputs + output;
    var stride = p.outputs;
    if p.parts != 0u && (output / p.part) % p.parts == p.key_part {
        let layer = output / (p.part * p.parts);
        at = p.key_offset + (layer * p.part + output % p.part) * p.key_stride + row;
        stride = 1u;
    }
    var values = sums * output_scale(output);
    if p.relu == 1u {
        values = max(values, vec4<f32>(0.0));
    }
    store_one(at, values.x);
    if row + 1u < p.rows {
        store_one(at + stride, values.y);
    }
    if row + 2u < p.rows {
        store_one(at + 2u * stride, values.z);
    }
    if row + 3u < p.rows {
        store_one(at + 3u * stride, values.w);
    }
}

fn store_one(at: u32, sum: f32) {
    var value = sum;
    if p.residual == 1u {
        value += y[at];
    }
    y[at] = value;
}
