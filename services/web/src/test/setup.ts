import { cleanup, configure } from "@testing-library/react";
import { afterEach, vi } from "vitest";

// Generous: a busy machine must not fail a test that only has to wait.
configure({ asyncUtilTimeout: 15_000 });

afterEach(cleanup);

// What jsdom lacks and the component base asks for.
vi.stubGlobal("ResizeObserver", class {
  observe() {}
  unobserve() {}
  disconnect() {}
});
Object.defineProperty(window, "matchMedia", {
  value: (query: string) => ({
    matches: false,
    media: query,
    addEventListener: () => undefined,
    removeEventListener: () => undefined,
  }),
});
Element.prototype.scrollIntoView = () => undefined;
Object.defineProperty(document, "fonts", { value: { addEventListener: () => undefined, removeEventListener: () => undefined } });
