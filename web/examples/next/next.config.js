/** A page of files, for any host; the package needs no settings. */
export default { output: "export" };
