//! The quantiser: from an item's content vector to the codes of its semantic ID.
//!
//! Every tokenizer that `tigret tokenize` knows ends in this form, so that codes are computed by
//! one function wherever they are computed: over a whole catalogue, for a new item on the command
//! line, and in the browser. All sums run in a fixed order, so the codes are the same there.

mod assign;
pub(crate) mod file;

use serde::{Deserialize, Serialize};
use tigret_kernels::{Linear, Write, dot, squared_distance};

pub use assign::{NewItem, TakenCodes, assign};

use crate::error::BundleError;
use crate::tokens::{MAX_LEVEL_SIZE, MAX_LEVELS, fnv1a};

/// Longest content vector, and widest layer.
pub const MAX_WIDTH: usize = 65_536;
/// Most linear layers of the encoder.
pub const MAX_LAYERS: usize = 16;
/// Largest size of a number of a vector: sums of squares have to stay within f32.
pub const LARGEST: f32 = 1e15;
/// Vectors that go through the layers together: what their activations need stays in the cache.
const BLOCK: usize = 96;

/// How the codes of the levels follow from the latent vector.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Structure {
    /// Each level quantises what the levels before left: `c_d = argmin ||r_d - e_k||`,
    /// `r_{d+1} = r_d - e_{c_d}` (paper, section 3.1). A codebook is `[size, latent]`.
    Residual,
    /// The latent vector is cut into equal parts, a level each: no level refines another. A
    /// codebook is `[size, latent / levels]`.
    Product,
    /// A tree of centres: the code of a level is the nearest child of the node that the levels
    /// before chose. A codebook is `[nodes of the level, latent]`, children of a node together.
    Tree,
    /// A code's bits are the sides of random hyperplanes on which the vector lies. A codebook is
    /// `[log2 size, latent]`, the first row the highest bit.
    Hyperplanes,
    /// Codes drawn from the item's id: no content at all. No codebook.
    Hash,
}

/// Sizes of a quantiser, as its metadata holds them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct QuantizerConfig {
    /// The method that made it, for people: `rq-vae`, `opq`, …
    pub method: String,
    /// How codes follow from the latent vector.
    pub structure: Structure,
    /// Length of a content vector; 0 for [`Structure::Hash`].
    pub input: usize,
    /// How many of `input`, the last ones, are learned from interactions: zeros for a new
    /// item, which has none.
    #[serde(default)]
    pub learned: usize,
    /// Whether what an item brings is first brought to length 1, as the vectors that the quantiser was
    /// fitted to were.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub unit_length: bool,
    /// Codes of each level, without the collision level.
    pub sizes: Vec<u32>,
    /// Output widths of the encoder's linear layers, ReLU between them; none for an encoder that
    /// changes nothing.
    #[serde(default)]
    pub widths: Vec<usize>,
    /// Seed of [`Structure::Hash`].
    #[serde(default)]
    pub seed: u64,
}

impl QuantizerConfig {
    /// Length of the vector that a new item brings.
    pub fn embedding(&self) -> usize {
        self.input - self.learned
    }

    /// Length of the latent vector.
    pub fn latent(&self) -> usize {
        self.widths.last().copied().unwrap_or(self.input)
    }

    /// Checks every size against its range.
    ///
    /// # Errors
    /// [`BundleError::Metadata`] naming `quantizer`.
    pub fn validate(&self) -> Result<(), BundleError> {
        let bad = |reason: String| Err(BundleError::metadata("quantizer", reason));
        if !(1..MAX_LEVELS).contains(&self.sizes.len()) {
            return bad(format!("{} levels, outside 1..={}", self.sizes.len(), MAX_LEVELS - 1));
        }
        if let Some(size) = self.sizes.iter().find(|&&s| s == 0 || s as usize > MAX_LEVEL_SIZE) {
            return bad(format!("a level of {size} codes, outside 1..={MAX_LEVEL_SIZE}"));
        }
        if self.structure == Structure::Hash {
            return match self.input == 0 && self.learned == 0 && self.widths.is_empty() {
                true => Ok(()),
                false => bad("codes drawn from ids have no input and no layers".into()),
            };
        }
        if self.widths.len() > MAX_LAYERS {
            return bad(format!("{} layers, more than {MAX_LAYERS}", self.widths.len()));
        }
        if let Some(width) =
            [self.input].iter().chain(&self.widths).find(|w| !(1..=MAX_WIDTH).contains(*w))
        {
            return bad(format!("a width of {width}, outside 1..={MAX_WIDTH}"));
        }
        if self.learned >= self.input {
            return bad(format!("{} of {} inputs are learned", self.learned, self.input));
        }
        match self.structure {
            Structure::Product if !self.latent().is_multiple_of(self.sizes.len()) => bad(format!(
                "a latent width of {} is not a multiple of {} levels",
                self.latent(),
                self.sizes.len()
            )),
            Structure::Hyperplanes if self.sizes.iter().any(|size| !size.is_power_of_two()) => {
                bad("hyperplanes give levels of a power of two codes".into())
            }
            _ => Ok(()),
        }
    }
}

