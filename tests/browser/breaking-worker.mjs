/** The package's worker on a GPU that breaks in a way that the page says. */

import "./break-gpu.mjs";
import "/package/dist/worker.js";
