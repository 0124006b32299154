/** The package's worker with as little memory as its address says. */

import "./limit-memory.mjs";
// @ts-expect-error: the address is the test server's.
import "/package/dist/worker.js";
