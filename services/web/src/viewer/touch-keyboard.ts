/** Keys for the desktop from a phone's own keyboard, which sends text rather than key events. */
import type RFB from "@novnc/novnc";

const BACKSPACE = 0xff08;
const ENTER = 0xff0d;
/** Always some text in the field, so that there is something a backspace can take away. */
export const FILLER = "_".repeat(50);

/** The X key symbol of a character. */
export function keysym(character: string): number {
  const point = character.codePointAt(0) ?? 0;
  if (point === 10 || point === 13) return ENTER;
  return point < 0x100 ? point : 0x01000000 | point;
}

/** The key symbols that turned `FILLER` into `value`. */
export function typedKeys(value: string): number[] {
  let same = 0;
  while (same < FILLER.length && value[same] === FILLER[same]) same += 1;
  const erased = FILLER.length - same;
  return [...Array.from({ length: erased }, () => BACKSPACE), ...Array.from(value.slice(same), keysym)];
}

export function sendTyped(rfb: RFB, value: string): void {
  for (const key of typedKeys(value)) rfb.sendKey(key, null);
}
