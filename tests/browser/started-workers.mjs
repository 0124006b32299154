/**
 * In the page: what starts the package's worker by a script of the tests, and the workers that it has
 * started, so that a test can speak to them.
 *
 * @param {string} script
 */
export function startedWorkers(script) {
  /** @type {Worker[]} */
  const workers = [];
  const worker = () => {
    const started = new Worker(script, { type: "module" });
    workers.push(started);
    return started;
  };
  return { workers, worker };
}
