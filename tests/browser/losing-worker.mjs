/** The package's worker on a GPU that is taken away when the page says so. */

import "./take-devices.mjs";
import "/package/dist/worker.js";
