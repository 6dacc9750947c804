import { defineConfig } from "vite";

// The page must work under `default-src 'self'`: no inlined assets, no inlined scripts, no addresses but its own.
export default defineConfig({
  base: "./",
  publicDir: "src/public",
  build: {
    target: "es2022",
    outDir: "../src/quickcomm/dashboard/static",
    emptyOutDir: true,
    assetsInlineLimit: 0,
    modulePreload: false,
  },
});
