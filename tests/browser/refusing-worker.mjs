/** The package's worker on a GPU that refuses a submit when the page says so. */

import "./refuse-submit.mjs";
import "/package/dist/worker.js";
