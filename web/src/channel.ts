/** What tells other pages of the origin. */

/** A channel of this package; none where it is denied, as storage may be. */
export function channelOf(name: string, heard?: () => void): BroadcastChannel | undefined {
  try {
    const channel = new BroadcastChannel(`tigret:${name}`);
    if (heard) channel.onmessage = heard;
    // Node would wait for it.
    (channel as { unref?: () => void }).unref?.();
    return channel;
  } catch {
    return undefined;
  }
}

/**
 * Tells the others; `own` is the channel on which this page listens, if it does, so that it does not
 * hear itself. One that stays open keeps a page out of the way back.
 */
export function announce(name: string, own?: BroadcastChannel): void {
  const channel = own ?? channelOf(name);
  channel?.postMessage(null);
  if (channel !== own) channel?.close();
}
