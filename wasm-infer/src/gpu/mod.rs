//! The WebGPU engine: a whole recommendation in one pass, one submit and one read-back.
//!
//! `plan` turns the model into a list of dispatches, `executor` runs it on a `device`.
//! `docs/engine.md` explains the plan kernel by kernel.

mod device;
mod executor;
#[cfg(test)]
mod kernel_tests;
#[cfg(all(feature = "testing", not(target_arch = "wasm32")))]
mod measure;
mod pack;
mod params;
mod plan;
#[cfg(feature = "testing")]
mod testing;

use std::sync::Arc;

use device::Info;
use executor::Executor;
use plan::{Batch, Capacity, Dispatch, Kernels, PERTURBED, Plan, RECORD, Scratch};

#[cfg(not(target_arch = "wasm32"))]
pub use device::Counts;
#[cfg(all(feature = "testing", not(target_arch = "wasm32")))]
pub use measure::Floor;

use crate::bundle::Bundle;
use crate::catalog::Catalog;
use crate::error::InferError;
use crate::search::{EngineQuery, Hit, best_first};

/// Most users of one submit: beyond, a GPU is busy and memory only grows.
const MAX_USERS: u64 = 32;
/// Most rows of the decoder in one submit of several users: drivers reset a GPU that is busy for some
/// seconds, two of them on some, and a slow one is not busy for one with so many.
const MAX_ROWS: usize = 2048;
/// Most rows of the encoder, likewise: the decoder's of four levels.
const MAX_INPUT_ROWS: usize = 4 * MAX_ROWS;
/// Numbers of calls begin behind all that another call, of more users, may have left in their place: a
/// count of beams, or zero.
const FIRST_CALL: u32 = 1 << 16;

/// What the kernels may make use of: `Some(true)` wherever the device has it, `Some(false)` nowhere,
/// `None` where it pays: subgroups wherever there are any, the others on GPUs but not on software
/// adapters, and packed products not on Metal. Answers differ by rounding (`docs/engine.md`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct GpuOptions {
    /// `f16` arithmetic, for bundles in `f16`.
    pub halves: Option<bool>,
    /// Packed dot products of bytes, for bundles in `q8` and `q4`.
    pub packed_products: Option<bool>,
    /// Reductions by subgroups, and on software adapters wide tiles.
    pub subgroups: Option<bool>,
}

impl GpuOptions {
    /// The kernels for a device.
    fn kernels(self, info: &Info) -> Kernels {
        let Info { software, unpacks, extras, .. } = *info;
        let subgroups = extras.subgroups && self.subgroups.unwrap_or(true);
        let packed = self.packed_products.unwrap_or(!software && !unpacks);
        Kernels {
            wide: software && subgroups,
            split: !software,
            halves: extras.halves && self.halves.unwrap_or(!software),
            packed_products: extras.packed_products && packed,
            subgroups,
        }
    }
}

/// Runs queries with the WGSL kernels.
pub struct GpuEngine {
    bundle: Arc<Bundle>,
    catalog: Arc<Catalog>,
    plan: Plan,
    executor: Executor,
    /// Number of the last call, which its answer has to bear.
    call: u32,
}

impl GpuEngine {
    /// Opens the best adapter and uploads a bundle.
    ///
    /// # Errors
    /// [`InferError::NoGpu`] where there is none, or none that can hold the model;
    /// [`InferError::DeviceLost`] where it fails at once, by too little memory or by what it cannot
    /// compile: it may do better with options that ask for less.
    pub async fn new(bundle: Arc<Bundle>, options: GpuOptions) -> Result<Self, InferError> {
        let mut plan = Plan::new(&bundle);
        let mut executor = Executor::new(&plan.constants, options).await?;
        for constant in &mut plan.constants {
            // On the GPU now: nothing reads the host's copy again.
            constant.words = Vec::new();
        }
        plan.set_kernels(options.kernels(executor.info()));
        // The kernels of a search now, those of sampling with the first sample.
        let batch = Batch { users: 1, input: 4, beams: 1, sampled: false };
        executor.compile(&plan.dispatches(batch)).await?;
        executor.set_scratch(&plan.scratch(plan.capacity))?;
        // That there was too little memory is reported late.
        executor.settle().await?;
        let catalog = Arc::clone(&bundle.catalog);
        Ok(Self { bundle, catalog, plan, executor, call: FIRST_CALL })
    }

