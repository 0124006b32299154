// Beam state. A header of RECORD words a user, with one word a user at its start: how many beams of
// that user are alive; behind these the number of the call plus that of the step. Then one record a
// beam: as many rows a user as the step computes, in ascending order of semantic ID. The kernels' Params
// say how many `users` there are.
//   record: [0] score (f32 bits), [1] first rank, [2] end rank, [3] last code,
//           [4] log-probability under the sampled distribution (f32 bits, sampling only),
//           [5] the same, perturbed (sampling only),
//           [8 + s] row of its ancestor in step s, counted over all users

const RECORD: u32 = 16u;
const SAMPLED: u32 = 4u;
const PERTURBED: u32 = 5u;
const PATH: u32 = 8u;

fn beam_at(row: u32) -> u32 {
    return (p.users + row) * RECORD;
}
