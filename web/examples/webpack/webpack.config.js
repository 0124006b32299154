/** Only what webpack always asks for: the package needs no settings. */
export default {
  mode: "production",
  entry: "./main.js",
  output: { filename: "main.js" },
};