    /// Searches another catalogue from now on: that of the bundle with more items. Weights and
    /// pipelines stay.
    ///
    /// # Errors
    /// [`InferError::NoGpu`] where it exceeds the adapter's limits; the old one stays then.
    pub(crate) fn set_catalog(&mut self, catalog: Arc<Catalog>) -> Result<(), InferError> {
        // With more items, more beams can be alive: what a wide call has room for may be too much now.
        let before = self.plan.set_items(catalog.len());
        let outcome = self
            .fit([self.plan.capacity, Capacity::LEAST])
            .and_then(|()| self.executor.replace(self.plan.codes(), &plan::pack_codes(&catalog)));
        if outcome.is_ok() {
            self.catalog = catalog;
        } else {
            // Scratch buffers may be larger than they have to be now, which harms nothing.
            self.plan.set_items(before);
        }
        outcome
    }

    /// The adapter's name.
    #[cfg(not(target_arch = "wasm32"))]
    pub fn adapter_name(&self) -> &str {
        self.executor.adapter()
    }

    /// What the device has been asked for since the engine was made.
    #[cfg(not(target_arch = "wasm32"))]
    pub fn counts(&self) -> Counts {
        self.executor.counts()
    }

    /// Runs a query: hits in the contract's order, at most `query.beams`.
    ///
    /// # Errors
    /// [`InferError::DeviceLost`] when the device fails or answers what no search can find,
    /// [`InferError::NoGpu`] when it asks for more than the adapter's limits.
    pub async fn search(&mut self, query: &EngineQuery) -> Result<Vec<Hit>, InferError> {
        Ok(self.run(&[query]).await?.pop().unwrap_or_default())
    }

    /// Runs queries, many at once: neighbours with the same number of beams, sampled or not, share
    /// a submit as far as the adapter's limits go.
    ///
    /// # Errors
    /// As [`GpuEngine::search`].
    pub async fn search_all(
        &mut self,
        queries: &[EngineQuery],
    ) -> Result<Vec<Vec<Hit>>, InferError> {
        let alike = |a: &EngineQuery, b: &EngineQuery| {
            a.beams == b.beams && a.sampling.is_some() == b.sampling.is_some()
        };
        let mut hits = Vec::with_capacity(queries.len());
        for group in queries.chunk_by(alike) {
            for batch in group.chunks(self.most_users(group)) {
                hits.extend(self.run(&batch.iter().collect::<Vec<_>>()).await?);
            }
        }
        Ok(hits)
    }

    /// Most users of one submit, of queries that are alike.
    fn most_users(&self, queries: &[EngineQuery]) -> usize {
        let beams = queries.first().map_or(1, |query| query.beams);
        let words = queries.iter().map(|query| query.filter.word_count()).max().unwrap_or(0);
        let one = self.plan.scratch(Capacity { users: 1, beams, listed: 1 + words });
        let largest = one.into_iter().map(|(_, bytes)| bytes).max().unwrap_or(1);
        let room = self.executor.limit() / largest;
        // One dimension of a launch counts the rows of all users.
        let input = self.plan.longest_input();
        let most = (plan::MAX_GROUPS as usize / beams.max(input))
            .min(MAX_ROWS / beams.max(1))
            .min(MAX_INPUT_ROWS / input);
        room.min(most as u64).clamp(1, MAX_USERS) as usize
    }

