/**
 * A model without meaning, to compute with while a real one is on its way: browsers compile a module
 * quickly at first, and well only what has run for a while.
 */

import type { EngineRequest } from "./protocol.js";

const WIDTH = 128;
const HEADS = 4;
const FEED_FORWARD = 256;
/** Codes of each of the two levels; every pair is an item. */
const CODES = 16;
const ITEMS = CODES * CODES;
const HISTORY = 20;

/**
 * What every byte of the weights is: a number that can stand there in any format, also where a scale
 * has to be positive.
 */
const BYTE = 0x3c;

/** The bundle (`docs/bundle.md`): one layer each in `q8`, as most models are exported. */
export function warmUpBundle(): Uint8Array<ArrayBuffer> {
  const vocabulary = 2 + 2 * CODES;
  const header: Record<string, unknown> = {
    __metadata__: {
      format: "tigret/1",
      quantization: "q8",
      config: JSON.stringify({
        vocab_size: vocabulary,
        d_model: WIDTH,
        d_kv: WIDTH / HEADS,
        d_ff: FEED_FORWARD,
        num_layers: 1,
        num_heads: HEADS,
      }),
      tokens: JSON.stringify({
        pad: 0,
        eos: 1,
        decoder_start: 0,
        append_eos: true,
        max_items: HISTORY,
        levels: [2, 2 + CODES].map((offset) => ({ offset, size: CODES })),
        users: null,
      }),
    },
  };
  let end = 0;
  const add = (name: string, dtype: string, shape: number[], bytes: number) => {
    const start = end;
    end += shape.reduce((product, size) => product * size, bytes);
    header[name] = { dtype, shape, data_offsets: [start, end] };
    return start;
  };
  const offsets = add("catalog.id_offsets", "U32", [ITEMS + 1], 4);
  const vector = (name: string, shape: number[]) => add(`${name}.weight`, "F32", shape, 4);
  const matrix = (name: string, rows: number, columns: number) => {
    add(`${name}.weight.scale`, "F32", [rows], 4);
    add(`${name}.weight`, "I8", [rows, columns], 1);
  };
  matrix("shared", vocabulary, WIDTH);
  for (const stack of ["encoder", "decoder"]) {
    const layer = `${stack}.block.0.layer`;
    const kinds = stack === "encoder" ? ["SelfAttention"] : ["SelfAttention", "EncDecAttention"];
    kinds.forEach((kind, number) => {
      for (const part of "qkvo") matrix(`${layer}.${number}.${kind}.${part}`, WIDTH, WIDTH);
      vector(`${layer}.${number}.layer_norm`, [WIDTH]);
    });
    vector(`${layer}.0.SelfAttention.relative_attention_bias`, [32, HEADS]);
    matrix(`${layer}.${kinds.length}.DenseReluDense.wi`, FEED_FORWARD, WIDTH);
    matrix(`${layer}.${kinds.length}.DenseReluDense.wo`, WIDTH, FEED_FORWARD);
    vector(`${layer}.${kinds.length}.layer_norm`, [WIDTH]);
    vector(`${stack}.final_layer_norm`, [WIDTH]);
  }
  const codes = add("catalog.codes", "U16", [ITEMS, 2], 2);
  const ids = add("catalog.id_bytes", "U8", [2 * ITEMS], 1);

  const text = new TextEncoder().encode(JSON.stringify(header));
  const start = 8 + text.length;
  const bytes = new Uint8Array(start + end).fill(BYTE);
  const view = new DataView(bytes.buffer);
  view.setBigUint64(0, BigInt(text.length), true);
  bytes.set(text, 8);
  for (let item = 0; item <= ITEMS; item++) {
    view.setUint32(start + offsets + 4 * item, 2 * item, true);
  }
  for (let item = 0; item < ITEMS; item++) {
    const [high, low] = [Math.floor(item / CODES), item % CODES];
    view.setUint16(start + codes + 4 * item, high, true);
    view.setUint16(start + codes + 4 * item + 2, low, true);
    bytes.set(new TextEncoder().encode(idOf(item)), start + ids + 2 * item);
  }
  return bytes;
}

/** Two hexadecimal digits, the codes of the item. */
function idOf(item: number): string {
  return item.toString(16).padStart(2, "0");
}

/** A full history and as many beams as a page asks for. */
export const WARM_UP_REQUEST: EngineRequest = {
  history: Array.from({ length: HISTORY }, (_, item) => idOf(item)),
  top: 10,
  beams: 50,
  exclude: [],
  exclude_history: false,
};
