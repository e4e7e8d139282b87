// Sets the theme before the first paint, so that a dark page never flashes white.
// It is its own file because the page's policy allows no inline script.
(function () {
  var wanted = "auto";
  try {
    wanted = localStorage.getItem("streamspace-color-scheme") || "auto";
  } catch {
    // Storage may be blocked; the system's preference decides then.
  }
  var dark = wanted === "dark" || (wanted !== "light" && matchMedia("(prefers-color-scheme: dark)").matches);
  document.documentElement.setAttribute("data-mantine-color-scheme", dark ? "dark" : "light");
})();
