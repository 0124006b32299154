// Keeps the best `width` candidates, ties to the smaller index, and writes them as the next beams
// in ascending order of index, which is ascending order of semantic ID. One workgroup a user.
//
// A radix select over the keys, a byte at a time from the top, finds the smallest key that
// survives and how many of its equals do.
#import trie
#import beam
#import ordering
#import survivors
#import scan

struct Params {
    level: u32,
    words: u32, // words of one item's codes
    codes: u32, // codes of the level
    offset: u32, // token of code 0
    rows: u32, // rows of candidates of a user
    width: u32, // beams that survive at most
    next_rows: u32, // rows of a user that the next step computes
    users: u32,
    stride: u32, // values between rows of logits (sampling only)
}

const LANES: u32 = 256u;

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(2) var<storage, read> beams: array<u32>; // beam state
@group(0) @binding(3) var<storage, read> keys: array<u32>; // [users, rows, codes]
@group(0) @binding(4) var<storage, read_write> next: array<u32>; // beam state
@group(0) @binding(5) var<storage, read_write> tokens: array<u32>; // [users, next_rows]

// Of bytes, then of survivors above the threshold, by stretch of candidates.
var<workgroup> histogram: array<atomic<u32>, 256>;
var<workgroup> equals: array<atomic<u32>, LANES>; // candidates equal to the threshold, by stretch
// What one invocation finds and all read behind a barrier. Atomics: Metal's compiler is known to drop
// such a load from plain memory.
var<workgroup> threshold: atomic<u32>; // the bytes of the smallest surviving key found so far
var<workgroup> wanted: atomic<u32>; // survivors still to be found among keys with those bytes
var<workgroup> everything: atomic<u32>; // 1: there are no more live candidates than `width`
var<workgroup> live_of_all: atomic<u32>; // beams that survive

@compute @workgroup_size(LANES)
fn main(
    @builtin(workgroup_id) group: vec3u,
    @builtin(local_invocation_index) lane: u32,
) {
    let user = group.x;
    let total = p.rows * p.codes;
    let keys_at = user * total;
    let next_at = user * p.next_rows;
    let place = place_of(lane);
    if lane == 0u {
        atomicStore(&threshold, 0u);
        atomicStore(&wanted, p.width);
        atomicStore(&everything, 0u);
    }
    for (var pass_index = 0u; pass_index < 4u; pass_index++) {
        let shift = 24u - 8u * pass_index;
        atomicStore(&histogram[lane], 0u);
        workgroupBarrier();
        // Shifting by 32 is undefined: the first pass has no bytes to compare.
        let prefix = atomicLoad(&threshold);
        // The top byte is nearly the same in all keys: equal ones in a row are added at once, so
        // that additions to one place do not wait for each other.
        var run_of = 0u;
        var run = 0u;
        for (var i = lane; i < total; i += LANES) {
            let key = keys[keys_at + i];
            let matches = pass_index == 0u || (key >> (shift + 8u)) == (prefix >> (shift + 8u));
            if key != 0u && matches {
                let own = (key >> shift) & 255u;
                if own != run_of {
                    atomicAdd(&histogram[run_of], run);
                    run_of = own;
                    run = 0u;
                }
                run++;
            }
        }
        atomicAdd(&histogram[run_of], run);
        workgroupBarrier();
        // The bytes from the top down, one a place.
        let count = atomicLoad(&histogram[255u - place]);
        let left = atomicLoad(&wanted);
        let done = atomicLoad(&everything);
        let before = sum_before(place, vec2u(count, 0u)).x;
        if done == 0u {
            if before < left && before + count >= left {
                atomicStore(&threshold, prefix | ((255u - place) << shift));
                atomicStore(&wanted, left - before);
            }
            if place == LANES - 1u && before + count < left {
                atomicStore(&everything, 1u);
            }
        }
        workgroupBarrier();
    }
    // With everything live surviving, every key above 0 does.
    var least = atomicLoad(&threshold);
    var ties = atomicLoad(&wanted);
    if atomicLoad(&everything) == 1u {
        least = 0u;
        ties = 0u;
    }

    // Each invocation writes the survivors of one stretch of candidates. They are counted in
    // neighbouring loads, and only stretches that have some are walked again.
    atomicStore(&histogram[lane], 0u);
    atomicStore(&equals[lane], 0u);
    workgroupBarrier();
    let chunk = (total + LANES - 1u) / LANES;
    for (var i = lane; i < total; i += LANES) {
        let key = keys[keys_at + i];
        if key > least {
            atomicAdd(&histogram[i / chunk], 1u);
        } else if key == least && ties > 0u {
            atomicAdd(&equals[i / chunk], 1u);
        }
    }
    workgroupBarrier();
    let mine_above = atomicLoad(&histogram[place]);
    let mine_equal = atomicLoad(&equals[place]);
    let before = sum_before(place, vec2u(mine_above, mine_equal));
    var before_above = before.x;
    var before_equal = before.y;
    if place == LANES - 1u {
        let found = before_above + mine_above + min(before_equal + mine_equal, ties);
        atomicStore(&live_of_all, found);
        next[user] = found;
        if user == 0u {
            next[p.users] = beams[p.users] + 1u;
        }
    }
    workgroupBarrier();
    let live = atomicLoad(&live_of_all);
    // Rows that no beam fills are computed all the same: they must not read stale state.
    for (var row = live + lane; row < p.next_rows; row += LANES) {
        for (var i = 0u; i < RECORD; i++) {
            next[beam_at(next_at + row) + i] = 0u;
        }
        tokens[next_at + row] = p.offset;
    }
    if mine_above + mine_equal == 0u {
        return;
    }
    let begin = place * chunk;
    for (var i = begin; i < min(begin + chunk, total); i++) {
        let key = keys[keys_at + i];
        let tie = key == least && before_equal < ties;
        if key > least || tie {
            write_beam(next_at + before_above + min(before_equal, ties), user * p.rows, i, key);
        }
        before_above += u32(key > least);
        before_equal += u32(key == least);
    }
}

fn write_beam(row: u32, first_parent: u32, candidate: u32, key: u32) {
    let parent_row = first_parent + candidate / p.codes;
    let code = candidate % p.codes;
    let parent = beam_at(parent_row);
    let beam = beam_at(row);
    let end = beams[parent + 2u];
    let low = lower_bound(beams[parent + 1u], end, p.level, p.words, code);
    let high = lower_bound(low, end, p.level, p.words, code + 1u);
    write_scores(beam, parent, parent_row, code, key);
    next[beam + 1u] = low;
    next[beam + 2u] = high;
    next[beam + 3u] = code;
    for (var s = 0u; s < p.level; s++) {
        next[beam + PATH + s] = beams[parent + PATH + s];
    }
    next[beam + PATH + p.level] = parent_row;
    tokens[row] = p.offset + code;
}
