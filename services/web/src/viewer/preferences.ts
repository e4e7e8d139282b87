/** How this browser likes its desktops shown. */
import type { Display } from "./stream";

const KEY = "streamspace-viewer";
const STANDARD: Display = { fit: "resize", quality: "balanced" };

export function loadDisplay(): Display {
  try {
    const stored = JSON.parse(localStorage.getItem(KEY) ?? "{}") as Partial<Display>;
    return {
      fit: stored.fit === "scale" ? "scale" : STANDARD.fit,
      quality: stored.quality === "sharp" || stored.quality === "fast" ? stored.quality : STANDARD.quality,
    };
  } catch {
    return STANDARD;
  }
}

export function saveDisplay(display: Display): void {
  try {
    localStorage.setItem(KEY, JSON.stringify(display));
  } catch {
    // Storage may be blocked; the choice lasts for this visit then.
  }
}
