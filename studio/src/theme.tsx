// Dark and light: that of the system until somebody chooses.
import { useEffect, useState } from "preact/hooks";

type Theme = "auto" | "light" | "dark";
const NEXT: Record<Theme, Theme> = { auto: "dark", dark: "light", light: "auto" };
const SIGNS: Record<Theme, string> = { auto: "◐", dark: "●", light: "○" };
const KEY = "nprdsl-theme";

function stored(): Theme {
  try {
    const value = localStorage.getItem(KEY);
    return value === "light" || value === "dark" ? value : "auto";
  } catch {
    return "auto"; // a page inside a sandbox keeps nothing
  }
}

export function ThemeButton() {
  const [theme, setTheme] = useState<Theme>(stored);
  useEffect(() => {
    document.documentElement.dataset.theme = theme;
    try {
      localStorage.setItem(KEY, theme);
    } catch {
      // as above
    }
    window.dispatchEvent(new Event("nprdsl-theme"));
  }, [theme]);
  return (
    <button class="quiet" title={`colours: ${theme}`} aria-label={`Colours: ${theme}; change`} onClick={() => setTheme(NEXT[theme])}>
      <span aria-hidden="true">{SIGNS[theme]}</span>
    </button>
  );
}

/** Counts up whenever the colours have changed, for what is drawn on a canvas. */
export function useThemeChanges(): number {
  const [count, setCount] = useState(0);
  useEffect(() => {
    const changed = () => setCount((before) => before + 1);
    const media = window.matchMedia("(prefers-color-scheme: dark)");
    window.addEventListener("nprdsl-theme", changed);
    media.addEventListener("change", changed);
    return () => {
      window.removeEventListener("nprdsl-theme", changed);
      media.removeEventListener("change", changed);
    };
  }, []);
  return count;
}
