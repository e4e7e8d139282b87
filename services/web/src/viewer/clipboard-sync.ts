/**
 * The clipboard between this computer and the desktop.
 *
 * What the desktop copies is written to this computer where the browser allows it.
 * What this computer holds is sent when the window gets the focus, but only where
 * reading was allowed before: a page that asks unbidden is a nuisance. The panel does
 * both by hand everywhere.
 */

/** Xvnc takes at most this much of a paste. */
export const MAX_PASTE = 256 * 1024;

const clipboard = (): Clipboard | undefined => navigator.clipboard;

export async function offerToComputer(text: string): Promise<boolean> {
  try {
    await clipboard()?.writeText(text);
    return clipboard() !== undefined;
  } catch {
    return false;
  }
}

export async function readFromComputer(): Promise<string | null> {
  try {
    return (await clipboard()?.readText()) ?? null;
  } catch {
    return null;
  }
}

export const canRead = (): boolean => typeof clipboard()?.readText === "function";

/** True where reading was allowed before, so that no question pops up. */
export async function mayReadUnasked(): Promise<boolean> {
  if (!canRead()) return false;
  try {
    const { state } = await navigator.permissions.query({ name: "clipboard-read" as PermissionName });
    return state === "granted";
  } catch {
    return false;
  }
}
