/** Lets the wasm module of a worker grow to as many pages of 64 KiB as its address says behind `?`. */

const most = Number(location.search.slice(1));

const instantiate = WebAssembly.instantiate;
WebAssembly.instantiateStreaming = async (response, imports) => {
  const bytes = new Uint8Array(await (await response).arrayBuffer());
  return instantiate(limited(bytes), imports);
};

/** A number as wasm writes it (LEB128). @param {number} value */
function written(value) {
  const bytes = [];
  for (; value >= 128; value >>>= 7) bytes.push((value & 127) | 128);
  return [...bytes, value];
}

/** The module with a limit in its memory section. @param {Uint8Array} wasm */
function limited(wasm) {
  let at = 8;
  const read = () => {
    let value = 0;
    for (let shift = 0; ; shift += 7) {
      const byte = wasm[at++] ?? 0;
      value |= (byte & 127) << shift;
      if (byte < 128) return value;
    }
  };
  for (;;) {
    const start = at;
    const section = wasm[at++];
    const length = read();
    if (section !== 5) {
      at += length;
      continue;
    }
    const end = at + length;
    at += 2;
    const body = [1, 1, ...written(read()), ...written(most)];
    const memory = [5, ...written(body.length), ...body];
    const bytes = new Uint8Array(start + memory.length + wasm.length - end);
    bytes.set(wasm.subarray(0, start));
    bytes.set(memory, start);
    bytes.set(wasm.subarray(end), start + memory.length);
    return bytes;
  }
}
