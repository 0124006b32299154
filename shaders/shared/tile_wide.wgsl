// A tile for adapters that are a processor in disguise: a load costs as much as several products
// there, so each input is used for many outputs.
const LANES: u32 = 4u; // neighbouring invocations that share rows
const TILES: u32 = 4u; // tiles of rows in a workgroup
const OUTPUTS: u32 = 16u; // outputs of an invocation
