/** A random UUID; `crypto.randomUUID` exists only on https and localhost. */
export function uuid(): string {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  bytes[6] = ((bytes[6] ?? 0) & 0x0f) | 0x40;
  bytes[8] = ((bytes[8] ?? 0) & 0x3f) | 0x80;
  const hex = Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
  return [hex.slice(0, 8), hex.slice(8, 12), hex.slice(12, 16), hex.slice(16, 20), hex.slice(20)].join("-");
}

/** `milliseconds` made a little shorter or longer (by up to a quarter), so that clients do not return all at once. */
export function jittered(milliseconds: number, random: () => number = Math.random): number {
  return Math.round(milliseconds * (0.75 + random() * 0.5));
}
