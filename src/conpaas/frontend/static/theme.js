// The switch between light, dark and the system's own colours; the server reads the cookie, so that no page flashes.

const next = { auto: "dark", dark: "light", light: "auto" };
const names = { auto: "as the system", dark: "dark", light: "light" };

export function startTheme(root) {
  const form = document.querySelector("[data-theme-form]");
  form?.addEventListener("submit", (event) => {
    event.preventDefault();
    const theme = next[document.documentElement.dataset.theme] ?? "auto";
    document.documentElement.dataset.theme = theme;
    document.querySelector('meta[name="color-scheme"]').content = theme === "auto" ? "light dark" : theme;
    const secure = location.protocol === "https:" ? "; Secure" : "";
    document.cookie = `conpaas-theme=${theme}; Path=${root || "/"}; Max-Age=31536000; SameSite=Lax${secure}`;
    const button = form.querySelector("button");
    button.value = next[theme];
    button.title = `Colours: ${names[theme]}`;
    button.setAttribute("aria-label", `${button.title}. Change`);
  });
}
