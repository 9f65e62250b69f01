// A badge opens the details of its claim. Without this script, or without popovers, it stays what
// it is in the page: a link to the claim's row in the ledger.
(() => {
  if (!("popover" in HTMLElement.prototype)) return;
  const OPEN_AFTER = 250; // The mouse may cross a text full of badges: nothing flickers.
  const CLOSE_AFTER = 300; // Time to reach the details, which stand apart from the badge.
  const EDGE = 8;
  let open; // The span around the badge and the details that are shown.
  let kept; // Opened on purpose: stays when the mouse leaves.
  let timer;

  const badgeOf = (claim) => claim.querySelector(".kempe-badge");
  const detailsOf = (claim) => claim.querySelector(".kempe-details");
  const later = (action, delay) => {
    clearTimeout(timer);
    timer = setTimeout(action, delay);
  };

  const place = () => {
    if (!open) return;
    const details = detailsOf(open);
    const badge = badgeOf(open).getBoundingClientRect();
    const { clientWidth, clientHeight } = document.documentElement;
    const below = clientHeight - badge.bottom - 2 * EDGE;
    const above = badge.top - 2 * EDGE;
    details.style.maxHeight = `${Math.max(below, above)}px`;
    const { offsetWidth, offsetHeight } = details;
    const left = Math.min(badge.left, clientWidth - offsetWidth - EDGE);
    const upwards = offsetHeight > below && above > below;
    details.style.left = `${Math.max(EDGE, left)}px`;
    details.style.top = `${upwards ? badge.top - offsetHeight - EDGE / 2 : badge.bottom + EDGE / 2}px`;
  };

  const close = () => {
    clearTimeout(timer);
    if (!open) return;
    const claim = open;
    open = undefined;
    // Whoever was inside goes on from the badge.
    if (detailsOf(claim).contains(document.activeElement)) badgeOf(claim).focus();
    detailsOf(claim).hidePopover();
    badgeOf(claim).setAttribute("aria-expanded", "false");
  };

  const show = (claim, purpose) => {
    if (open !== claim) close();
    clearTimeout(timer);
    kept = purpose;
    open = claim;
    badgeOf(claim).setAttribute("aria-expanded", "true");
    if (!detailsOf(claim).matches(":popover-open")) detailsOf(claim).showPopover();
    place();
  };

  const prepare = (claim, number) => {
    const [badge, details] = [badgeOf(claim), detailsOf(claim)];
    details.popover = "manual";
    details.hidden = false;
    details.id = `kempe-details-${number}`;
    details.firstElementChild.id = `kempe-sentence-${number}`;
    badge.setAttribute("role", "button");
    badge.setAttribute("aria-expanded", "false");
    badge.setAttribute("aria-controls", details.id);
    badge.setAttribute("aria-describedby", details.firstElementChild.id);
    badge.addEventListener("click", (event) => {
      // Whoever asks for a new tab gets the ledger.
      if (event.ctrlKey || event.metaKey || event.shiftKey) return;
      event.preventDefault();
      if (open === claim && kept) close();
      else show(claim, true);
    });
    badge.addEventListener("keydown", (event) => {
      if (event.key !== " ") return;
      event.preventDefault();
      if (!event.repeat) badge.click();
    });
    claim.addEventListener("pointerenter", (event) => {
      if (event.pointerType !== "mouse") return;
      if (open === claim) clearTimeout(timer);
      else if (!(open && kept)) later(() => show(claim, false), OPEN_AFTER);
    });
    claim.addEventListener("pointerleave", (event) => {
      if (event.pointerType !== "mouse") return;
      if (open && !kept) later(close, CLOSE_AFTER);
      else clearTimeout(timer);
    });
    claim.addEventListener("focusout", (event) => {
      if (open === claim && event.relatedTarget && !claim.contains(event.relatedTarget)) close();
    });
  };

  const start = () => {
    document.querySelectorAll(".kempe-claim").forEach(prepare);
    document.addEventListener("keydown", (event) => {
      if (event.key === "Escape") close();
    });
    document.addEventListener("pointerdown", (event) => {
      if (open && !open.contains(event.target)) close();
    });
    addEventListener("scroll", place, { capture: true, passive: true });
    addEventListener("resize", place);
  };
  if (document.readyState === "loading") document.addEventListener("DOMContentLoaded", start);
  else start();
})();
