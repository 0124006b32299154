// Inputs in 16-bit integers as two packed quads of bytes, so that products with int8 are two packed
// dot products, and exact.

alias Quad = vec2u; // the high bytes, the low bytes
const LARGEST: f32 = 32639.0; // 127 * 256 + 127

fn rounded(values: vec4f) -> Quad {
    let whole = vec4i(round(values));
    // Low bytes are signed too: -128 to 127.
    let high = (whole + vec4i(128)) >> vec4u(8u);
    return vec2u(pack4xI8(high), pack4xI8(whole - (high << vec4u(8u))));
}

// Sums of four rows, a component an output, of high and of low bytes.
struct Sums {
    high0: vec4i,
    high1: vec4i,
    high2: vec4i,
    high3: vec4i,
    low0: vec4i,
    low1: vec4i,
    low2: vec4i,
    low3: vec4i,
}

// Adds the products of four staged quads from `at` on with int8 weights, a word an output.
fn add_products(sums: ptr<function, Sums>, at: u32, words: vec4u) {
    let x0 = staged[at];
    let x1 = staged[at + 1u];
    let x2 = staged[at + 2u];
    let x3 = staged[at + 3u];
    (*sums).high0 += dots(words, x0.x);
    (*sums).high1 += dots(words, x1.x);
    (*sums).high2 += dots(words, x2.x);
    (*sums).high3 += dots(words, x3.x);
    (*sums).low0 += dots(words, x0.y);
    (*sums).low1 += dots(words, x1.y);
    (*sums).low2 += dots(words, x2.y);
    (*sums).low3 += dots(words, x3.y);
}

fn dots(words: vec4u, x: u32) -> vec4i {
    return vec4i(
        dot4I8Packed(words.x, x),
        dot4I8Packed(words.y, x),
        dot4I8Packed(words.z, x),
        dot4I8Packed(words.w, x),
    );
}

// The sums as floats, columns of rows.
fn in_floats(sums: Sums) -> mat4x4f {
    return mat4x4f(
        256.0 * vec4f(sums.high0) + vec4f(sums.low0),
        256.0 * vec4f(sums.high1) + vec4f(sums.low1),
        256.0 * vec4f(sums.high2) + vec4f(sums.low2),
        256.0 * vec4f(sums.high3) + vec4f(sums.low3),
    );
}
