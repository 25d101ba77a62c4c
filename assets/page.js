// Photos pasted or dropped anywhere, numbers that choose their finding, pictures that enlarge,
// explanations laid over one another.
(() => {
  const isPhoto = (file) => file.type.startsWith("image/") || /\.(heic|heif|tiff?|bmp)$/i.test(file.name);

  function add(files) {
    const file = [...(files || [])].find(isPhoto);
    const input = document.querySelector("#photo input[type=file]");
    if (!file || !input) return false;
    const one = new DataTransfer();
    one.items.add(file);
    input.files = one.files;
    input.dispatchEvent(new Event("change", { bubbles: true }));
    return true;
  }

  document.addEventListener("paste", (event) => {
    if (add(event.clipboardData?.files)) event.preventDefault();
  });
  // A photo that misses the field must not replace the page.
  document.addEventListener("dragover", (event) => event.preventDefault());
  document.addEventListener("drop", (event) => {
    if (event.defaultPrevented || event.target.closest?.("#photo")) return;
    event.preventDefault();
    add(event.dataTransfer?.files);
  });

  document.addEventListener("click", (event) => {
    const chip = event.target.closest?.(".sk-chip[data-ref]");
    if (chip) choose(chip.dataset.ref);
    const zoom = event.target.closest?.(".sk-zoom");
    if (zoom) enlarge(zoom.querySelector("img"));
    // On a phone the result is below the form: go there, where the progress shows too.
    const narrow = window.matchMedia("(max-width: 760px)").matches;
    if (narrow && event.target.closest?.("#assess")) document.querySelector("#result")?.scrollIntoView();
  });

  // The comparison: each field sets a variable of the style sheet, a layer's side, or whether a part is shown.
  document.addEventListener("input", (event) => {
    const field = event.target;
    const view = field.closest?.(".sk-compare");
    if (!view) return;
    if (field.dataset.var) {
      const { unit, factor } = field.dataset;
      view.style.setProperty(field.dataset.var, unit ? field.value + unit : String(field.value * factor));
    } else if (field.dataset.show) {
      for (const part of view.querySelectorAll(`[data-part="${field.dataset.show}"]`)) {
        part.style.display = field.checked ? "" : "none";
      }
    } else if (field.dataset.side) {
      const [left, right] = ["left", "right"].map((side) => view.querySelector(`[data-side=${side}]`).value);
      for (const layer of view.querySelectorAll("[data-method]")) {
        const name = layer.dataset.method;
        layer.dataset.on = name === left ? (name === right ? "both" : "left") : name === right ? "right" : "none";
      }
      for (const text of view.querySelectorAll("[data-how]")) {
        text.hidden = ![left, right].includes(text.dataset.how);
      }
    }
  });

  function choose(ref) {
    const option = document.querySelector(`#finding input[value="${ref}"]`);
    if (!option) return;
    option.click();
    document.querySelector("#finding").scrollIntoView({ behavior: "smooth", block: "nearest" });
  }

  function enlarge(picture) {
    const dialog = document.createElement("dialog");
    dialog.className = "sk-dialog";
    dialog.setAttribute("aria-label", picture.alt);
    const close = document.createElement("button");
    close.type = "button";
    close.textContent = "Close";
    dialog.append(picture.cloneNode(), close);
    dialog.addEventListener("click", () => dialog.close());
    dialog.addEventListener("close", () => dialog.remove());
    document.body.append(dialog);
    dialog.showModal();
  }
})();
