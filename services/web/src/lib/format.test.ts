import { expect, test } from "vitest";
import { returnPath } from "../auth/sign-in";
import { choices, LaunchIntent } from "../catalog/intent";
import { pictureFor, tileColor } from "../catalog/picture";
import { ago, bytes, cpu, duration, elapsed, initials, label, memory } from "./format";
import { jittered, uuid } from "./random";

test("labels are readable whatever a catalog calls its categories", () => {
  expect(label("design-graphics")).toBe("Design graphics");
  expect(label("media_servers,music")).toBe("Media servers,music");
  expect(label("---")).toBe("---");
  expect(label("")).toBe("");
});

test("initials come from any name", () => {
  expect(initials("Ada Lovelace")).toBe("AL");
  expect(initials("grace.hopper")).toBe("GH");
  expect(initials("x")).toBe("X");
  expect(initials("")).toBe("?");
  expect(initials("日本語")).toBe("日本");
});

test("quantities are written as people say them", () => {
  expect([cpu("500m"), cpu("2"), cpu("odd")]).toEqual(["0.5 CPU", "2 CPU", "odd"]);
  expect([memory("2Gi"), memory("512M"), memory("odd")]).toEqual(["2 GiB", "512 MB", "odd"]);
  expect([bytes(512), bytes(34359738368)]).toEqual(["512 B", "32 GiB"]);
});

test("times are short", () => {
  const now = Date.parse("2026-01-02T00:00:00Z");
  expect(ago("2026-01-01T23:58:00Z", now)).toBe("2 min ago");
  expect(ago("2026-01-02T00:00:09Z", now)).toBe("just now");
  expect(ago(null)).toBe("never");
  expect([elapsed(412), elapsed(1_500), elapsed(61_000)]).toEqual(["412 ms", "1.5 s", "1 min 1 s"]);
  expect([elapsed(600_000), elapsed(119_900), elapsed(3_600_000)]).toEqual(["10 min", "1 min 59 s", "1 h"]);
  expect([elapsed(4_980_000), elapsed(3 * 86_400_000 + 7_200_000)]).toEqual(["1 h 23 min", "3 d 2 h"]);
  expect([duration(900), duration(3_600), duration(172_800)]).toEqual(["15 minutes", "1 hour", "2 days"]);
});

test("a UUID is one also where the page is not secure, and jitter stays near", () => {
  expect(uuid()).toMatch(/^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/);
  expect([jittered(1_000, () => 0), jittered(1_000, () => 1)]).toEqual([750, 1_250]);
});

test("the template's own amounts are among the choices, once", () => {
  expect(choices(["500m", "1000m"], "1", cpu)).toEqual([
    { value: "500m", label: "0.5 CPU" },
    { value: "1", label: "1 CPU (default)" },
  ]);
  expect(choices(["1Gi"], "3Gi", memory)[0]).toEqual({ value: "3Gi", label: "3 GiB (default)" });
});

test("one wish keeps its key however often it is sent; another wish gets another", () => {
  const intent = new LaunchIntent();
  const wish = { template: "a_b", persistentHome: true };
  const key = intent.keyFor(wish);
  expect(intent.keyFor({ ...wish })).toBe(key);
  expect(intent.keyFor({ ...wish, persistentHome: false })).not.toBe(key);
  intent.fulfilled();
  expect(intent.keyFor(wish)).not.toBe(key);
});

test("a template's picture is never fetched from elsewhere", () => {
  const picture = (icon: string | null, name = "thing") => pictureFor({ icon, name, displayName: "Some Thing" });
  expect(picture("tabler:terminal-2")).toMatchObject({ name: "terminal-2" });
  expect(picture("https://example.org/logo.png")).toEqual({ kind: "text", text: "ST" });
  expect(picture("https://example.org/logo.png", "firefox-esr")).toMatchObject({ name: "brand-firefox" });
  expect(picture("tabler:no-such-icon")).toMatchObject({ text: "ST" });
  expect(picture("🎬")).toEqual({ kind: "text", text: "🎬" });
  expect(tileColor("a")).toMatch(/^#[0-9a-f]{6}$/);
});

test("signing in returns to a page of this app only", () => {
  expect(returnPath({ from: "/sessions?show=all" })).toBe("/sessions?show=all");
  for (const from of ["//evil.example", "/\\evil.example", "https://evil.example", "/login", 7]) {
    expect(returnPath({ from })).toBe("/");
  }
  expect(returnPath(null)).toBe("/");
});
