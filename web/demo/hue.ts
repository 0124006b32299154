/** The colours of codes, authors and brands. */

/** A number's colour, a hue of 0 to 359 degrees. Steps of the golden angle keep neighbours apart. */
export function hueOf(number: number): number {
  return Math.round((number * 137.508) % 360) % 360;
}
