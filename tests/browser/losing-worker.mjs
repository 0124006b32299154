/** The package's worker on a GPU that is taken away when the page says so. */

import "./take-devices.mjs";
// @ts-expect-error: the address is the test server's.
import "/package/dist/worker.js";