    /// Runs queries that are alike in one submit.
    async fn run(&mut self, queries: &[&EngineQuery]) -> Result<Vec<Vec<Hit>>, InferError> {
        let Some(batch) = batch_of(queries) else { return Ok(Vec::new()) };
        self.call = self.call.wrapping_add(1).max(FIRST_CALL);
        let dispatches = self.upload(queries, batch)?;
        let (plan, levels, users) = (&self.plan, self.bundle.tokens.levels.len(), queries.len());
        let rows = plan.rows(batch.beams)[levels];
        let words = Plan::state_words(users, rows);
        let state = self.executor.run(&dispatches, plan.beams_before(levels), words).await?;
        let mark = self.call.wrapping_add(levels as u32);
        let asked = Asked { users, rows: rows as usize, sampled: batch.sampled, mark };
        hits_of(&state, asked, self.catalog.len()).ok_or_else(|| {
            InferError::DeviceLost("its answer makes no sense; use the CPU engine".into())
        })
    }

    /// Puts queries that are alike on the GPU and returns what is to be launched.
    fn upload(
        &mut self,
        queries: &[&EngineQuery],
        batch: Batch,
    ) -> Result<Vec<Dispatch>, InferError> {
        let users = queries.len();
        let bounds = self.executor.bounds();
        let candidates = self.plan.most_candidates(batch.beams);
        let most = bounds.candidates;
        if candidates > most {
            return Err(InferError::NoGpu(format!(
                "{candidates} candidates of a step are more than this adapter can walk at once \
                 ({most}); use the CPU engine or fewer beams"
            )));
        }
        let iterations = self.plan.most_iterations(batch.input);
        let most = bounds.iterations;
        if iterations > most {
            let tokens = queries.iter().map(|query| query.input.len()).max().unwrap_or(0);
            return Err(InferError::NoGpu(format!(
                "an attention over {tokens} tokens with heads of this width takes {iterations} \
                 iterations, more than this adapter makes ({most}); use the CPU engine"
            )));
        }
        // Where each user's filter begins, then the filters.
        let mut filters = vec![0; users];
        let mut input = Vec::with_capacity(users * batch.input as usize);
        for (user, query) in queries.iter().enumerate() {
            filters[user] = filters.len() as u32;
            filters.extend(query.filter.words());
            input.extend_from_slice(&query.input);
            // Nothing reads beyond the end of a shorter input.
            input.resize((user + 1) * batch.input as usize, self.bundle.tokens.pad);
        }
        let lengths: Vec<u32> = queries.iter().map(|query| query.input.len() as u32).collect();
        let mut samplings = Vec::new();
        for level in 0..self.bundle.tokens.levels.len() {
            for sampling in queries.iter().filter_map(|query| query.sampling.as_ref()) {
                samplings.extend(sampling.key(level));
                samplings.extend([sampling.inverse_temperature(level).to_bits(), 0]);
            }
        }
        self.reserve(Capacity { users, beams: batch.beams, listed: filters.len() })?;
        let (plan, executor) = (&self.plan, &mut self.executor);
        executor.upload(plan.id(Scratch::Input), &input);
        executor.upload(plan.id(Scratch::Lengths), &lengths);
        executor.upload(plan.id(Scratch::Listed), &filters);
        executor.upload(plan.id(Scratch::Samplings), &samplings);
        let start = self.bundle.tokens.decoder_start;
        executor.upload(plan.id(Scratch::Tokens), &vec![start; users]);
        executor.upload(plan.beams_before(0), &plan.root(users, self.call));
        Ok(plan.dispatches(batch))
    }

