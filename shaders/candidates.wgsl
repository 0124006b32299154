// Scores every code under every beam: keys[row, code] orders as the score does, and is 0 where the
// prefix is not live (no item under it, or none that is allowed).
#import trie
#import beam
#import ordering

struct Params {
    level: u32,
    words: u32, // words of one item's codes
    codes: u32, // codes of the level
    offset: u32, // token of code 0
    stride: u32, // values between rows of logits
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(2) var<storage, read> beams: array<u32>; // beam state
@group(0) @binding(3) var<storage, read> logits: array<f32>; // [rows, vocabulary] at stride
@group(0) @binding(4) var<storage, read> normalisers: array<vec4<f32>>; // [rows], the first value
// [0] flags; [1] how many ranks are listed; then these, ascending, or a bit a rank: pairs of a word
// and how many bits are set before it
@group(0) @binding(5) var<storage, read> listed: array<u32>;
@group(0) @binding(6) var<storage, read_write> keys: array<u32>; // [rows, codes]

const ALLOW: u32 = 1u; // only the listed ranks are allowed; else all but them
const BITS: u32 = 2u; // a bit a rank

// Listed ranks below `rank`.
fn listed_below(rank: u32) -> u32 {
    if (listed[0] & BITS) != 0u {
        let at = 2u + rank / 32u * 2u;
        return listed[at + 1u] + countOneBits(listed[at] & ((1u << (rank % 32u)) - 1u));
    }
    var begin = 0u;
    var to = listed[1];
    while begin < to {
        let middle = begin + (to - begin) / 2u;
        if listed[2u + middle] < rank {
            begin = middle + 1u;
        } else {
            to = middle;
        }
    }
    return begin;
}

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    let code = id.x;
    let row = id.y;
    if code >= p.codes {
        return;
    }
    var key = 0u;
    if row < beams[0] {
        let beam = beam_at(row);
        let end = beams[beam + 2u];
        let low = lower_bound(beams[beam + 1u], end, p.level, p.words, code);
        let high = lower_bound(low, end, p.level, p.words, code + 1u);
        var allowed = listed_below(high) - listed_below(low);
        if (listed[0] & ALLOW) == 0u {
            allowed = (high - low) - allowed;
        }
        if allowed > 0u {
            let log_prob = logits[row * p.stride + p.offset + code] - normalisers[row].x;
            key = order_key(bitcast<f32>(beams[beam]) + log_prob);
        }
    }
    keys[row * p.codes + code] = key;
}