/// The numbers of a quantiser.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct QuantizerTensors {
    /// Subtracted from a content vector, `[input]`.
    pub mean: Vec<f32>,
    /// Multiplied with what is left, `[input]`.
    pub scale: Vec<f32>,
    /// Weight `[width, width before]` and bias `[width]` of each layer.
    pub layers: Vec<(Vec<f32>, Vec<f32>)>,
    /// A codebook a level; see [`Structure`].
    pub codebooks: Vec<Vec<f32>>,
    /// Of [`Structure::Tree`], for each level: where in the level's codebook the children of each
    /// node of the level before start, and where the last ones end (the root before level 0).
    pub first_child: Vec<Vec<u32>>,
}

/// A quantiser, checked.
#[derive(Debug, Clone)]
pub struct Quantizer {
    config: QuantizerConfig,
    tensors: QuantizerTensors,
    layers: Vec<Linear>,
    /// Codebooks packed for the distances, and half the squared length of each codeword.
    packed: Vec<(Linear, Vec<f32>)>,
}

impl PartialEq for Quantizer {
    fn eq(&self, other: &Self) -> bool {
        self.config == other.config && self.tensors == other.tensors
    }
}

impl Quantizer {
    /// Joins sizes and numbers and checks them against each other.
    ///
    /// # Errors
    /// [`BundleError`] naming the tensor.
    pub fn new(config: QuantizerConfig, tensors: QuantizerTensors) -> Result<Self, BundleError> {
        config.validate()?;
        file::check(&config, &tensors)?;
        Ok(Self::pack(config, tensors))
    }

    fn pack(config: QuantizerConfig, tensors: QuantizerTensors) -> Self {
        let mut inputs = config.input;
        let layers = config
            .widths
            .iter()
            .zip(&tensors.layers)
            .map(|(&width, (weight, _))| {
                let linear = Linear::from_rows(width, inputs, weight);
                inputs = width;
                linear
            })
            .collect();
        let packed = match config.structure {
            Structure::Residual | Structure::Product => {
                let width = config.codeword_width();
                let pack = |codebook: &Vec<f32>| {
                    let half_norms =
                        codebook.chunks_exact(width).map(|e| 0.5 * dot(e, e)).collect();
                    (Linear::from_rows(codebook.len() / width, width, codebook), half_norms)
                };
                tensors.codebooks.iter().map(pack).collect()
            }
            Structure::Tree | Structure::Hyperplanes | Structure::Hash => Vec::new(),
        };
        Self { config, tensors, layers, packed }
    }

    /// Sizes.
    pub fn config(&self) -> &QuantizerConfig {
        &self.config
    }

    /// Numbers.
    pub fn tensors(&self) -> &QuantizerTensors {
        &self.tensors
    }

    /// Levels, without the collision level.
    pub fn levels(&self) -> usize {
        self.config.sizes.len()
    }

