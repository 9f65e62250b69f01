// Tables and formulas that do not fit scroll inside their own region. Where one does, the keyboard
// reaches it, and a word, an arrow and a fading edge say that there is more.
(() => {
  const REGIONS =
    ".kempe-scroll, .pst-scrollable-table-container:not(.kempe-scroll *), mjx-container[display]";
  const hints = new WeakMap();

  const nameOf = (region) => {
    if (region.matches("mjx-container")) return "Formula, scrolls sideways";
    const caption = region.querySelector("caption")?.textContent.trim();
    return `${caption ? `Table: ${caption}` : "Table"}, scrolls sideways`;
  };

  const atEnd = (region) => {
    const rest = region.scrollWidth - region.clientWidth - region.scrollLeft;
    region.classList.toggle("kempe-at-end", rest < 2);
  };

  const mark = (region) => {
    const given = { tabindex: "0", role: "group", "aria-label": nameOf(region) };
    // A region that the page has named keeps its name.
    region.kempeGiven = Object.keys(given).filter((name) => !region.hasAttribute(name));
    region.kempeGiven.forEach((name) => region.setAttribute(name, given[name]));
    const hint = document.createElement("p");
    hint.className = "kempe-scroll-hint";
    hint.setAttribute("aria-hidden", "true");
    hint.textContent = "scroll →";
    (region.closest("div.math") ?? region).after(hint);
    hints.set(region, hint);
    atEnd(region);
  };

  const unmark = (region) => {
    region.kempeGiven.forEach((name) => region.removeAttribute(name));
    hints.get(region).remove();
  };

  const check = (region) => {
    // Nothing has a width while it is folded.
    const wide = region.clientWidth > 0 && region.scrollWidth > region.clientWidth + 1;
    if (wide === region.classList.contains("kempe-wide")) return;
    region.classList.toggle("kempe-wide", wide);
    (wide ? mark : unmark)(region);
  };

  const sizes = new ResizeObserver((entries) => entries.forEach(({ target }) => check(target)));
  const known = new WeakSet();
  const watch = () => {
    for (const region of document.querySelectorAll(REGIONS)) {
      if (known.has(region)) continue;
      known.add(region);
      sizes.observe(region);
      region.addEventListener("scroll", () => atEnd(region), { passive: true });
    }
  };
  addEventListener("load", () => {
    watch();
    // Formulas are set after the page has loaded.
    window.MathJax?.startup?.promise?.then(watch);
  });
})();
