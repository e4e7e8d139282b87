/** How this browser likes its desktops shown. */
import type { Display } from "./stream";

const KEY = "streamspace-viewer";
// On a phone a desktop as small as the screen is of no use: the picture is scaled there.
const SMALL = "(max-width: 639px), (max-height: 439px)";

function standard(): Display {
  return { fit: globalThis.matchMedia(SMALL).matches ? "scale" : "resize", quality: "balanced" };
}

export function loadDisplay(): Display {
  const usual = standard();
  try {
    const stored = JSON.parse(localStorage.getItem(KEY) ?? "{}") as Partial<Display>;
    return {
      fit: stored.fit === "scale" || stored.fit === "resize" ? stored.fit : usual.fit,
      quality: stored.quality === "sharp" || stored.quality === "fast" ? stored.quality : usual.quality,
    };
  } catch {
    return usual;
  }
}

export function saveDisplay(display: Display): void {
  try {
    localStorage.setItem(KEY, JSON.stringify(display));
  } catch {
    // Storage may be blocked; the choice lasts for this visit then.
  }
}
