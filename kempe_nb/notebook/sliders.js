// Sliders over frames that were drawn while the notebook ran: no kernel, no network.
(() => {
  const unpack = async (box) => {
    const packed = atob(box.querySelector(".kempe-packed").textContent);
    const bytes = Uint8Array.from(packed, (letter) => letter.charCodeAt(0));
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
    return JSON.parse(await new Response(stream).text());
  };
  for (const box of document.querySelectorAll(".kempe-explore:not([data-ready])")) {
    box.dataset.ready = "yes";
    const sliders = [...box.querySelectorAll("input[type=range]")];
    const frames = [...box.querySelectorAll(".kempe-frame")];
    const spoken = box.querySelector("[aria-live]");
    let pictures;
    // A picture is put into its frame when it is first shown.
    const draw = async (frame, index) => {
      if (frame.childElementCount) return;
      pictures ??= unpack(box);
      frame.innerHTML = (await pictures)[index];
    };
    const update = () => {
      let index = 0;
      for (const slider of sliders) {
        const labels = JSON.parse(slider.dataset.labels);
        const label = labels[Number(slider.value)];
        slider.setAttribute("aria-valuetext", label);
        slider.nextElementSibling.textContent = label;
        index = index * labels.length + Number(slider.value);
      }
      draw(frames[index].firstElementChild, index);
      frames.forEach((frame, position) => { frame.hidden = position !== index; });
      spoken.textContent = frames[index].firstElementChild.getAttribute("aria-label");
    };
    sliders.forEach((slider) => slider.addEventListener("input", update));
    update();
    // A browser restores the position of a slider after Back or a reload: draw what it shows.
    addEventListener("pageshow", update);
  }
})();
