/** The package's worker with its memory in sight. */

import "./show-memory.mjs";
import "/package/dist/worker.js";
