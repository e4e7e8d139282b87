/** A template's picture: a curated icon, an emoji, or its initials; never an image from elsewhere. Pure. */
import type { Template } from "../api/types";
import { initials } from "../lib/format";

/** Words in a template's name that tell which icon fits, where its author gave none. */
const BY_WORD: [RegExp, string][] = [
  [/firefox/, "brand-firefox"], [/chrom(e|ium)|brave/, "brand-chrome"], [/edge/, "brand-edge"],
  [/vs-?code|codium|code-server/, "brand-vscode"], [/jupyter|notebook/, "notebook"], [/blender/, "brand-blender"],
  [/ubuntu/, "brand-ubuntu"], [/debian/, "brand-debian"], [/terminal|shell|xterm/, "terminal"],
  [/desktop|webtop|xfce|kde|mate/, "device-desktop"], [/gimp|krita|paint/, "brush"], [/inkscape/, "vector-bezier"],
  [/libre-?office|writer|onlyoffice/, "file-text"], [/audacity|music/, "music"], [/kdenlive|video|vlc|obs/, "movie"],
  [/mail|thunderbird/, "mail"], [/browser/, "world"], [/database|dbeaver|sql/, "database"], [/python/, "brand-python"],
  [/game|retro/, "device-gamepad"], [/file|filezilla/, "folder"],
];

const COLORS = ["#5b57eb", "#0e8f8a", "#c2447e", "#b3640b", "#2f74d0", "#7c4bc9", "#3a8a3f", "#c14a3b", "#4a6a8a"];

export function tileColor(id: string): string {
  let hash = 0;
  for (const character of id) hash = (hash * 31 + (character.codePointAt(0) ?? 0)) >>> 0;
  return COLORS[hash % COLORS.length] ?? "#5b57eb";
}

export type Picture = { kind: "icon"; name: string; text: string } | { kind: "text"; text: string };

/** An icon by name with the initials to fall back on, or a text to show. */
export function pictureFor(template: Pick<Template, "icon" | "name" | "displayName">): Picture {
  const given = template.icon?.trim() ?? "";
  const text = initials(template.displayName);
  const named = /^tabler:([a-z0-9-]+)$/.exec(given)?.[1];
  if (named) return { kind: "icon", name: named, text };
  const words = `${template.name} ${template.displayName}`.toLowerCase();
  const guessed = BY_WORD.find(([pattern]) => pattern.test(words))?.[1];
  if (guessed) return { kind: "icon", name: guessed, text };
  return { kind: "text", text: /^\p{Extended_Pictographic}/u.test(given) ? given : text };
}
