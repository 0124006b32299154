// Sums of what the invocations of a workgroup of LANES hold that come before each, by subgroups of
// any size. Neighbours need not be in one subgroup: the places are handed out by it.

var<workgroup> taken: atomic<u32>; // places handed out
var<workgroup> of_groups: array<vec2u, LANES>; // at the first place of each subgroup, its sum

// The place of an invocation in the order of the sums: each has one of its own, and those of a
// subgroup are neighbours.
fn place_of(lane: u32) -> u32 {
    if lane == 0u {
        atomicStore(&taken, 0u);
    }
    workgroupBarrier();
    let index = subgroupExclusiveAdd(1u);
    let width = subgroupAdd(1u);
    // All add, so that no branch leaves the subgroup divergent: the first one its width, the others 0.
    let first = atomicAdd(&taken, select(0u, width, index == 0u));
    return subgroupBroadcastFirst(first) + index;
}

// The sum of what places before this one hold.
fn sum_before(place: u32, own: vec2u) -> vec2u {
    // An earlier loop may have left the subgroup divergent.
    workgroupBarrier();
    let inside = subgroupExclusiveAdd(own);
    let all = subgroupAdd(own);
    let index = subgroupExclusiveAdd(1u);
    of_groups[place] = select(vec2u(0u), all, index == 0u);
    workgroupBarrier();
    let first = place - index;
    let width = subgroupAdd(1u);
    var before = vec2u(0u);
    for (var i = index; i < first; i += width) {
        before += of_groups[i];
    }
    workgroupBarrier();
    return subgroupAdd(before) + inside;
}
