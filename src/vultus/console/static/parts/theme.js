// Light, dark, or as the system has it.

const STORED_AS = "vultus.theme";
export const THEMES = ["system", "light", "dark"];

export function getTheme() {
  return localStorage.getItem(STORED_AS) ?? "system";
}

/** @param {string} theme */
export function setTheme(theme) {
  localStorage.setItem(STORED_AS, theme);
  document.documentElement.dataset.theme = theme;
}

document.documentElement.dataset.theme = getTheme();