    /// Makes room: buffers double where the device can hold that, and else get the size that is
    /// needed.
    ///
    /// # Errors
    /// [`InferError::NoGpu`] where not even that can be; everything stays as it was.
    fn reserve(&mut self, needed: Capacity) -> Result<(), InferError> {
        let grow =
            |have: usize, need: usize| if need > have { need.next_power_of_two() } else { have };
        let has = self.plan.capacity;
        let generous = Capacity {
            users: grow(has.users, needed.users),
            beams: grow(has.beams, needed.beams),
            listed: grow(has.listed, needed.listed),
        };
        if generous == has {
            return Ok(());
        }
        self.fit([generous, needed])
    }

    /// Makes the scratch buffers for `wish`, or for `least` where the device cannot hold that.
    ///
    /// # Errors
    /// [`InferError::NoGpu`] where it cannot hold `least` either; everything stays as it was.
    fn fit(&mut self, [wish, least]: [Capacity; 2]) -> Result<(), InferError> {
        let capacity = if self.executor.holds(&self.plan.scratch(wish)) { wish } else { least };
        self.executor.set_scratch(&self.plan.scratch(capacity))?;
        self.plan.capacity = capacity;
        Ok(())
    }
}

/// What the state after the last step is an answer to.
#[derive(Clone, Copy)]
struct Asked {
    users: usize,
    /// Rows of a user.
    rows: usize,
    sampled: bool,
    /// The number of the call plus that of the levels: each step adds 1 to what the one before left.
    mark: u32,
}

/// The hits of each user in the state after the last step; `None` where this call's search over
/// `items` items could not have left it. A device may answer anything: where Metal gives a command
/// buffer up, drivers go on as if it had been done (gfx-rs/wgpu#9545), and the state that is read
/// back is that of the call before.
fn hits_of(state: &[u32], asked: Asked, items: usize) -> Option<Vec<Vec<Hit>>> {
    let Asked { users, rows, sampled, mark } = asked;
    let (alive, records) = state.split_at_checked(users * RECORD)?;
    if alive.get(users) != Some(&mark) {
        return None;
    }
    let mut of_users = Vec::with_capacity(users);
    for (records, &alive) in records.chunks_exact(rows * RECORD).zip(alive) {
        let alive = alive as usize;
        if alive > rows {
            return None;
        }
        let hit = |at: usize| {
            let beam = &records[at * RECORD..][..RECORD];
            let key = if sampled { beam[PERTURBED] } else { beam[0] };
            Hit { rank: beam[1], score: f32::from_bits(beam[0]), key: f32::from_bits(key) }
        };
        // Ranks ascend: none may be below this.
        let mut least = 0;
        for at in 0..alive {
            let Hit { rank, score, key } = hit(at);
            // Whether a score that is not finite is the weights' fault, the CPU engine says.
            if rank < least || rank as usize >= items || !score.is_finite() || !key.is_finite() {
                return None;
            }
            least = rank + 1;
        }
        of_users.push(best_first(alive, hit, &mut Vec::new()));
    }
    Some(of_users)
}

