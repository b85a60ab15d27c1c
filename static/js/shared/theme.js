// Light, dark, or as the system has it. The server reads the cookie, so that no page flashes in the wrong colours.

const YEAR = 31536000;

export function currentTheme() {
  return document.documentElement.dataset.theme || "system";
}

export function setTheme(name) {
  const root = document.documentElement;
  const chosen = name === "light" || name === "dark" ? name : "";
  if (chosen) root.dataset.theme = chosen;
  else delete root.dataset.theme;
  document.querySelector('meta[name="color-scheme"]').content = chosen || "light dark";
  const secure = location.protocol === "https:" ? "; Secure" : "";
  document.cookie = `theme=${chosen}; Path=/; SameSite=Lax; Max-Age=${chosen ? YEAR : 0}${secure}`;
  document.dispatchEvent(new CustomEvent("themechange"));
}

/** The colour a token or hue has now, as a canvas takes it: colour("--accent"), colour("--hue", element). */
export function colour(token, near = document.body) {
  const probe = document.createElement("span");
  probe.hidden = true;
  near.append(probe);
  probe.style.color = `var(${token})`;
  const found = getComputedStyle(probe).color;
  probe.remove();
  return found;
}
