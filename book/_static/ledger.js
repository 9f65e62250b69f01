// The filter of the ledger. Without this script the whole list is shown, and no controls.
(() => {
  const start = () => {
    const form = document.querySelector(".kempe-filter");
    if (!form) return;
    const choices = [...form.querySelectorAll("select")];
    const rows = [...document.querySelectorAll(".kempe-claims tbody tr")];
    const count = document.querySelector(".kempe-count");
    const parts = [...document.querySelectorAll(".kempe-claims, .kempe-ledger")];

    const update = () => {
      const shown = rows.filter((row) => {
        row.hidden = choices.some(({ name, value }) => value && row.dataset[name] !== value);
        return !row.hidden;
      });
      // A heading or a table without rows says nothing.
      for (const part of parts) part.hidden = !part.querySelector("tbody tr:not([hidden])");
      count.textContent = `${shown.length} of ${rows.length} claims are shown.`;
    };

    // A link into the page leads to its row, whatever the filter is, and opens the code it names.
    const follow = () => {
      const target = document.getElementById(decodeURIComponent(location.hash.slice(1)));
      if (!target) return;
      if (target.closest("[hidden]")) {
        form.reset();
        update();
      }
      const folded = target.closest("details");
      if (folded) folded.open = true;
      target.scrollIntoView();
    };

    form.hidden = count.hidden = false;
    form.addEventListener("change", update);
    form.addEventListener("submit", (event) => event.preventDefault());
    addEventListener("hashchange", follow);
    // A browser restores the choices after Back or a reload.
    addEventListener("pageshow", update);
    update();
    follow();
  };
  if (document.readyState === "loading") document.addEventListener("DOMContentLoaded", start);
  else start();
})();
