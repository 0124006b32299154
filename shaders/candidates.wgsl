// Scores every code under every beam: keys[row, code] orders as the score does, and is 0 where the
// prefix is not live (no item under it, or none that is allowed).
#import trie
#import beam
#import level
#import ordering

@group(0) @binding(2) var<storage, read> beams: array<u32>; // beam state
@group(0) @binding(3) var<storage, read> logits: array<f32>; // [rows, vocabulary] at stride
@group(0) @binding(4) var<storage, read> normalisers: array<vec4f>; // [rows], the first value
// [user] where its filter begins: flags, how many ranks are listed, then these, ascending, or a bit
// a rank: pairs of a word and how many bits are set before it
@group(0) @binding(5) var<storage, read> listed: array<u32>;
@group(0) @binding(6) var<storage, read_write> keys: array<u32>; // [rows, codes]

const ALLOW: u32 = 1u; // only the listed ranks are allowed; else all but them
const BITS: u32 = 2u; // a bit a rank

// Ranks below `rank` that the filter at `filter_at` lists.
fn listed_below(filter_at: u32, rank: u32) -> u32 {
    let first = filter_at + 2u;
    if (listed[filter_at] & BITS) != 0u {
        let at = first + rank / 32u * 2u;
        return listed[at + 1u] + countOneBits(listed[at] & ((1u << (rank % 32u)) - 1u));
    }
    var begin = 0u;
    var to = listed[filter_at + 1u];
    while begin < to {
        let middle = begin + (to - begin) / 2u;
        if listed[first + middle] < rank {
            begin = middle + 1u;
        } else {
            to = middle;
        }
    }
    return begin;
}

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3u) {
    let code = id.x;
    let row = id.y;
    if code >= p.codes {
        return;
    }
    var key = 0u;
    let user = row / p.rows;
    if row % p.rows < beams[user] {
        let beam = beam_at(row);
        let end = beams[beam + 2u];
        let low = lower_bound(beams[beam + 1u], end, p.level, p.words, code);
        let high = lower_bound(low, end, p.level, p.words, code + 1u);
        let filter_at = listed[user];
        var allowed = listed_below(filter_at, high) - listed_below(filter_at, low);
        if (listed[filter_at] & ALLOW) == 0u {
            allowed = (high - low) - allowed;
        }
        if allowed > 0u {
            let log_prob = logits[row * p.stride + p.offset + code] - normalisers[row].x;
            key = order_key(bitcast<f32>(beams[beam]) + log_prob);
        }
    }
    keys[row * p.codes + code] = key;
}