/// What queries that are alike need; `None` for no query.
fn batch_of(queries: &[&EngineQuery]) -> Option<Batch> {
    let first = queries.first()?;
    Some(Batch {
        users: queries.len() as u32,
        input: plan::input_rows(queries.iter().map(|query| query.input.len()).max()?) as u32,
        beams: first.beams,
        sampled: first.sampling.is_some(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use device::Extras;

    const ROWS: usize = 3;
    const ITEMS: usize = 9;
    const MARK: u32 = 7;

    /// The state of two users, the first with two beams and the second with none.
    fn state() -> Vec<u32> {
        let mut state = vec![0; 2 * (1 + ROWS) * RECORD];
        state[0] = 2;
        state[2] = MARK;
        for (beam, (rank, score, key)) in
            [(4, -3.0f32, 0.5f32), (8, -2.0, 0.25)].into_iter().enumerate()
        {
            let record = &mut state[(2 + beam) * RECORD..][..RECORD];
            record[0] = score.to_bits();
            record[1] = rank;
            record[PERTURBED] = key.to_bits();
        }
        state
    }

    fn read(state: &[u32], sampled: bool) -> Option<Vec<Vec<Hit>>> {
        hits_of(state, Asked { users: 2, rows: ROWS, sampled, mark: MARK }, ITEMS)
    }

    #[test]
    fn kernels_are_those_that_pay_on_a_device_unless_a_wish_says_otherwise() {
        let all = Extras { halves: true, packed_products: true, subgroups: true };
        let none = Extras { halves: false, packed_products: false, subgroups: false };
        let kernels = |wish, software, unpacks, extras| {
            let info = Info { software, unpacks, extras, limit: 0 };
            let options = GpuOptions { halves: wish, packed_products: wish, subgroups: wish };
            let Kernels { wide, split, halves, packed_products, subgroups } =
                options.kernels(&info);
            [wide, split, halves, packed_products, subgroups].map(u8::from)
        };
        let (hardware, software) = (false, true);
        // Wide, split, halves, packed products, subgroups.
        assert_eq!(kernels(None, hardware, false, all), [0, 1, 1, 1, 1]);
        assert_eq!(kernels(None, hardware, true, all), [0, 1, 1, 0, 1]);
        assert_eq!(kernels(None, software, false, all), [1, 0, 0, 0, 1]);
        assert_eq!(kernels(Some(true), software, true, all), [1, 0, 1, 1, 1]);
        assert_eq!(kernels(Some(false), hardware, false, all), [0, 1, 0, 0, 0]);
        assert_eq!(kernels(Some(false), software, false, all), [0, 0, 0, 0, 0]);
        assert_eq!(kernels(Some(true), hardware, false, none), [0, 1, 0, 0, 0]);
    }

    #[test]
    fn a_state_is_read_best_first() {
        let hit = |rank, score, key| Hit { rank, score, key };
        let by_score = [hit(8, -2.0, -2.0), hit(4, -3.0, -3.0)];
        assert_eq!(read(&state(), false), Some(vec![by_score.to_vec(), Vec::new()]));
        let by_key = [hit(4, -3.0, 0.5), hit(8, -2.0, 0.25)];
        assert_eq!(read(&state(), true), Some(vec![by_key.to_vec(), Vec::new()]));
    }

    #[test]
    fn a_state_that_no_search_leaves_is_refused() {
        let second = 3 * RECORD;
        let (of_second_user, of_call) = (1, 2);
        let wrong = [
            ("more beams alive than rows", 0, ROWS as u32 + 1),
            ("so many that their words overflow", 0, u32::MAX / 16 + 2),
            ("of the other user", of_second_user, ROWS as u32 + 1),
            ("the call before, or a step before", of_call, MARK - 1),
            ("no call", of_call, 0),
            ("a rank beyond the catalogue", second + 1, ITEMS as u32),
            ("the same item twice", second + 1, 4),
            ("ranks that descend", second + 1, 0),
            ("a score that is no number", second, f32::NAN.to_bits()),
            ("an infinite score", second, f32::INFINITY.to_bits()),
        ];
        for (what, at, word) in wrong {
            let mut state = state();
            state[at] = word;
            assert_eq!(read(&state, false), None, "{what}");
            assert_eq!(read(&state, true), None, "{what}, sampled");
        }
        let mut full = state();
        full[4 * RECORD..][..2].copy_from_slice(&[(-1.0f32).to_bits(), 8]);
        full[3 * RECORD + 1] = 5;
        full[0] = ROWS as u32;
        assert!(read(&full, false).is_some());
        full[0] += 1;
        assert_eq!(read(&full, false), None, "more beams alive than rows, all of them filled");
        let mut keyless = state();
        keyless[second + PERTURBED] = f32::NEG_INFINITY.to_bits();
        assert!(read(&keyless, false).is_some(), "only sampling reads it");
        assert_eq!(read(&keyless, true), None);
        assert_eq!(read(&[], false), None, "nothing at all");
    }
}
