/** The package's worker on a GPU that its address describes, with its kernels in sight. */

import "./pose.mjs";
import "./show-kernels.mjs";
import "/package/dist/worker.js";
