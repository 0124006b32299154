/** Only where the page lies: the package needs no settings. */
export default { base: "./" };
