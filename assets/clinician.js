// The clinician's hand: requests to the server (files, letter, settings, first diagnosis, crop), corrections, dialogs, the
// camera, keys. Requests go as JSON into unseen fields; files come back in #reply and are saved from there.
(() => {
  const $ = (selector, root = document) => root.querySelector(selector);
  let number = 0;

  function send(field, asked) {
    const input = $(`#${field} textarea, #${field} input`);
    if (!input) return;
    document.dispatchEvent(new CustomEvent("sk-asked", { detail: () => send(field, asked) })); // see refused.js
    input.value = JSON.stringify({ ...asked, number: ++number });
    input.dispatchEvent(new Event("input", { bubbles: true }));
  }

  // --- dialogs ---

  function open(id) {
    const dialogs = [...document.querySelectorAll(`dialog[id="${id}"]`)];
    const dialog = dialogs.find((d) => !d.closest("[hidden]")) || dialogs[0];
    if (!dialog || dialog.open) return dialog;
    dialog.showModal();
    dialog.querySelector("h2")?.focus();
    return dialog;
  }

  document.addEventListener("click", (event) => {
    const opener = event.target.closest?.("[data-opens]");
    if (opener) {
      open(opener.dataset.opens);
      if (opener.dataset.opens === "crop-dialog") crop.begin(opener.dataset.which);
    }
    if (event.target.closest?.("[data-closes]")) event.target.closest("dialog").close();
    if (event.target.matches?.("dialog.sk-dialog")) event.target.close(); // beside it
  });
  document.addEventListener("close", (event) => {
    if (event.target.id === "camera-dialog") camera.end();
  }, true);

  // --- requests ---

  document.addEventListener("click", (event) => {
    const button = event.target.closest?.("[data-request]");
    if (!button) return;
    const kind = button.dataset.request;
    if (kind === "first") {
      const code = $("[data-first-diagnosis]").value;
      if (code) send("request", { kind, code });
      else $("[data-first-diagnosis]").focus();
    } else if (["pdf", "json", "letter"].includes(kind)) {
      send("request", { kind, case: $("[data-case]")?.value || "", date: $("[data-date]")?.value || "" });
    } else send("request", { kind, which: button.dataset.which });
  });

  let later;
  document.addEventListener("input", (event) => {
    const slider = event.target.closest?.("[data-setting]");
    if (!slider) return;
    slider.parentElement.querySelector("output").textContent = `${slider.value}\u00a0%`;
    clearTimeout(later);
    later = setTimeout(() => send("request", { kind: "settings", [slider.dataset.setting]: Number(slider.value) }), 350);
  });

  // The verdict is drawn anew: what was open stays open, and the slider keeps the focus.
  const opened = new Set();
  let focused = null;
  document.addEventListener("click", (event) => { // what the visitor does, not what the page does to new elements
    const details = event.target.closest?.("summary")?.parentElement;
    const name = details?.dataset.keeps;
    if (name) opened[details.open ? "delete" : "add"](name);
  }, true);
  document.addEventListener("focusin", (event) => {
    if (event.target !== document.body) focused = event.target.dataset?.setting || null;
  });

  const seen = new Set();
  function replies() {
    for (const reply of document.querySelectorAll("#reply .sk-reply")) {
      const key = `${reply.dataset.kind}:${reply.dataset.number}`;
      if (seen.has(key)) continue;
      seen.add(key);
      if (reply.dataset.kind === "letter") {
        $("[data-letter]").value = reply.textContent;
        open("letter-dialog");
      } else save(reply);
    }
  }

  async function save(link) {
    const a = document.createElement("a");
    a.download = link.download;
    a.href = link.href;
    document.body.append(a);
    a.click();
    a.remove();
  }

  document.addEventListener("click", async (event) => {
    const act = event.target.closest?.("[data-act]")?.dataset.act;
    if (act === "print") window.print();
    if (act === "copy-letter") {
      const text = $("[data-letter]");
      try {
        await navigator.clipboard.writeText(text.value);
      } catch { // not a secure context: the old way
        text.select();
        document.execCommand("copy");
      }
      $("[data-copied]").textContent = "Copied.";
      setTimeout(() => { $("[data-copied]").textContent = ""; }, 4000);
    }
    if (act === "camera") camera.begin("first");
    if (act === "camera-other") camera.begin("other");
    if (act === "choose") $("#photo input[type=file]")?.click();
    if (act === "choose-other") $("#other input[type=file]")?.click();
    if (act === "fold") event.target.setAttribute("aria-expanded", String($("#form").classList.toggle("sk-open")));
  });

  // --- corrections ---

  const corrections = { outline: null, struck: new Set(), added: new Map(), answer: null };

  function correct() {
    send("revise", { outline: corrections.outline || [], struck: [...corrections.struck], added: [...corrections.added.keys()] });
  }

  function markCorrections() {
    for (const button of document.querySelectorAll("[data-strike]")) {
      const on = corrections.struck.has(button.dataset.strike);
      if (button.getAttribute("aria-pressed") !== String(on)) button.setAttribute("aria-pressed", String(on));
      button.closest(".sk-finding").classList.toggle("sk-struck", on);
    }
    for (const list of document.querySelectorAll("[data-added]")) {
      if (list.childElementCount === corrections.added.size) continue;
      list.replaceChildren(...[...corrections.added].map(([key, phrase]) => {
        const item = document.createElement("li");
        const name = document.createElement("span");
        name.textContent = `${phrase} (added by you)`;
        const button = document.createElement("button");
        button.type = "button";
        button.className = "sk-button sk-small";
        button.textContent = "Remove";
        button.setAttribute("aria-label", `Remove ${phrase}`);
        button.addEventListener("click", () => { corrections.added.delete(key); markCorrections(); correct(); });
        item.append(name, button);
        return item;
      }));
    }
  }

  document.addEventListener("click", (event) => {
    const button = event.target.closest?.("[data-strike]");
    if (!button) return;
    const ref = button.dataset.strike;
    if (!corrections.struck.delete(ref)) corrections.struck.add(ref);
    markCorrections();
    correct();
  });
  document.addEventListener("change", (event) => {
    if (!event.target.matches?.("[data-add]") || !event.target.value) return;
    const { value } = event.target;
    const criterion = value.split(":")[0];
    for (const key of [...corrections.added.keys()]) if (key.split(":")[0] === criterion) corrections.added.delete(key);
    corrections.added.set(value, event.target.selectedOptions[0].textContent);
    event.target.value = "";
    for (const list of document.querySelectorAll("[data-added]")) list.replaceChildren();
    markCorrections();
    correct();
  });
  document.addEventListener("sk-outline", (event) => {
    corrections.outline = event.detail;
    correct();
  });
  document.addEventListener("sk-discard", () => {
    Object.assign(corrections, { outline: null, struck: new Set(), added: new Map() });
    for (const list of document.querySelectorAll("[data-added]")) list.replaceChildren();
    markCorrections();
    correct();
  });

  // --- crop and turn ---

  const crop = {
    turns: 0, box: [0, 0, 1, 1], drag: null, which: "first",
    begin(which) {
      Object.assign(this, { turns: 0, box: [0, 0, 1, 1], which });
      this.source = $(which === "other" ? "#other-preview figure img" : "#preview figure img");
      this.turn(0);
    },
    async turn(by) {
      this.turns = (this.turns + by + 4) % 4;
      const image = new Image();
      image.src = this.source.src;
      await image.decode();
      const odd = this.turns % 2;
      const canvas = document.createElement("canvas");
      [canvas.width, canvas.height] = odd ? [image.height, image.width] : [image.width, image.height];
      const pen = canvas.getContext("2d");
      pen.translate(canvas.width / 2, canvas.height / 2);
      pen.rotate((this.turns * Math.PI) / 2);
      pen.drawImage(image, -image.width / 2, -image.height / 2);
      const shown = $("[data-crop-image]");
      shown.onload = () => this.draw();
      shown.src = canvas.toDataURL("image/jpeg", 0.9);
    },
    draw() {
      const [image, area, box] = [$("[data-crop-image]"), $("[data-crop]"), $("[data-crop-box]")];
      const [i, a] = [image.getBoundingClientRect(), area.getBoundingClientRect()];
      const [x0, y0, x1, y1] = this.box;
      box.style.left = `${i.left - a.left + x0 * i.width}px`;
      box.style.top = `${i.top - a.top + y0 * i.height}px`;
      box.style.width = `${(x1 - x0) * i.width}px`;
      box.style.height = `${(y1 - y0) * i.height}px`;
    },
    change(dx, dy, edges) {
      let [x0, y0, x1, y1] = this.box;
      const least = 0.08;
      if (edges === "move") {
        dx = Math.min(1 - x1, Math.max(-x0, dx));
        dy = Math.min(1 - y1, Math.max(-y0, dy));
        [x0, y0, x1, y1] = [x0 + dx, y0 + dy, x1 + dx, y1 + dy];
      } else {
        if (edges.includes("w")) x0 = Math.min(x1 - least, Math.max(0, x0 + dx));
        if (edges.includes("e")) x1 = Math.max(x0 + least, Math.min(1, x1 + dx));
        if (edges.includes("n")) y0 = Math.min(y1 - least, Math.max(0, y0 + dy));
        if (edges.includes("s")) y1 = Math.max(y0 + least, Math.min(1, y1 + dy));
      }
      this.box = [x0, y0, x1, y1];
      this.draw();
    },
  };

  document.addEventListener("click", (event) => {
    const act = event.target.closest?.("[data-crop-act]")?.dataset.cropAct;
    if (act === "left") crop.turn(-1);
    if (act === "right") crop.turn(1);
    if (act === "whole") { crop.box = [0, 0, 1, 1]; crop.draw(); }
    if (act === "use") {
      $("#crop-dialog").close();
      send("request", { kind: "crop", which: crop.which, turns: crop.turns, box: crop.box.map((v) => Math.round(v * 1e4) / 1e4) });
    }
  });
  document.addEventListener("pointerdown", (event) => {
    const box = event.target.closest?.("[data-crop-box]");
    if (!box) return;
    event.preventDefault();
    box.focus();
    box.setPointerCapture(event.pointerId);
    crop.drag = { x: event.clientX, y: event.clientY, edges: event.target.dataset.cropCorner || "move" };
  });
  document.addEventListener("pointermove", (event) => {
    if (!crop.drag) return;
    const image = $("[data-crop-image]").getBoundingClientRect();
    crop.change((event.clientX - crop.drag.x) / image.width, (event.clientY - crop.drag.y) / image.height, crop.drag.edges);
    Object.assign(crop.drag, { x: event.clientX, y: event.clientY });
  });
  document.addEventListener("pointerup", () => { crop.drag = null; });
  const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
  document.addEventListener("keydown", (event) => {
    if (!event.target.matches?.("[data-crop-box]") || !ARROWS[event.key]) return;
    event.preventDefault();
    crop.change(...ARROWS[event.key].map((d) => d * 0.02), event.shiftKey ? "se" : "move");
  });

  // --- the camera: focus and light are checked before a photo is taken ---

  const camera = {
    stream: null, timer: 0, place: "first",
    async begin(place) {
      this.place = place;
      const input = $(place === "other" ? "#other input[type=file]" : "#photo input[type=file]");
      if (!navigator.mediaDevices?.getUserMedia) return this.phone(input); // not a secure context, or none here
      $("[data-camera-act=take]").disabled = true; // until this camera's own picture was looked at
      const words = $("[data-camera-words]");
      words.textContent = words.dataset.starting ??= words.textContent;
      const dialog = open("camera-dialog");
      let stream;
      try {
        stream = await navigator.mediaDevices.getUserMedia({ video: { facingMode: "environment", width: { ideal: 2560 }, height: { ideal: 1920 } } });
      } catch {
        dialog.close();
        return this.phone(input);
      }
      if (!dialog.open) return stop(stream); // closed while the browser asked: no camera stays on
      this.end(); // opened, closed and opened again while it asked
      this.stream = stream;
      const video = $("[data-camera]");
      video.srcObject = this.stream;
      await video.play().catch(() => {});
      if (this.stream !== stream) return; // closed while it started
      this.timer = setInterval(() => this.check(), 400);
    },
    phone(input) { // the phone's own camera
      if (!input) return;
      input.setAttribute("capture", "environment");
      input.click();
      input.removeAttribute("capture");
    },
    check() {
      const video = $("[data-camera]");
      if (!video.videoWidth) return;
      const words = quality(video);
      $("[data-camera-words]").textContent = words || "Focus and light are good.";
      $("[data-camera-act=take]").disabled = false;
    },
    take() {
      const video = $("[data-camera]");
      if (!video.videoWidth) return;
      const canvas = document.createElement("canvas");
      [canvas.width, canvas.height] = [video.videoWidth, video.videoHeight];
      canvas.getContext("2d").drawImage(video, 0, 0);
      canvas.toBlob((blob) => {
        $("#camera-dialog").close();
        document.dispatchEvent(new CustomEvent("sk-photo", { detail: { place: this.place, file: new File([blob], "camera.jpg", { type: "image/jpeg" }) } }));
      }, "image/jpeg", 0.95);
    },
    end() {
      clearInterval(this.timer);
      stop(this.stream);
      this.stream = null;
      $("[data-camera]").srcObject = null;
    },
  };

  function stop(stream) {
    for (const track of stream?.getTracks() || []) track.stop();
  }

  // Words for a picture that is out of focus, dark or burnt out; "" for a good one. Measured in its middle, small.
  function quality(video) {
    const side = 160;
    const canvas = document.createElement("canvas");
    canvas.width = canvas.height = side;
    const pen = canvas.getContext("2d", { willReadFrequently: true });
    const cut = Math.min(video.videoWidth, video.videoHeight) * 0.6;
    pen.drawImage(video, (video.videoWidth - cut) / 2, (video.videoHeight - cut) / 2, cut, cut, 0, 0, side, side);
    const { data } = pen.getImageData(0, 0, side, side);
    const grey = Float32Array.from({ length: side * side }, (_, i) => 0.299 * data[4 * i] + 0.587 * data[4 * i + 1] + 0.114 * data[4 * i + 2]);
    const mean = grey.reduce((a, b) => a + b, 0) / grey.length;
    const burnt = grey.filter((v) => v > 250).length / grey.length;
    let edges = 0;
    for (let y = 1; y < side - 1; y++) {
      for (let x = 1; x < side - 1; x++) {
        const i = y * side + x;
        edges += Math.abs(4 * grey[i] - grey[i - 1] - grey[i + 1] - grey[i - side] - grey[i + side]);
      }
    }
    if (mean < 60) return "Too dark: turn on the light of the dermatoscope or the room.";
    if (burnt > 0.2) return "Too bright: move the light, reflections hide the lesion.";
    if (edges / grey.length < 3) return "Out of focus: move a little, or tap the screen.";
    return "";
  }

  document.addEventListener("click", (event) => {
    if (event.target.closest?.("[data-camera-act=take]")) camera.take();
  });

  // --- keys of the whole page; single letters work in the viewer alone ---

  document.addEventListener("keydown", (event) => {
    const typing = event.target.matches?.("input:not([type=range], [type=checkbox], [type=radio]), textarea, select");
    if (event.key === "?" && !typing) open("help-dialog");
    else if (event.altKey && event.code === "KeyA") $("#assess:not([disabled])")?.click();
    else if (event.altKey && event.code === "KeyV") go("#result h2");
    else if (event.altKey && event.code === "KeyI") go("#figures .sk-pane");
    else return;
    event.preventDefault();
  });

  function go(selector) {
    const target = [...document.querySelectorAll(selector)].find((e) => e.checkVisibility());
    if (!target) return;
    if (!target.hasAttribute("tabindex")) target.tabIndex = -1;
    target.focus();
    target.scrollIntoView({ block: "center" });
  }

  // --- what is drawn anew gets back what the visitor had ---

  function settle() {
    replies();
    const answer = $("#result .sk-answer")?.dataset.answer;
    if (answer && answer !== corrections.answer) Object.assign(corrections, { outline: null, struck: new Set(), added: new Map(), answer });
    markCorrections();
    const date = $("[data-date]");
    if (date && !date.dataset.set) {
      date.dataset.set = "";
      date.value = new Date(Date.now() - new Date().getTimezoneOffset() * 60000).toISOString().slice(0, 10);
    }
    for (const details of document.querySelectorAll("details[data-keeps]:not([data-kept])")) {
      details.dataset.kept = "";
      details.open = opened.has(details.dataset.keeps);
      if (focused && document.activeElement === document.body) details.querySelector(`[data-setting="${focused}"]`)?.focus();
    }
  }
  new MutationObserver(settle).observe(document, { childList: true, subtree: true });
})();
