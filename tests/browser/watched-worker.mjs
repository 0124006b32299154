/** The package's worker with its kernels and its buffers in sight. */

import "./show-buffers.mjs";
import "./show-kernels.mjs";
import "/package/dist/worker.js";
