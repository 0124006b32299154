/** The worker in a browser. */

import { serveInBrowser } from "./worker-browser.js";

// Written out as bundlers look for it.
serveInBrowser(async () => new URL("../pkg/tigret_infer_bg.wasm", import.meta.url));
