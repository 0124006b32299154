/** A bundle of the paper's sizes with random weights: what takes as long as a trained one. */

/** Sizes of the TIGER paper, section 4. */
const CONFIG = {
  d_model: 128,
  d_kv: 64,
  d_ff: 1024,
  num_layers: 4,
  num_heads: 6,
  relative_attention_num_buckets: 32,
};
const LEVELS = [256, 256, 256, 256];
const USERS = 2000;
const ITEMS = 12_000;

/** A small generator with a seed (xorshift), so that every run times the same model. */
function generator() {
  let state = 2463534242;
  return () => {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    return state >>> 0;
  };
}

/** Names and shapes under Hugging Face's names. @param {number} vocabulary @returns {[string, number[]][]} */
function shapes(vocabulary) {
  const { d_model: d, d_ff, num_layers, num_heads } = CONFIG;
  const inner = num_heads * CONFIG.d_kv;
  /** @type {[string, number[]][]} */
  const all = [["shared.weight", [vocabulary, d]]];
  for (const stack of ["encoder", "decoder"]) {
    for (let block = 0; block < num_layers; block++) {
      const kinds = stack === "encoder" ? ["SelfAttention"] : ["SelfAttention", "EncDecAttention"];
      kinds.forEach((kind, layer) => {
        const at = `${stack}.block.${block}.layer.${layer}`;
        for (const part of ["q", "k", "v"]) all.push([`${at}.${kind}.${part}.weight`, [inner, d]]);
        all.push([`${at}.${kind}.o.weight`, [d, inner]], [`${at}.layer_norm.weight`, [d]]);
        if (block === 0 && layer === 0) {
          const shape = [CONFIG.relative_attention_num_buckets, num_heads];
          all.push([`${at}.${kind}.relative_attention_bias.weight`, shape]);
        }
      });
      const at = `${stack}.block.${block}.layer.${kinds.length}`;
      all.push([`${at}.DenseReluDense.wi.weight`, [d_ff, d]]);
      all.push([`${at}.DenseReluDense.wo.weight`, [d, d_ff]], [`${at}.layer_norm.weight`, [d]]);
    }
    all.push([`${stack}.final_layer_norm.weight`, [d]]);
  }
  return all;
}

/** Sorted, distinct semantic IDs. @param {() => number} random */
function codes(random) {
  const packed = new Set();
  while (packed.size < ITEMS) packed.add(random());
  return new Uint16Array(
    [...packed]
      .sort((a, b) => a - b)
      .flatMap((id) => LEVELS.map((_, level) => (id >>> (8 * (3 - level))) & 255)),
  );
}

/** The bytes of the bundle (q8). @returns {Uint8Array} */
export function randomBundle() {
  const random = generator();
  const unit = () => random() / 2 ** 31 - 1;
  const sizes = LEVELS.map((size, level) => ({ offset: 2 + 256 * level, size }));
  const users = { offset: 2 + 256 * LEVELS.length, count: USERS };
  const vocabulary = users.offset + users.count;
  /** @type {[string, string, number[], ArrayBufferView][]} */
  const tensors = [];
  for (const [name, shape] of shapes(vocabulary)) {
    const [rows = 1, columns = 1] = shape;
    if (shape.length === 1) {
      tensors.push([name, "F32", shape, new Float32Array(rows).fill(1)]);
    } else if (name.includes("relative_attention_bias")) {
      tensors.push([name, "F32", shape, Float32Array.from({ length: rows * columns }, unit)]);
    } else {
      const values = Int8Array.from({ length: rows * columns }, () => (random() % 255) - 127);
      const scale = (name === "shared.weight" ? 1 : columns ** -0.5) / 127;
      tensors.push([name, "I8", shape, values]);
      tensors.push([`${name}.scale`, "F32", [rows], new Float32Array(rows).fill(scale)]);
    }
  }
  const ids = Array.from({ length: ITEMS }, (_, rank) => String(rank).padStart(5, "0"));
  tensors.push(["catalog.codes", "U16", [ITEMS, LEVELS.length], codes(random)]);
  tensors.push(["catalog.id_bytes", "U8", [5 * ITEMS], new TextEncoder().encode(ids.join(""))]);
  const offsets = Uint32Array.from({ length: ITEMS + 1 }, (_, rank) => 5 * rank);
  tensors.push(["catalog.id_offsets", "U32", [ITEMS + 1], offsets]);
  return safetensors(tensors, {
    format: "tigret/1",
    quantization: "q8",
    config: JSON.stringify({ ...CONFIG, vocab_size: vocabulary }),
    tokens: JSON.stringify({
      pad: 0,
      eos: 1,
      decoder_start: 0,
      append_eos: true,
      max_items: 20,
      levels: sizes,
      users,
    }),
  });
}

/**
 * @param {[string, string, number[], ArrayBufferView][]} tensors name, type, shape, values
 * @param {Record<string, string>} metadata
 */
function safetensors(tensors, metadata) {
  /** @type {Record<string, unknown>} */
  const header = { __metadata__: metadata };
  let end = 0;
  // The widest types first keep every tensor aligned.
  const width = (/** @type {string} */ type) => Number(type.replace(/\D/g, ""));
  tensors.sort(([, a], [, b]) => width(b) - width(a));
  for (const [name, dtype, shape, values] of tensors) {
    header[name] = { dtype, shape, data_offsets: [end, end + values.byteLength] };
    end += values.byteLength;
  }
  const text = JSON.stringify(header);
  const json = new TextEncoder().encode(text.padEnd(Math.ceil(text.length / 8) * 8));
  const bytes = new Uint8Array(8 + json.length + end);
  new DataView(bytes.buffer).setBigUint64(0, BigInt(json.length), true);
  bytes.set(json, 8);
  let at = 8 + json.length;
  for (const [, , , values] of tensors) {
    bytes.set(new Uint8Array(values.buffer, values.byteOffset, values.byteLength), at);
    at += values.byteLength;
  }
  return bytes;
}
