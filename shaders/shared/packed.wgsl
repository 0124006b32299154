// Inputs in 16-bit integers as two packed quads of bytes, so that products with int8 are two packed
// dot products, and exact.

alias Quad = vec2<u32>; // the high bytes, the low bytes
const LARGEST: f32 = 32639.0; // 127 * 256 + 127

fn rounded(values: vec4<f32>) -> Quad {
    let whole = vec4<i32>(round(values));
    // Low bytes are signed too: -128 to 127.
    let high = (whole + vec4<i32>(128)) >> vec4<u32>(8u);
    return vec2<u32>(pack4xI8(high), pack4xI8(whole - (high << vec4<u32>(8u))));
}

// Sums of four rows, a component an output, of high and of low bytes.
struct Sums {
    high0: vec4<i32>,
    high1: vec4<i32>,
    high2: vec4<i32>,
    high3: vec4<i32>,
    low0: vec4<i32>,
    low1: vec4<i32>,
    low2: vec4<i32>,
    low3: vec4<i32>,
}

// Adds the products of four staged quads from `at` on with int8 weights, a word an output.
fn add_products(sums: ptr<function, Sums>, at: u32, words: vec4<u32>) {
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

fn dots(words: vec4<u32>, x: u32) -> vec4<i32> {
    return vec4<i32>(
        dot4I8Packed(words.x, x),
        dot4I8Packed(words.y, x),
        dot4I8Packed(words.z, x),
        dot4I8Packed(words.w, x),
    );
}

// The sums as floats, columns of rows.
fn in_floats(sums: Sums) -> mat4x4<f32> {
    return mat4x4<f32>(
        256.0 * vec4<f32>(sums.high0) + vec4<f32>(sums.low0),
        256.0 * vec4<f32>(sums.high1) + vec4<f32>(sums.low1),
        256.0 * vec4<f32>(sums.high2) + vec4<f32>(sums.low2),
        256.0 * vec4<f32>(sums.high3) + vec4<f32>(sums.low3),
    );
}
