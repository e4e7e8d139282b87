/** Numbers, sizes and times in words. */

export function ago(iso: string | null | undefined, now: number = Date.now()): string {
  if (!iso) return "never";
  const seconds = Math.max(0, (now - Date.parse(iso)) / 1000);
  if (seconds < 10) return "just now";
  if (seconds < 60) return `${Math.floor(seconds)} s ago`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min ago`;
  if (seconds < 86400) return `${Math.floor(seconds / 3600)} h ago`;
  if (seconds < 30 * 86400) return `${Math.floor(seconds / 86400)} d ago`;
  return new Date(iso).toLocaleDateString(undefined, { dateStyle: "medium" });
}

export function dateTime(iso: string | null | undefined): string {
  if (!iso) return "–";
  return new Date(iso).toLocaleString(undefined, { dateStyle: "medium", timeStyle: "medium" });
}

export function elapsed(milliseconds: number): string {
  if (milliseconds < 1000) return `${Math.round(milliseconds)} ms`;
  if (milliseconds < 60_000) return `${(milliseconds / 1000).toFixed(1)} s`;
  const seconds = Math.floor(milliseconds / 1000);
  if (seconds < 3600) return parts([seconds / 60, "min"], [seconds % 60, "s"]);
  if (seconds < 86_400) return parts([seconds / 3600, "h"], [(seconds % 3600) / 60, "min"]);
  return parts([seconds / 86_400, "d"], [(seconds % 86_400) / 3600, "h"]);
}

/** The larger unit, and the smaller one where there is any of it. */
function parts([many, large]: [number, string], [rest, small]: [number, string]): string {
  const left = Math.floor(rest);
  return `${Math.floor(many)} ${large}${left > 0 ? ` ${left} ${small}` : ""}`;
}

export function duration(seconds: number | null): string {
  if (seconds === null) return "never";
  if (seconds % 86400 === 0) return plural(seconds / 86400, "day");
  if (seconds % 3600 === 0) return plural(seconds / 3600, "hour");
  return plural(Math.round(seconds / 60), "minute");
}

export function plural(count: number, word: string): string {
  return `${count.toLocaleString()} ${word}${count === 1 ? "" : "s"}`;
}

export function bytes(amount: number): string {
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let value = amount;
  let unit = 0;
  while (value >= 1024 && unit < units.length - 1) {
    value /= 1024;
    unit += 1;
  }
  return `${value >= 10 || unit === 0 ? Math.round(value) : value.toFixed(1)} ${units[unit] ?? ""}`;
}

/** `1000m` -> `1 CPU`, `500m` -> `0.5 CPU`; anything unknown stays as it is. */
export function cpu(quantity: string): string {
  const milli = /^(\d+)m$/.exec(quantity);
  const cores = milli ? Number(milli[1]) / 1000 : Number(quantity);
  return Number.isFinite(cores) ? `${cores} CPU` : quantity;
}

/** `2Gi` -> `2 GiB`. */
export function memory(quantity: string): string {
  return quantity.replace(/^([\d.]+)([KMGT]i)$/, "$1 $2B").replace(/^([\d.]+)([KMGT])$/, "$1 $2B");
}

/** `design-graphics` -> `Design graphics`, for categories and other labels. */
export function label(slug: string): string {
  const words = slug.replace(/[-_]+/g, " ").trim();
  return words === "" ? slug : words.charAt(0).toUpperCase() + words.slice(1);
}

/** At most two letters that stand for a name. */
export function initials(name: string): string {
  const words = name.trim().split(/[\s._-]+/).filter(Boolean);
  const letters = words.length > 1 ? [words[0], words.at(-1)].map((word) => Array.from(word ?? "")[0]) : Array.from(words[0] ?? "?").slice(0, 2);
  return letters.join("").toUpperCase();
}
