// The catalogue as a trie: items sorted by code, two 16-bit codes a word. A node is a range of
// ranks; a child is found by binary search.

@group(0) @binding(1) var<storage, read> codes: array<u32>; // [items, words]

fn code_at(rank: u32, level: u32, words: u32) -> u32 {
    return (codes[rank * words + level / 2u] >> (16u * (level % 2u))) & 0xffffu;
}

// First rank in low..high whose code at `level` is at least `code`.
fn lower_bound(low: u32, high: u32, level: u32, words: u32, code: u32) -> u32 {
    var begin = low;
    var to = high;
    while begin < to {
        let middle = begin + (to - begin) / 2u;
        if code_at(middle, level, words) < code {
            begin = middle + 1u;
        } else {
            to = middle;
        }
    }
    return begin;
}
