/** The package's worker on a GPU that refuses a submit when the page says so. */

import "./refuse-submit.mjs";
// @ts-expect-error: the address is the test server's.
import "/package/dist/worker.js";
