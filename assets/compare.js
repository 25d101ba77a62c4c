// The comparison: which explanation lies on which side of the divider, the divider itself, and what is drawn.
(() => {
  const viewerOf = (node) => node.closest?.("[data-compare]");

  function split(viewer, share) {
    const value = Math.min(100, Math.max(0, share));
    viewer.dataset.split = value;
    viewer.querySelector("[data-divider]").setAttribute("aria-valuenow", Math.round(value));
    viewer.dispatchEvent(new CustomEvent("sk-redraw", { bubbles: true }));
  }

  document.addEventListener("pointerdown", (event) => {
    const divider = event.target.closest?.("[data-divider]");
    if (!divider) return;
    event.preventDefault();
    divider.focus();
    divider.setPointerCapture(event.pointerId);
    divider.dataset.held = "";
  });
  document.addEventListener("pointermove", (event) => {
    const divider = event.target.closest?.("[data-divider][data-held]");
    if (!divider) return;
    const box = divider.closest(".sk-pane").getBoundingClientRect();
    split(viewerOf(divider), (100 * (event.clientX - box.left)) / box.width);
  });
  for (const end of ["pointerup", "pointercancel"]) {
    document.addEventListener(end, () => {
      for (const divider of document.querySelectorAll("[data-divider][data-held]")) delete divider.dataset.held;
    });
  }
  const KEYS = { ArrowLeft: -2, ArrowDown: -2, ArrowRight: 2, ArrowUp: 2, PageDown: -10, PageUp: 10, Home: -100, End: 100 };
  document.addEventListener("keydown", (event) => {
    if (!event.target.matches?.("[data-divider]") || !(event.key in KEYS)) return;
    event.preventDefault();
    event.stopImmediatePropagation();
    split(viewerOf(event.target), Number(viewerOf(event.target).dataset.split || 50) + KEYS[event.key]);
  }, true);

  document.addEventListener("input", (event) => {
    const { target } = event;
    const viewer = viewerOf(target);
    if (!viewer) return;
    if (target.dataset.side) {
      const [left, right] = ["left", "right"].map((side) => viewer.querySelector(`[data-side=${side}]`).value);
      for (const layer of viewer.querySelectorAll("[data-method]")) {
        const name = layer.dataset.method;
        layer.dataset.on = name === left ? (name === right ? "both" : "left") : name === right ? "right" : "none";
      }
      for (const text of viewer.parentElement.querySelectorAll("[data-how]")) text.hidden = ![left, right].includes(text.dataset.how);
    } else if (target.dataset.show === "lesion") {
      for (const part of viewer.querySelectorAll('[data-part="lesion"]')) part.dataset.off = target.checked ? "" : "off";
    }
    viewer.dispatchEvent(new CustomEvent("sk-redraw", { bubbles: true }));
  });
})();
