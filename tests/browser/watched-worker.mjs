/** The package's worker with its kernels and its buffers in sight. */

import "./show-buffers.mjs";
import "./show-kernels.mjs";
// @ts-expect-error: the address is the test server's.
import "/package/dist/worker.js";
