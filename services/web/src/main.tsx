import "@mantine/core/styles.css";
import "@mantine/notifications/styles.css";
import "./styles.css";

import { createRoot } from "react-dom/client";
import { browserHint, browserTabs } from "./api/auth-session";
import { createBackend } from "./api/backend";
import { App } from "./app";

const backend = createBackend({
  fetch: (input, init) => globalThis.fetch(input, init),
  tabs: browserTabs(),
  hint: browserHint,
});
void backend.auth.start();

const root = document.getElementById("root");
if (!root) throw new Error("index.html has no #root");
createRoot(root).render(<App backend={backend} />);
