// The photo viewer: what is drawn over the photo, pan and zoom to the cursor, two panes that move together, one finding
// at a time, the lesion's outline drawn anew. A viewer is any `.sk-viewer` (skinclip/ui/templates/viewer.html).
(() => {
  const MOST = 12, STEP = 1.25;
  const views = new WeakMap(); // viewer -> its state
  const $$ = (root, selector) => [...root.querySelectorAll(selector)];

  function stateOf(viewer) {
    if (!views.has(viewer)) {
      views.set(viewer, {
        mode: viewer.dataset.mode, both: false, all: false, k: 1, x: 0, y: 0, opacity: 0.7, pinned: viewer.dataset.strongest,
        lit: null, hold: false, mm: 0, drawing: null, fingers: new Map(), chosen: false,
      });
      for (const bar of $$(viewer, "[role=toolbar]")) oneStop(bar, bar.querySelector("button"));
      draw(viewer);
    }
    return views.get(viewer);
  }

  // A toolbar is one stop of Tab; arrow keys go along its buttons (the toolbar pattern of the ARIA Authoring Practices).
  function oneStop(bar, stop) {
    for (const button of $$(bar, "button")) button.tabIndex = button === stop ? 0 : -1;
  }

  document.addEventListener("focusin", (event) => {
    const bar = event.target.closest?.("button") && event.target.closest(".sk-viewer [role=toolbar]");
    if (bar) oneStop(bar, event.target);
  });

  function alongBar(event) {
    const button = event.target.closest?.(".sk-viewer [role=toolbar] button");
    if (!button || !["ArrowLeft", "ArrowRight", "Home", "End"].includes(event.key)) return false;
    const all = $$(button.closest("[role=toolbar]"), "button").filter((b) => !b.disabled && b.checkVisibility());
    const at = all.indexOf(button) + (event.key === "ArrowRight" ? 1 : -1);
    (event.key === "Home" ? all[0] : event.key === "End" ? all.at(-1) : all.at(at % all.length)).focus();
    return true;
  }

  function shownRefs(viewer, s) {
    if (s.lit) return [s.lit];
    if (s.all) return $$(viewer, '[data-pane="main"] .sk-region').map((g) => g.dataset.ref);
    return s.pinned ? [s.pinned] : [];
  }

  const NAMES = { photo: "Photo", regions: "Regions", heat: "Grad-CAM" };

  // The comparison has layers of its own: each on its side of a divider, whose place on the photo changes with the zoom.
  function drawCompared(viewer, s) {
    const pane = viewer.querySelector(".sk-pane");
    const unit = place(viewer, pane, s);
    const canvas = pane.querySelector(".sk-canvas");
    const at = (Number(viewer.dataset.split || 50) / 100) * pane.clientWidth;
    const cut = (100 * (at - (pane.clientWidth - canvas.offsetWidth) / 2 - s.x)) / (s.k * canvas.offsetWidth);
    canvas.style.setProperty("--split", `${Math.min(100, Math.max(0, cut))}%`);
    pane.querySelector(".sk-divider").style.setProperty("--split", `${at}px`);
    for (const layer of $$(pane, ".sk-method")) {
      const on = layer.dataset.on;
      layer.style.display = on === "none" || s.hold ? "none" : "";
      layer.style.opacity = layer.matches(".sk-regions") ? 0.3 + 0.7 * s.opacity : s.opacity;
      layer.classList.toggle("sk-side-left", on === "left");
      layer.classList.toggle("sk-side-right", on === "right");
    }
    for (const part of $$(pane, '[data-part="lesion"]')) part.style.display = part.dataset.off === "off" || s.hold ? "none" : "";
    for (const box of $$(viewer, "[data-show]")) {
      for (const g of $$(pane, `.sk-region[data-ref="${box.dataset.show}"]`)) g.style.display = box.checked ? "" : "none";
    }
    badges(pane, unit);
    viewer.querySelector("[data-zoom]").textContent = `${Math.round(100 * s.k)}\u00a0%`;
  }

  // Lays the canvas out in its pane; gives the photo's pixels for one of the screen.
  function place(viewer, pane, s) {
    const [width, height] = [pane.clientWidth, fitHeight(viewer, pane)];
    const canvas = pane.querySelector(".sk-canvas");
    const ratio = viewer.dataset.width / viewer.dataset.height;
    const wide = Math.min(width, height * ratio);
    canvas.style.width = `${wide}px`;
    canvas.style.height = `${wide / ratio}px`;
    canvas.style.margin = "0";
    canvas.style.transform = `translate(${s.x + (width - wide) / 2}px, ${s.y}px) scale(${s.k})`;
    canvas.style.setProperty("--k", s.k); // lines keep their width
    pane.style.height = `${wide / ratio}px`;
    return wide ? viewer.dataset.width / wide / s.k : 1;
  }

  function badges(root, unit) {
    for (const badge of $$(root, ".sk-badge")) {
      badge.setAttribute("transform", `translate(${badge.dataset.x} ${badge.dataset.y}) scale(${unit})`);
    }
  }

  function draw(viewer) {
    const s = views.get(viewer);
    if (viewer.dataset.compare !== undefined) return drawCompared(viewer, s);
    const panes = $$(viewer, ".sk-pane");
    const modes = s.both ? ["regions", "heat"] : [s.mode];
    const refs = shownRefs(viewer, s);
    panes.forEach((pane, i) => {
      pane.hidden = i >= modes.length;
      const mode = s.hold ? "photo" : modes[i] || "photo";
      const unit = place(viewer, pane, s);
      const heat = pane.querySelector(".sk-heat");
      heat.hidden = mode !== "heat" || !heat.getAttribute("src");
      heat.style.opacity = s.opacity;
      const regions = pane.querySelector(".sk-regions");
      regions.style.display = mode === "regions" || s.drawing ? "" : "none";
      regions.style.opacity = 0.3 + 0.7 * s.opacity;
      for (const g of $$(regions, ".sk-region")) g.style.display = refs.includes(g.dataset.ref) && !s.drawing ? "" : "none";
      const lesion = regions.querySelector(".sk-lesion");
      if (lesion) lesion.style.opacity = s.drawing ? 0.35 : 1;
      badges(regions, unit);
      const name = pane.querySelector("[data-pane-name]");
      name.textContent = modes.length > 1 || mode !== "photo" ? NAMES[mode] : "";
      name.hidden = !name.textContent;
      scaleBar(pane, s, unit, viewer);
      outline(viewer, regions, s);
    });
    for (const b of $$(viewer, "[data-view]")) b.setAttribute("aria-pressed", String(!s.both && b.dataset.view === s.mode));
    press(viewer, "both", s.both);
    press(viewer, "all", s.all && !s.lit);
    const zoom = viewer.querySelector("[data-zoom]");
    if (zoom) zoom.textContent = `${Math.round(100 * s.k)}\u00a0%`;
    for (const caption of $$(viewer, "[data-caption]")) {
      caption.hidden = !(modes.includes(caption.dataset.caption) || (caption.dataset.caption === "regions" && s.mode === "photo"));
    }
    for (const item of document.querySelectorAll(".sk-finding")) item.classList.toggle("sk-lit", refs.includes(item.dataset.ref) && !s.all);
    for (const chip of document.querySelectorAll("#side .sk-chip")) chip.setAttribute("aria-pressed", String(s.pinned === chip.dataset.ref && !s.all));
  }

  function press(viewer, act, on) {
    const button = viewer.querySelector(`[data-view-act="${act}"]`);
    if (button?.hasAttribute("aria-pressed")) button.setAttribute("aria-pressed", String(on));
  }

  function fitHeight(viewer, pane) {
    const full = document.fullscreenElement === viewer;
    return (full ? 0.8 : 0.64) * window.innerHeight || pane.clientWidth;
  }

  // A round length at the lower right, where the width of the photo in millimetres is known.
  function scaleBar(pane, s, unit, viewer) {
    const bar = pane.querySelector("[data-scale-bar]");
    if (!bar) return;
    bar.hidden = !(s.mm > 0);
    if (bar.hidden) return;
    const mmPerPixel = (s.mm / viewer.dataset.width) * unit;
    const length = [0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50].filter((mm) => mm / mmPerPixel <= 140).pop() || 0.1;
    bar.style.width = `${length / mmPerPixel}px`;
    bar.firstElementChild.textContent = `${length} mm`;
  }

  // --- zoom and move; the place under the cursor stays under it ---

  function zoomAt(viewer, factor, px, py) {
    const s = stateOf(viewer);
    const k = Math.min(MOST, Math.max(1, s.k * factor));
    s.x = px - ((px - s.x) * k) / s.k;
    s.y = py - ((py - s.y) * k) / s.k;
    s.k = k;
    bound(viewer, s);
    draw(viewer);
  }

  function move(viewer, dx, dy) {
    const s = stateOf(viewer);
    s.x += dx;
    s.y += dy;
    bound(viewer, s);
    draw(viewer);
  }

  function bound(viewer, s) {
    const canvas = viewer.querySelector('[data-pane="main"] .sk-canvas');
    const [w, h] = [canvas.offsetWidth, canvas.offsetHeight];
    s.x = Math.min(0, Math.max(w * (1 - s.k), s.x));
    s.y = Math.min(0, Math.max(h * (1 - s.k), s.y));
  }

  // a point of the window in the pane's own measure, from the canvas's left edge at zoom 1
  function inPane(pane, event) {
    const box = pane.getBoundingClientRect();
    const canvas = pane.querySelector(".sk-canvas");
    return [event.clientX - box.left - (pane.clientWidth - canvas.offsetWidth) / 2, event.clientY - box.top];
  }

  function inPhoto(viewer, pane, event) {
    const s = stateOf(viewer);
    const [px, py] = inPane(pane, event);
    const unit = viewer.dataset.width / pane.querySelector(".sk-canvas").offsetWidth;
    return [((px - s.x) / s.k) * unit, ((py - s.y) / s.k) * unit];
  }

  const paneOf = (event) => event.target.closest?.(".sk-pane");

  document.addEventListener("wheel", (event) => {
    const pane = paneOf(event);
    if (!pane) return;
    event.preventDefault();
    zoomAt(pane.closest(".sk-viewer"), Math.exp(-event.deltaY * (event.ctrlKey ? 0.01 : 0.0016)), ...inPane(pane, event));
  }, { passive: false });

  document.addEventListener("pointerdown", (event) => {
    if (event.target.closest?.("[data-view-hold]")) return hold(event.target.closest(".sk-viewer"), true);
    const pane = paneOf(event);
    if (!pane || event.button > 0 || event.target.closest(".sk-divider")) return;
    const viewer = pane.closest(".sk-viewer");
    const s = stateOf(viewer);
    pane.setPointerCapture?.(event.pointerId);
    pane.focus({ preventScroll: true });
    if (s.drawing) {
      s.drawing.free = true;
      return addPoint(viewer, inPhoto(viewer, pane, event));
    }
    s.fingers.set(event.pointerId, [event.clientX, event.clientY]);
    pane.classList.add("sk-grabbed");
  });

  document.addEventListener("pointermove", (event) => {
    const pane = paneOf(event);
    if (!pane) return;
    const viewer = pane.closest(".sk-viewer");
    const s = views.get(viewer);
    if (!s) return;
    if (s.drawing) {
      if (s.drawing.free && event.buttons) addPoint(viewer, inPhoto(viewer, pane, event), 6);
      return;
    }
    const before = s.fingers.get(event.pointerId);
    if (!before) return;
    if (s.fingers.size === 1) move(viewer, event.clientX - before[0], event.clientY - before[1]);
    else if (s.fingers.size === 2) {
      const other = [...s.fingers].find(([id]) => id !== event.pointerId)[1];
      const spread = (a, b) => Math.hypot(a[0] - b[0], a[1] - b[1]) || 1;
      const now = [event.clientX, event.clientY];
      const middle = { clientX: (now[0] + other[0]) / 2, clientY: (now[1] + other[1]) / 2 };
      zoomAt(viewer, spread(now, other) / spread(before, other), ...inPane(pane, middle));
    }
    s.fingers.set(event.pointerId, [event.clientX, event.clientY]);
  });

  for (const end of ["pointerup", "pointercancel"]) {
    document.addEventListener(end, (event) => {
      for (const viewer of document.querySelectorAll(".sk-viewer")) {
        const s = views.get(viewer);
        if (!s) continue;
        if (s.hold && !s.holdKey) hold(viewer, false);
        s.fingers.delete(event.pointerId);
        if (s.drawing) s.drawing.free = false;
        for (const pane of $$(viewer, ".sk-grabbed")) pane.classList.remove("sk-grabbed");
      }
    });
  }

  document.addEventListener("dblclick", (event) => {
    const pane = paneOf(event);
    if (pane && !stateOf(pane.closest(".sk-viewer")).drawing) zoomAt(pane.closest(".sk-viewer"), 2, ...inPane(pane, event));
  });

  function fit(viewer) {
    Object.assign(stateOf(viewer), { k: 1, x: 0, y: 0 });
    draw(viewer);
  }

  function middle(viewer) {
    const canvas = viewer.querySelector('[data-pane="main"] .sk-canvas');
    return [canvas.offsetWidth / 2, canvas.offsetHeight / 2];
  }

  function hold(viewer, on) {
    stateOf(viewer).hold = on;
    draw(viewer);
  }

  function mode(viewer, name) {
    const button = viewer.querySelector(`[data-view="${name}"]`);
    if (!button || button.disabled) return;
    Object.assign(stateOf(viewer), { mode: name, both: false });
    draw(viewer);
  }

  const ACTS = {
    in: (v) => zoomAt(v, STEP, ...middle(v)),
    out: (v) => zoomAt(v, 1 / STEP, ...middle(v)),
    fit,
    both: (v) => { const s = stateOf(v); s.both = !s.both; draw(v); },
    all: (v) => { const s = stateOf(v); s.all = !s.all; s.chosen = true; if (s.mode === "photo") s.mode = "regions"; draw(v); },
    full: (v) => (document.fullscreenElement ? document.exitFullscreen() : v.requestFullscreen?.()),
  };

  document.addEventListener("fullscreenchange", redrawAll);
  window.addEventListener("resize", redrawAll);

  document.addEventListener("sk-redraw", (event) => {
    stateOf(event.target);
    draw(event.target);
  });

  function redrawAll() {
    for (const viewer of document.querySelectorAll(".sk-viewer")) if (views.has(viewer)) draw(viewer);
  }

  document.addEventListener("click", (event) => {
    const view = event.target.closest?.("[data-view]");
    if (view) return mode(view.closest(".sk-viewer"), view.dataset.view);
    const act = event.target.closest?.("[data-view-act]");
    if (act) return ACTS[act.dataset.viewAct](act.closest(".sk-viewer"));
    const tool = event.target.closest?.("[data-outline]");
    if (tool) outlineAct(tool.dataset.outline);
  });

  document.addEventListener("input", (event) => {
    const viewer = event.target.closest?.(".sk-viewer");
    if (!viewer) return;
    if (event.target.matches("[data-view-opacity]")) stateOf(viewer).opacity = event.target.value / 100;
    else if (event.target.matches("[data-view-scale]")) stateOf(viewer).mm = Number(event.target.value);
    else return;
    draw(viewer);
  });

  const ARROWS = { ArrowLeft: [1, 0], ArrowRight: [-1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] };
  document.addEventListener("keydown", (event) => {
    const pane = paneOf(event);
    const holding = event.target.closest?.("[data-view-hold]");
    if (holding && [" ", "Enter"].includes(event.key)) {
      event.preventDefault();
      stateOf(holding.closest(".sk-viewer")).holdKey = true;
      return hold(holding.closest(".sk-viewer"), true);
    }
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (alongBar(event)) return event.preventDefault();
    if (!pane) return;
    const viewer = pane.closest(".sk-viewer");
    const s = stateOf(viewer);
    if (s.drawing && drawingKey(viewer, pane, event)) return event.preventDefault();
    const key = event.key.toLowerCase();
    if (ARROWS[event.key]) move(viewer, ...ARROWS[event.key].map((d) => d * 40));
    else if (key === "+" || key === "=") ACTS.in(viewer);
    else if (key === "-") ACTS.out(viewer);
    else if (key === "0") fit(viewer);
    else if ("123".includes(key)) mode(viewer, ["photo", "regions", "heat"][key - 1]);
    else if (key === "s" && !viewer.querySelector('[data-view-act="both"]')?.disabled) ACTS.both(viewer);
    else if (key === "f") ACTS.full(viewer);
    else if (key === "p") { s.holdKey = true; hold(viewer, true); }
    else return;
    event.preventDefault();
  });

  document.addEventListener("keyup", (event) => {
    for (const viewer of document.querySelectorAll(".sk-viewer")) {
      const s = views.get(viewer);
      if (s?.holdKey && [" ", "Enter", "p", "P"].includes(event.key)) {
        s.holdKey = false;
        hold(viewer, false);
      }
    }
  });

  // --- one finding alone: pointed at, in focus, or chosen by its number ---

  const current = () => document.querySelector("#figures .sk-answer:not([hidden]) .sk-viewer");

  function light(ref) {
    const viewer = current();
    if (!viewer || stateOf(viewer).lit === ref) return;
    const s = stateOf(viewer);
    s.lit = ref;
    if (ref && s.mode === "photo") s.mode = "regions";
    if (ref && s.mode === "heat" && !s.both) s.mode = "regions";
    draw(viewer);
  }

  document.addEventListener("pointerover", (event) => {
    if (event.pointerType === "touch") return;
    const item = event.target.closest?.(".sk-finding, .sk-chip[data-ref]");
    if (item || stateOfLit()) light(item ? item.dataset.ref : null);
  });
  document.addEventListener("focusin", (event) => {
    const item = event.target.closest?.(".sk-finding, .sk-chip[data-ref]");
    if (item || stateOfLit()) light(item ? item.dataset.ref : null);
  });
  const stateOfLit = () => { const viewer = current(); return viewer && views.get(viewer)?.lit; };

  document.addEventListener("click", (event) => {
    const chip = event.target.closest?.(".sk-chip[data-ref]");
    const viewer = current();
    if (!chip || !viewer) return;
    const s = stateOf(viewer);
    Object.assign(s, { pinned: chip.dataset.ref, all: false, chosen: true, both: false, mode: "regions" });
    draw(viewer);
    if (!chip.closest("#side")) viewer.scrollIntoView({ behavior: "smooth", block: "nearest" });
  });

  // --- the lesion's outline drawn anew ---

  function outlineAct(act) {
    const viewer = current();
    if (act === "discard") return document.dispatchEvent(new CustomEvent("sk-discard"));
    if (!viewer) return;
    const s = stateOf(viewer);
    if (act === "start") {
      s.drawing = { points: [], cursor: [viewer.dataset.width / 2, viewer.dataset.height / 2], free: false };
      Object.assign(s, { both: false, mode: "regions" });
      viewer.querySelector('[data-pane="main"]').focus();
    } else if (act === "undo") s.drawing?.points.splice(-Math.max(1, Math.ceil(s.drawing.points.length / 12)));
    else if (act === "use") {
      const points = s.drawing.points;
      s.drawing = null;
      s.drawn = points;
      document.dispatchEvent(new CustomEvent("sk-outline", { detail: points }));
    } else if (act === "cancel") s.drawing = null;
    draw(viewer);
  }

  document.addEventListener("sk-discard", () => {
    const viewer = current();
    if (!viewer) return;
    stateOf(viewer).drawn = null;
    draw(viewer);
  });

  function addPoint(viewer, [x, y], least = 0) {
    const s = stateOf(viewer);
    const unit = viewer.dataset.width / viewer.querySelector(".sk-canvas").offsetWidth / s.k;
    const last = s.drawing.points.at(-1);
    if (last && Math.hypot(x - last[0], y - last[1]) < least * unit) return;
    const inside = [Math.min(Math.max(x, 0), Number(viewer.dataset.width)), Math.min(Math.max(y, 0), Number(viewer.dataset.height))];
    s.drawing.points.push(inside.map((v) => Math.round(v * 10) / 10));
    s.drawing.cursor = inside;
    draw(viewer);
  }

  function drawingKey(viewer, pane, event) {
    const s = stateOf(viewer);
    const step = (event.shiftKey ? 40 : 8) * (viewer.dataset.width / viewer.querySelector(".sk-canvas").offsetWidth / s.k);
    if (ARROWS[event.key]) {
      const [dx, dy] = ARROWS[event.key];
      s.drawing.cursor = [s.drawing.cursor[0] - dx * step, s.drawing.cursor[1] - dy * step];
    } else if (event.key === " " || event.key === "Enter") addPoint(viewer, s.drawing.cursor);
    else if (event.key === "Backspace") s.drawing.points.pop();
    else if (event.key === "Escape") s.drawing = null;
    else return false;
    draw(viewer);
    return true;
  }

  function outline(viewer, regions, s) {
    const line = regions.querySelector(".sk-drawn");
    if (!line) return;
    const points = s.drawing ? s.drawing.points : s.drawn || [];
    line.setAttribute("points", [...points, ...(points.length > 2 ? [points[0]] : [])].map((p) => p.join(",")).join(" "));
    viewer.classList.toggle("sk-drawing", !!s.drawing);
    const bar = viewer.querySelector("[data-outline-bar]");
    if (bar) {
      bar.hidden = !s.drawing;
      bar.querySelector('[data-outline="use"]').disabled = points.length < 3;
    }
    const pane = regions.closest(".sk-pane");
    let cross = pane.querySelector(".sk-cross");
    if (!s.drawing) return cross?.remove();
    if (!cross) {
      cross = document.createElement("span");
      cross.className = "sk-cross";
      pane.append(cross);
    }
    const canvas = pane.querySelector(".sk-canvas");
    const unit = canvas.offsetWidth / viewer.dataset.width;
    cross.style.left = `${s.drawing.cursor[0] * unit * s.k + s.x + (pane.clientWidth - canvas.offsetWidth) / 2}px`;
    cross.style.top = `${s.drawing.cursor[1] * unit * s.k + s.y}px`;
  }

  // --- what arrives later: the viewer itself, then Grad-CAM ---

  function arrive() {
    for (const viewer of document.querySelectorAll(".sk-viewer")) {
      const s = stateOf(viewer);
      for (const copy of $$(viewer, "[data-copy]:not([src])")) copy.src = viewer.querySelector(".sk-canvas img").src;
      const answer = viewer.closest(".sk-answer")?.dataset.answer;
      const heat = document.querySelector(`#heat .sk-answer[data-answer="${answer}"] .sk-heat-source`);
      if (!heat || viewer.dataset.heated === answer) continue;
      viewer.dataset.heated = answer;
      for (const layer of $$(viewer, ".sk-heat")) layer.src = heat.src;
      for (const button of $$(viewer, '[data-view="heat"], [data-view-act="both"]')) button.disabled = false;
      if (!s.chosen && heat.dataset.strongest) s.pinned = heat.dataset.strongest;
      draw(viewer);
    }
  }

  const sizes = new ResizeObserver((entries) => {
    for (const { target } of entries) if (views.has(target.closest(".sk-viewer"))) draw(target.closest(".sk-viewer"));
  });
  new MutationObserver(() => {
    arrive();
    for (const panes of document.querySelectorAll(".sk-panes:not([data-watched])")) {
      panes.dataset.watched = "";
      sizes.observe(panes);
    }
  }).observe(document, { childList: true, subtree: true });
})();
