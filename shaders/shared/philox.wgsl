// The counter-based generator Philox4x32-10 (Salmon et al., "Parallel Random Numbers: As Easy as 1,
// 2, 3", SC 2011). The CPU engine has the same in `wasm-infer/src/sampling.rs`.

// The high word of a product; WGSL has the low one only.
fn high_product(a: u32, b: u32) -> u32 {
    let low = (a & 0xffffu) * (b & 0xffffu);
    let left = (a >> 16u) * (b & 0xffffu);
    let right = (a & 0xffffu) * (b >> 16u);
    let carry = ((low >> 16u) + (left & 0xffffu) + (right & 0xffffu)) >> 16u;
    return (a >> 16u) * (b >> 16u) + (left >> 16u) + (right >> 16u) + carry;
}

// The first word that a counter gives under a key.
fn philox(counter: vec4u, key: vec2u) -> u32 {
    var c = counter;
    var k = key;
    for (var i = 0u; i < 10u; i++) {
        c = vec4u(
            high_product(0xcd9e8d57u, c.z) ^ c.y ^ k.x,
            c.z * 0xcd9e8d57u,
            high_product(0xd2511f53u, c.x) ^ c.w ^ k.y,
            c.x * 0xd2511f53u,
        );
        k += vec2u(0x9e3779b9u, 0xbb67ae85u);
    }
    return c.x;
}
