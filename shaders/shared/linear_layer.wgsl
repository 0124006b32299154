// A linear layer with what stands around it in T5, without its products:
//   y = [y +] [relu] (scale * ([RMS norm of] x) W^T)
// Outputs come in quads. Where they are keys of an attention over all rows, they are written
// transposed, as that reads them: neighbours there are keys.

struct Params {
    rows: u32,
    inputs4: u32, // quads of the input width
    outputs: u32, // the output width, a multiple of four
    y_offset: u32, // first value of y that is written
    inputs: u32, // the input width without padding, by which a norm divides
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
@group(0) @binding(1) var<storage, read> x: array<vec4f>; // [rows, inputs4]
@group(0) @binding(2) var<storage, read> norm: array<vec4f>; // [inputs4]
@group(0) @binding(3) var<storage, read_write> y: array<f32>; // [rows, outputs] at y_offset

// Some drivers for Adreno give a function wrong numbers for a matrix that it takes by value, so what runs
// on GPUs takes pointers to them.

// What the sums of four rows are multiplied by, given the rows' squares. A row whose squares overflow
// has no norm, and what is no number stays none. By bits: arithmetic may be compiled as if there were
// no such values.
fn factors_of(squares: vec4f) -> vec4f {
    if p.normalise == 0u {
        return vec4f(p.scale);
    }
    let mean = squares / f32(p.inputs) + p.epsilon;
    let factors = p.scale * (sqrt(mean) / mean);
    let bits = bitcast<vec4u>(squares);
    let none = bitcast<vec4f>(bits | vec4u(0x00400000u));
    return select(none, factors, (bits & vec4u(0x7f800000u)) < vec4u(0x7f800000u));
}

// Stores a quad of outputs of four rows, a column of the sums each.
fn store_four(rows: vec4u, outputs: u32, sums: ptr<function, mat4x4f>, factors: vec4f) {
    let output = 4u * outputs;
    if output >= p.outputs {
        return;
    }
    var at = p.y_offset + output;
    var to_row = p.outputs;
    var to_output = 1u;
    // A part is a multiple of four wide: a quad is keys or is not.
    if p.parts != 0u && (output / p.part) % p.parts == p.key_part {
        let layer = output / (p.part * p.parts);
        at = p.key_offset + (layer * p.part + output % p.part) * p.key_stride;
        to_row = 1u;
        to_output = p.key_stride;
    }
    let scales = scales_of(outputs);
    for (var i = 0u; i < 4u; i++) {
        if rows[i] < p.rows {
            store_row(at + rows[i] * to_row, to_output, (*sums)[i] * (scales * factors[i]));
        }
    }
}

fn store_row(at: u32, to_output: u32, sums: vec4f) {
    var values = sums;
    if p.relu == 1u {
        // `max` may lose what is no number.
        values = select(values, vec4f(0.0), values < vec4f(0.0));
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
