/** The package's worker with as little memory as its address says. */

import "./limit-memory.mjs";
import "/package/dist/worker.js";
