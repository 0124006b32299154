/** The package's worker with its memory in sight. */

import "./show-memory.mjs";
// @ts-expect-error: the address is the test server's.
import "/package/dist/worker.js";
