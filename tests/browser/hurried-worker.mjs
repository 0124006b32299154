/** The package's worker with a clock that runs faster, and a module that a test's server answers. */

import "./hurry.mjs";
import "/altered/dist/worker.js";
