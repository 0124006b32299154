// Sums of what the invocations of a workgroup of LANES hold that come before each, through its
// memory.

const GROUP: u32 = 16u;

var<workgroup> scanned: array<vec2u, LANES>;
var<workgroup> of_groups: array<vec2u, LANES / GROUP>;

// The place of an invocation in the order of the sums: each has one of its own.
fn place_of(lane: u32) -> u32 {
    return lane;
}

// The sum of what places before this one hold.
fn sum_before(place: u32, own: vec2u) -> vec2u {
    scanned[place] = own;
    workgroupBarrier();
    if place < LANES / GROUP {
        var sum = vec2u(0u);
        for (var i = 0u; i < GROUP; i++) {
            sum += scanned[place * GROUP + i];
        }
        of_groups[place] = sum;
    }
    workgroupBarrier();
    var before = vec2u(0u);
    for (var i = 0u; i < place / GROUP; i++) {
        before += of_groups[i];
    }
    for (var i = place / GROUP * GROUP; i < place; i++) {
        before += scanned[i];
    }
    workgroupBarrier();
    return before;
}
