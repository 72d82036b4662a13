/* Before the first paint: the theme that was chosen here, if one was. */
"use strict";
try {
  const theme = localStorage.getItem("tamp.theme");
  if (theme === "light" || theme === "dark") {
    document.documentElement.dataset.theme = theme;
  }
} catch {
  /* storage is switched off: the system's theme will do */
}
