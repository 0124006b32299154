// What an attention over keys that all queries of a user share reads and writes.

struct Params {
    queries: u32, // of a user
    key_rows: u32, // rows of keys and values of a user, a multiple of four
    heads: u32,
    head4: u32, // quads of d_kv
    q_stride4: u32, // quads between queries
    k_offset4: u32, // first quad of the keys
    k_stride4: u32, // quads between the components of a key
    v_offset4: u32, // first quad of the values
    v_stride4: u32, // quads between values
    biased: u32, // 1: add the bias
    reach: u32, // the bias table's centre
}

// Below every score, and far enough from the largest numbers that the exponential of a difference,
// which GPUs compute by a product, does not overflow on the way.
const NEVER: f32 = -1e30;

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> q: array<vec4f>; // [users, queries, heads, head4] at stride
@group(0) @binding(2) var<storage, read> kv: array<vec4f>; // [heads, 4 * head4, k_stride4], [users, key_rows, heads, head4] at stride
@group(0) @binding(3) var<storage, read> bias: array<f32>; // [heads, 2 * reach + 1]
@group(0) @binding(4) var<storage, read_write> context: array<vec4f>; // [users, queries, heads, head4]
@group(0) @binding(5) var<storage, read> lengths: array<u32>; // [users], keys of each

// Where a head's first component of a user's keys begins.
fn keys_at(head: u32, user: u32) -> u32 {
    return p.k_offset4 + head * 4u * p.head4 * p.k_stride4 + user * p.key_rows / 4u;
}

// Where a head's part of a user's first value begins.
fn values_at(head: u32, user: u32) -> u32 {
    return p.v_offset4 + head * p.head4 + user * p.key_rows * p.v_stride4;
}

// Where the table of a head has the bias between a query and key 0.
fn bias_row(head: u32, query: vec4u) -> vec4u {
    // Rows that fill the last quad of an input lie beyond the table; nothing reads them.
    return head * (2u * p.reach + 1u) + p.reach - min(query, vec4u(p.reach));
}