    /// Codes `[items, levels]` of content vectors `[items, input]`, or of ids where the structure
    /// is [`Structure::Hash`]. A tie between two codewords goes to the smaller code.
    ///
    /// # Panics
    /// Where `vectors` has not `ids.len() * input` numbers and the structure is not
    /// [`Structure::Hash`], which reads none.
    pub fn encode<S: AsRef<str>>(&self, ids: &[S], vectors: &[f32]) -> Vec<u16> {
        let levels = self.levels();
        if self.config.structure == Structure::Hash {
            return ids.iter().flat_map(|id| self.codes_of_id(id.as_ref())).collect();
        }
        assert_eq!(vectors.len(), ids.len() * self.config.input, "a vector an item");
        let mut codes = vec![0; ids.len() * levels];
        let blocks =
            vectors.chunks(BLOCK * self.config.input).zip(codes.chunks_mut(BLOCK * levels));
        let mut scratch = Scratch::default();
        for (vectors, codes) in blocks {
            self.latent_of(vectors, &mut scratch);
            match self.config.structure {
                Structure::Residual => self.residual_codes(&mut scratch, codes),
                Structure::Product => self.product_codes(&mut scratch, codes),
                Structure::Tree => self.tree_codes(&scratch.latent, codes),
                Structure::Hyperplanes => self.hyperplane_codes(&scratch.latent, codes),
                Structure::Hash => {}
            }
        }
        codes
    }

    /// The latent vector that a row of codes stands for, or nothing where codes stand for no
    /// vector (hyperplanes, ids).
    ///
    /// # Panics
    /// For more codes than levels, or one that its level does not have.
    pub fn latent_of_codes(&self, codes: &[u16]) -> Option<Vec<f32>> {
        let width = self.config.codeword_width();
        let row = |level: usize, at: usize| &self.tensors.codebooks[level][at * width..][..width];
        match self.config.structure {
            Structure::Residual => {
                let mut sum = vec![0.0; width];
                for (level, &code) in codes.iter().enumerate() {
                    for (s, e) in sum.iter_mut().zip(row(level, usize::from(code))) {
                        *s += e;
                    }
                }
                Some(sum)
            }
            Structure::Product => Some(
                codes
                    .iter()
                    .enumerate()
                    .flat_map(|(level, &code)| row(level, usize::from(code)).to_vec())
                    .collect(),
            ),
            Structure::Tree => {
                let mut node = 0;
                for (level, &code) in codes.iter().enumerate() {
                    node = self.tensors.first_child[level][node] as usize + usize::from(code);
                }
                Some(row(codes.len().checked_sub(1)?, node).to_vec())
            }
            Structure::Hyperplanes | Structure::Hash => None,
        }
    }

    /// Normalises and encodes a block of vectors into `scratch.latent`.
    fn latent_of(&self, vectors: &[f32], scratch: &mut Scratch) {
        let QuantizerTensors { mean, scale, layers, .. } = &self.tensors;
        scratch.latent.clear();
        scratch.latent.extend_from_slice(vectors);
        for row in scratch.latent.chunks_exact_mut(self.config.input) {
            if self.config.unit_length {
                to_unit_length(&mut row[..self.config.embedding()]);
            }
            for ((x, m), s) in row.iter_mut().zip(mean).zip(scale) {
                *x = (*x - m) * s;
            }
        }
        for (index, (linear, (_, bias))) in self.layers.iter().zip(layers).enumerate() {
            apply(linear, &scratch.latent, &mut scratch.next);
            let last = index + 1 == self.layers.len();
            for row in scratch.next.chunks_exact_mut(bias.len()) {
                for (x, b) in row.iter_mut().zip(bias) {
                    *x = if last { *x + b } else { (*x + b).max(0.0) };
                }
            }
            std::mem::swap(&mut scratch.latent, &mut scratch.next);
        }
    }

    fn residual_codes(&self, scratch: &mut Scratch, codes: &mut [u16]) {
        let width = self.config.latent();
        for (level, (linear, half_norms)) in self.packed.iter().enumerate() {
            apply(linear, &scratch.latent, &mut scratch.next);
            let rows = scratch.latent.chunks_exact_mut(width);
            let products = scratch.next.chunks_exact(half_norms.len());
            let codebook = &self.tensors.codebooks[level];
            for ((residual, products), codes) in
                rows.zip(products).zip(codes.chunks_exact_mut(self.levels()))
            {
                let code = nearest(half_norms, products);
                codes[level] = code as u16;
                for (r, e) in residual.iter_mut().zip(&codebook[code * width..]) {
                    *r -= e;
                }
            }
        }
    }

