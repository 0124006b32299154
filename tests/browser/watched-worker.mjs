/** The package's worker with its kernels in sight. */

import "./show-kernels.mjs";
// @ts-expect-error: the address is the test server's.
import "/package/dist/worker.js";
