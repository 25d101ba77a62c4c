// Photos pasted or dropped anywhere, refusals that stay on the page, answers hidden beside another photo, focus and
// words for screen readers. The viewer is in viewer.js, what a clinician adds in clinician.js.
(() => {
  const isPhoto = (file) => file.type.startsWith("image/") || /\.(heic|heif|tiff?|bmp|avif|jp2|j2k)$/i.test(file.name);
  const ACCEPT = "image/*,.jpg,.jpeg,.png,.webp,.bmp,.tif,.tiff,.heic,.heif,.avif,.jp2,.j2k"; // phones offer the camera for image/*
  let refusals = 0;
  const $ = (selector) => document.querySelector(selector);
  // The two places for photos of one lesion: where a file is chosen, and where its name or what was refused is handed over.
  const PLACES = {
    first: { input: "#photo input[type=file]", uploaded: "#uploaded", refusal: "#refusal", preview: "#preview" },
    other: { input: "#other input[type=file]", uploaded: "#other-uploaded", refusal: "#other-refusal", preview: "#other-preview" },
  };
  const placeOf = (element) => (element?.closest?.("#other-slot") && $("#preview [data-photo]") ? "other" : "first");

  // --- a photo comes in: every way ends in the file field's change event ---

  function add(files, place = "first") {
    const all = [...(files || [])];
    const file = all.find(isPhoto) || all[0];
    const input = $(PLACES[place].input);
    if (!file || !input) return false;
    showTab("Assess");
    if (all.length > 1) return refuse("several", place);
    const one = new DataTransfer();
    one.items.add(file);
    input.files = one.files;
    input.dispatchEvent(new Event("change", { bubbles: true }));
    return true;
  }

  // The server says what was wrong: the words stay on the page, and the photo and answer before it go.
  function refuse(code, place = "first") {
    uploading(null);
    asked(() => refuse(code, place));
    return hand(PLACES[place].refusal, `${code}:${++refusals}`); // a number, so that the same refusal twice is a change
  }

  // Puts a value into a hidden field, whose change the server hears of.
  function hand(id, value) {
    const field = $(`${id} textarea, ${id} input`);
    if (!field) return false;
    field.value = value;
    field.dispatchEvent(new Event("input", { bubbles: true }));
    return true;
  }

  // `again` does it once more, where the server turns it away (refused.js).
  function asked(again) {
    document.dispatchEvent(new CustomEvent("sk-asked", { detail: again }));
  }

  // `place`: where a photo is on its way to; null when none is.
  function uploading(place) {
    document.body.classList.toggle("sk-uploading", place === "first");
    document.body.classList.toggle("sk-uploading-other", place === "other");
  }

  function showTab(name) {
    const tab = [...document.querySelectorAll("[role=tab]")].find((t) => t.textContent.trim() === name);
    if (tab && tab.getAttribute("aria-selected") !== "true") tab.click();
  }

  document.addEventListener("paste", (event) => {
    if (add(event.clipboardData?.files, placeOf(document.activeElement))) event.preventDefault();
  });
  // A photo that misses the field must not replace the page, and the field's own refusals would fade.
  document.addEventListener("dragover", (event) => event.preventDefault());
  document.addEventListener("drop", (event) => {
    event.preventDefault();
    event.stopPropagation();
    const entry = event.dataTransfer?.items?.[0]?.webkitGetAsEntry?.();
    const place = placeOf(event.target);
    if (entry?.isDirectory) refuse("folder", place);
    else add(event.dataTransfer?.files, place);
  }, true);
  document.addEventListener("change", (event) => {
    const place = Object.keys(PLACES).find((name) => event.target.matches?.(PLACES[name].input));
    if (!place) return;
    const file = event.target.files[0];
    if (file && file.size > Number($("[data-max-bytes]")?.dataset.maxBytes || Infinity)) {
      event.stopImmediatePropagation();
      event.target.value = "";
      refuse("size", place);
    } else if (file) {
      send(file, place);
    }
  }, true);

  // The file goes to the server, which gives a name for it; the page's own events hand that name over.
  let sending = null;
  async function send(file, place) {
    sending?.abort();
    sending = new AbortController();
    const { signal } = sending;
    asked(() => send(file, place));
    uploading(place);
    try {
      const root = (window.gradio_config?.root || "").replace(/\/$/, "");
      const reply = await fetch(`${root}/upload`, { method: "POST", body: file, signal, headers: { "Content-Type": "application/octet-stream" } });
      const { upload, refused } = await reply.json();
      if (refused) refuse(refused, place);
      else hand(PLACES[place].uploaded, upload);
    } catch {
      if (!signal.aborted) refuse("upload", place); // aborted: another photo is on its way
    }
  }

  // --- an answer is shown beside its own photos only ---

  const photos = () => Object.values(PLACES).map(({ preview }) => $(`${preview} [data-photo]`)).filter(Boolean);

  const mark = () => photos().map((one) => one.dataset.photo).sort().join("+"); // as `photos_mark` of the server

  function hideForeign() {
    const photo = mark();
    for (const part of document.querySelectorAll(".sk-answer")) {
      const answer = part.closest("#result") ? part.dataset.answer : $("#result .sk-answer")?.dataset.answer;
      part.hidden = part.dataset.photo !== photo || part.dataset.answer !== answer;
    }
  }

  // --- screen readers hear what happened, and focus is where the answer is ---

  const announcer = document.createElement("p");
  announcer.className = "sk-unseen";
  announcer.setAttribute("role", "status");
  let announced = "", waiting = false, begun = false, shown = "";

  function announce() {
    const answer = $("#result .sk-answer:not([hidden])");
    const source = answer || (waiting ? null : photos().pop());
    const message = source?.dataset.announce || "";
    const key = message && (source.dataset.answer || source.dataset.photo) + message;
    // emptied with the answer: who reads on with a screen reader must not find it beside another photo
    if (key !== announced) announcer.textContent = message;
    announced = key;
  }

  function focusResult() {
    const result = $("#result");
    const done = result?.querySelector("h2") && !result.querySelector("[aria-busy]") && $("#assess:not([disabled])");
    if (!waiting || !begun || !done) return; // what stood there before the press is no result
    waiting = false;
    const elsewhere = document.activeElement && ![document.body, result].includes(document.activeElement);
    if (elsewhere && !result.contains(document.activeElement)) return; // the visitor has gone on
    const heading = result.querySelector("h2");
    heading.tabIndex = -1;
    heading.focus({ preventScroll: true });
    goToResult(); // again: before the answer came, the page may have been too short to get there
  }

  // On a phone the result is below the form, and beside a long form it is out of sight: go there, where the progress
  // shows too. A wide page is moved at the beginning alone: its reader may have gone on to other parts.
  function goToResult(beginning = false) {
    const { top } = $("#result").getBoundingClientRect();
    const unseen = top < 0 || top > window.innerHeight - 160;
    if (window.matchMedia("(max-width: 760px)").matches || (beginning && unseen)) $("#result").scrollIntoView();
  }

  // The page may have been too short to get there before the progress was drawn.
  function goToProgress() {
    if (!waiting || begun || !$("#result [aria-busy]")) return;
    begun = true;
    goToResult(true);
  }

  function pressed() {
    const result = $("#result");
    if (!result) return;
    waiting = true;
    begun = false;
    announced = "";
    $("#form")?.classList.remove("sk-open");
    result.tabIndex = -1;
    result.setAttribute("role", "region");
    result.setAttribute("aria-label", "Result");
    result.focus({ preventScroll: true });
    goToResult(true);
  }

  new MutationObserver((changes) => {
    if (!announcer.isConnected) document.body.append(announcer);
    for (const { input } of Object.values(PLACES)) {
      const field = $(input);
      if (field && field.accept !== ACCEPT) field.accept = ACCEPT;
    }
    if (changes.some((c) => c.target.closest?.("#preview, #other-preview"))) {
      uploading(null);
      if (mark() !== shown) waiting = false; // for the answer to the photos before
      shown = mark();
    }
    const toast = $("[data-testid=toast-body].error");
    const place = { "sk-uploading": "first", "sk-uploading-other": "other" };
    const busy = Object.keys(place).find((name) => document.body.classList.contains(name));
    if (toast && busy) {
      toast.querySelector("[data-testid=toast-close]")?.click();
      refuse("upload", place[busy]);
    }
    hideForeign();
    announce();
    goToProgress();
    focusResult();
  }).observe(document, { childList: true, subtree: true, attributes: true, attributeFilter: ["disabled", "data-photo", "data-answer"] });

  document.addEventListener("click", (event) => {
    if (event.target.closest?.("#assess, #update")) pressed();
  });

  // Gradio leaves the button disabled where the queue takes no assessment after its press: the page cancels it.
  document.addEventListener("sk-refused", (event) => {
    uploading(null);
    waiting = false;
    const cancel = $("#stop");
    if (["assess", "update"].includes(event.detail) && cancel?.checkVisibility()) cancel.click();
  });

  // a photo of the page's own camera
  document.addEventListener("sk-photo", (event) => add([event.detail.file], event.detail.place));

  // where a photo may be dropped shows it
  for (const [kind, over] of [["dragenter", true], ["dragover", true], ["dragleave", false], ["drop", false]]) {
    document.addEventListener(kind, (event) => {
      if (!event.dataTransfer?.types?.includes("Files") && over) return;
      const other = over && placeOf(event.target) === "other";
      $(".sk-drop")?.classList.toggle("sk-over", over && !other);
      $("#other-slot")?.classList.toggle("sk-over", other);
    }, true);
  }
})();
