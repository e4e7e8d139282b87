/** Failed sessions this browser need not show any more. */
import { useSyncExternalStore } from "react";

const KEY = "streamspace-dismissed-sessions";
/** More than a day's failures of anybody. */
const KEPT = 200;

const listeners = new Set<() => void>();
// Stands in where storage is blocked.
let memory = "[]";

function stored(): string {
  try {
    return localStorage.getItem(KEY) ?? "[]";
  } catch {
    return memory;
  }
}

function parse(text: string): string[] {
  try {
    const ids: unknown = JSON.parse(text);
    return Array.isArray(ids) ? ids.filter((id) => typeof id === "string") : [];
  } catch {
    return [];
  }
}

export function dismiss(id: string): void {
  memory = JSON.stringify([...parse(stored()).filter((other) => other !== id), id].slice(-KEPT));
  try {
    localStorage.setItem(KEY, memory);
  } catch {
    // It is dismissed for this visit then.
  }
  for (const listener of listeners) listener();
}

function subscribe(listener: () => void): () => void {
  listeners.add(listener);
  window.addEventListener("storage", listener);
  return () => {
    listeners.delete(listener);
    window.removeEventListener("storage", listener);
  };
}

/** The dismissed sessions' ids, also those dismissed in other tabs. */
export function useDismissed(): ReadonlySet<string> {
  return new Set(parse(useSyncExternalStore(subscribe, stored)));
}
