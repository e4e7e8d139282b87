import react from "@vitejs/plugin-react";
import { defineConfig } from "vitest/config";

const api = process.env.STREAMSPACE_API ?? "http://127.0.0.1:8080";

export default defineConfig({
  plugins: [react()],
  server: { port: 5173, proxy: { "/api": { target: api, changeOrigin: false } } },
  build: {
    target: "es2022",
    // The page's policy allows no data: fonts or scripts, so nothing is inlined.
    assetsInlineLimit: 0,
    modulePreload: { polyfill: false },
    rolldownOptions: {
      output: {
        codeSplitting: {
          groups: [
            { name: "react", test: /node_modules\/(react|react-dom|react-router|scheduler)\// },
            { name: "mantine", test: /node_modules\/(@mantine|@floating-ui)\// },
            { name: "novnc", test: /node_modules\/@novnc\// },
            { name: "vendor", test: /node_modules\/(@tabler|@tanstack|openapi-fetch|eventsource-parser|clsx)\// },
          ],
        },
      },
    },
  },
  test: {
    testTimeout: 60_000,
    projects: [
      {
        extends: true,
        test: { name: "modules", environment: "node", include: ["src/**/*.test.ts"], setupFiles: ["src/test/setup-pure.ts"] },
      },
      {
        extends: true,
        test: { name: "pages", environment: "jsdom", include: ["src/**/*.test.tsx"], setupFiles: ["src/test/setup.ts"], css: false },
      },
    ],
  },
});
