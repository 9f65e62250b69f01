// Small things that a page needs: notebooks are saved and not shown, and paper has no folds.
(() => {
  const start = () => {
    // A server may send a notebook as text, which a browser would show.
    for (const link of document.querySelectorAll("a[href$='.ipynb']")) {
      if (new URL(link.href).origin === location.origin) link.download = "";
    }
    let folded = [];
    let theme;
    addEventListener("beforeprint", () => {
      folded = [...document.querySelectorAll("article details:not([open])")];
      folded.forEach((details) => { details.open = true; });
      theme = document.documentElement.dataset.theme;
      document.documentElement.dataset.theme = "light";
    });
    addEventListener("afterprint", () => {
      folded.forEach((details) => { details.open = false; });
      document.documentElement.dataset.theme = theme;
    });
  };
  if (document.readyState === "loading") document.addEventListener("DOMContentLoaded", start);
  else start();
})();
