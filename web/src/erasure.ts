/** Whether all was forgotten since something began: by this page or another one of the origin. */

import { announce, channelOf } from "./channel.js";

/** Name of the channel. */
const CHANNEL = "forget";

/** Counts the calls of `forget`. */
let forgotten = 0;
/** What is under way and has to hear of other pages. */
let listeners = 0;
let channel: BroadcastChannel | undefined;

/** For what begins now and has to know at its end whether all was forgotten since. */
export function erasuresSoFar(): number {
  return forgotten;
}

/** Whether all was forgotten since as many erasures: what began then leaves nothing on the device. */
export function isForgotten(erasures: number): boolean {
  return erasures !== forgotten;
}

/** Hears of other pages until what it returns is called. */
export function listen(): () => void {
  if (listeners++ === 0) channel = channelOf(CHANNEL, () => void forgotten++);
  return () => {
    if (--listeners > 0) return;
    channel?.close();
    channel = undefined;
  };
}

/** What has begun, here or in another page, is not kept any more. */
export function forgetFromNowOn(): void {
  forgotten++;
  announce(CHANNEL, channel);
}