    fn product_codes(&self, scratch: &mut Scratch, codes: &mut [u16]) {
        let (latent, width) = (self.config.latent(), self.config.codeword_width());
        for (level, (linear, half_norms)) in self.packed.iter().enumerate() {
            scratch.part.clear();
            for row in scratch.latent.chunks_exact(latent) {
                scratch.part.extend_from_slice(&row[level * width..][..width]);
            }
            apply(linear, &scratch.part, &mut scratch.next);
            let products = scratch.next.chunks_exact(half_norms.len());
            for (products, codes) in products.zip(codes.chunks_exact_mut(self.levels())) {
                codes[level] = nearest(half_norms, products) as u16;
            }
        }
    }

    fn tree_codes(&self, latent: &[f32], codes: &mut [u16]) {
        let width = self.config.latent();
        let rows = latent.chunks_exact(width).zip(codes.chunks_exact_mut(self.levels()));
        for (row, codes) in rows {
            let mut node = 0;
            let levels = self.tensors.first_child.iter().zip(&self.tensors.codebooks);
            for (code, (first_child, codebook)) in codes.iter_mut().zip(levels) {
                let (start, end) = (first_child[node] as usize, first_child[node + 1] as usize);
                let children = codebook[start * width..end * width].chunks_exact(width);
                let best = smallest(children.map(|centre| squared_distance(row, centre)));
                *code = best as u16;
                node = start + best;
            }
        }
    }

    fn hyperplane_codes(&self, latent: &[f32], codes: &mut [u16]) {
        let width = self.config.latent();
        let rows = latent.chunks_exact(width).zip(codes.chunks_exact_mut(self.levels()));
        for (row, codes) in rows {
            for (code, normals) in codes.iter_mut().zip(&self.tensors.codebooks) {
                let bits = normals.chunks_exact(width).map(|normal| dot(row, normal) > 0.0);
                *code = bits.fold(0, |code, bit| code << 1 | u16::from(bit));
            }
        }
    }

    fn codes_of_id(&self, id: &str) -> Vec<u16> {
        let hash = fnv1a(id);
        let levels = self.config.sizes.iter().enumerate();
        levels
            .map(|(level, &size)| {
                let drawn = mix(hash ^ mix(self.config.seed ^ mix(level as u64 + 1)));
                (drawn % u64::from(size)) as u16
            })
            .collect()
    }
}

impl QuantizerConfig {
    /// Length of a codeword.
    fn codeword_width(&self) -> usize {
        match self.structure {
            Structure::Product => self.latent() / self.sizes.len(),
            _ => self.latent(),
        }
    }
}

/// Buffers that a call of [`Quantizer::encode`] uses again for each block.
#[derive(Default)]
struct Scratch {
    latent: Vec<f32>,
    next: Vec<f32>,
    part: Vec<f32>,
}

/// Brings a vector to length 1; zeros stay.
pub fn to_unit_length(vector: &mut [f32]) {
    let length = vector.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>().sqrt();
    if length > 0.0 {
        vector.iter_mut().for_each(|x| *x = (f64::from(*x) / length) as f32);
    }
}

/// `argmin ||x - e_k||^2` from `x . e_k` and `||e_k||^2 / 2`.
fn nearest(half_norms: &[f32], products: &[f32]) -> usize {
    smallest(half_norms.iter().zip(products).map(|(half, product)| half - product))
}

/// Position of the smallest value, the first of equal ones.
fn smallest(values: impl Iterator<Item = f32>) -> usize {
    let (mut best, mut least) = (0, f32::INFINITY);
    for (at, value) in values.enumerate() {
        if value < least {
            (best, least) = (at, value);
        }
    }
    best
}

/// `out = x * weight^T`, rows of both.
fn apply(linear: &Linear, x: &[f32], out: &mut Vec<f32>) {
    out.resize(x.len() / linear.inputs() * linear.outputs(), 0.0);
    linear.apply(x, out, Write::Store);
}

/// A step of SplitMix64 (Steele, Lea and Flood 2014), its addition and its finaliser: every bit of
/// the input moves every bit of the output, which FNV's low bits alone do not.
fn mix(value: u64) -> u64 {
    let value = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}
