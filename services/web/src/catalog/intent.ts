/**
 * One launch, however often it is clicked.
 *
 * A key belongs to what was asked for: the same wish sent again (a double click, a
 * retry after a lost answer) carries the same key and gives the same session; a
 * changed wish, or a wish after a session was made, gets a new one.
 */
import type { NewSession } from "../api/types";
import { uuid } from "../lib/random";

export class LaunchIntent {
  #wish = "";
  #key = "";

  keyFor(body: NewSession): string {
    const wish = JSON.stringify(body);
    if (wish !== this.#wish) {
      this.#wish = wish;
      this.#key = uuid();
    }
    return this.#key;
  }

  fulfilled(): void {
    this.#wish = "";
  }
}

/** The usual amounts, with the template's own among them. */
export function choices(usual: string[], own: string, name: (quantity: string) => string) {
  const all = usual.some((quantity) => name(quantity) === name(own)) ? usual.map((q) => (name(q) === name(own) ? own : q)) : [own, ...usual];
  return all.map((value) => ({ value, label: value === own ? `${name(value)} (default)` : name(value) }));
}
