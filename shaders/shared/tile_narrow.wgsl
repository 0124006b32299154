// A tile for GPUs: few outputs an invocation, so that there are many invocations.
const LANES: u32 = 16u; // neighbouring invocations that share rows
const TILES: u32 = 4u; // tiles of rows in a workgroup
const OUTPUTS: u32 = 4u; // outputs of an invocation
