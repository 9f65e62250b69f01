// Sliders over frames that were drawn while the notebook ran: no kernel, no network.
(() => {
  for (const box of document.querySelectorAll(".kempe-explore:not([data-ready])")) {
    box.dataset.ready = "yes";
    const sliders = [...box.querySelectorAll("input[type=range]")];
    const frames = [...box.querySelectorAll(".kempe-frame")];
    const spoken = box.querySelector("[aria-live]");
    const update = () => {
      let index = 0;
      for (const slider of sliders) {
        const labels = JSON.parse(slider.dataset.labels);
        const label = labels[Number(slider.value)];
        slider.setAttribute("aria-valuetext", label);
        slider.nextElementSibling.textContent = label;
        index = index * labels.length + Number(slider.value);
      }
      frames.forEach((frame, position) => { frame.hidden = position !== index; });
      spoken.textContent = frames[index].firstElementChild.getAttribute("aria-label");
    };
    sliders.forEach((slider) => slider.addEventListener("input", update));
    update();
    // A browser restores the position of a slider after Back or a reload: draw what it shows.
    addEventListener("pageshow", update);
  }
})();
