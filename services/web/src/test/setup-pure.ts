import { vi } from "vitest";

// The only thing of a page that the modules without one ask for.
vi.stubGlobal("location", { origin: "http://localhost:3000" });
