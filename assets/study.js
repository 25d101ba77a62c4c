// A reader's session: draws one step at a time, collects its answers, and sends them until they are acknowledged.
// What is kept in this browser tab alone (sessionStorage): the session's token, the language, and the answers not
// confirmed yet. All words come with the page, from the study's catalogue.
window.skStudy = (() => {
  const TOKEN = "study-token", OWNER = "study-owner", DRAFT = "study-draft", LANGUAGE = "study-language";
  const TABS = ["page_tab_reader", "page_tab_coordinator"];
  const PATIENCE = 20_000; // ms until a request without an answer is sent again
  const BANNER = 36; // px at the window's top that are covered
  const WAITS = [1, 2, 4, 8, 15]; // s before each further attempt; the last one repeats
  let root, sending = false, clock = null, words = {}, language = "";

  const $ = (selector, from = root) => from.querySelector(selector);
  const all = (selector, from = root) => [...from.querySelectorAll(selector)];
  const stored = (name) => sessionStorage.getItem(name);
  const pause = (ms) => new Promise((done) => setTimeout(done, ms));

  function attach(element) {
    root = element;
    clock = null;
    words = JSON.parse($("[data-words]").dataset.words);
    speak(firstLanguage());
    root.addEventListener("submit", onSubmit);
    root.addEventListener("click", onClick);
    root.addEventListener("input", onInput);
    if (stored(TOKEN)) resume();
    else showSignIn();
  }

  // --- words ---------------------------------------------------------------------------------------------------

  // The text of a key in the reader's language, its names in braces filled in.
  const text = (key, values = {}) => words[language][key].replace(/\{(\w+)\}/g, (_, name) => values[name] ?? "");

  const offered = (one) => Object.hasOwn(words, one);

  // What the link names, else what was chosen in this tab, else what the browser prefers, of those that the study offers.
  function firstLanguage() {
    const named = new URLSearchParams(location.hash.slice(1)).get("lang");
    const preferred = navigator.languages.map((tag) => tag.slice(0, 2).toLowerCase());
    return [named, stored(LANGUAGE), ...preferred].find(offered) || Object.keys(words)[0];
  }

  // The page around the steps follows the reader's language.
  function speak(chosen) {
    if (!offered(chosen)) return;
    language = document.documentElement.lang = chosen;
    if (Object.keys(words).length > 1) sessionStorage.setItem(LANGUAGE, language);
    document.title = text("page_title");
    document.querySelector("#banner .sk-banner")?.replaceChildren(text("page_banner"));
    for (const tab of document.querySelectorAll("[role=tab]")) {
      const key = TABS.find((one) => Object.values(words).some((named) => named[one] === tab.textContent.trim()));
      if (key) tab.replaceChildren(text(key));
    }
  }

  // --- asking the server ---------------------------------------------------------------------------------------

  // Fails where there is no reply: the network, a fault of the server, or too late.
  async function asked(name, request) {
    const reply = await fetch(`${location.pathname.replace(/\/$/, "")}/session/${name}`, {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify({ ...request, language }),
      signal: AbortSignal.timeout(PATIENCE),
    });
    if (reply.ok) return reply.json();
    const said = reply.status === 503 ? await reply.json().catch(() => ({})) : {};
    throw Object.assign(new Error(`${reply.status}`), { said: said.problem });
  }

  // Sends the same request until there is a reply. The request's id makes that harmless.
  async function insist(name, request, saying) {
    for (let attempt = 0; ; attempt++) {
      try {
        return await asked(name, request);
      } catch (fault) {
        const seconds = WAITS[Math.min(attempt, WAITS.length - 1)];
        const told = text("trying_in", { words: saying, fault: fault.said || text("connection_failed"), seconds });
        tell(attempt > 4 ? `${told} ${text("keeps_failing")}` : told, true);
        await Promise.race([pause(seconds * 1000), online()]);
        tell(text("trying", { words: saying }), true);
      }
    }
  }

  const online = () => new Promise((back) => window.addEventListener("online", back, { once: true }));

  async function resume() {
    await show(await insist("resume", { token: stored(TOKEN) }, text("not_reached")));
  }

  // --- drawing -------------------------------------------------------------------------------------------------

  // `since`: when the answers were sent, by performance.now()
  async function show(reply, since = performance.now()) {
    if (reply.signed_out) return showSignIn(reply.problem);
    if (!reply.html) return tell(reply.problem || text("not_opened"), true);
    speak(reply.language);
    const next = document.createElement("template");
    next.innerHTML = reply.html;
    // the aid comes at the same time after the click in every arm, however large its pictures are
    const loaded = all("img", next.content).map((image) => {
      const copy = new Image();
      copy.src = image.src;
      return copy.decode().catch(() => null);
    });
    if (reply.delay) tell(text("aid_soon"));
    await Promise.all([...loaded, pause(Math.max(0, reply.delay * 1000 - (performance.now() - since)))]);
    const stage = $("[data-stage]");
    stage.replaceChildren(next.content);
    stage.removeAttribute("aria-busy");
    tell(reply.notice || "");
    $("[data-announce]").textContent = reply.said || "";
    restore(reply.step);
    focusHeading();
    clock = clockFrom(draft(reply.step).seconds || 0);
    countPause();
  }

  // A pause tells how long it lasts and in the reader's own time when it ends, then frees its button. It does not go on
  // by itself: nobody may be there to see the next photo.
  async function countPause() {
    const line = $("[data-wait]");
    if (!line) return;
    const end = Date.now() + Number(line.dataset.wait) * 1000;
    const at = new Date(end).toLocaleString(language, { weekday: "long", hour: "2-digit", minute: "2-digit" });
    for (let left; (left = Math.ceil((end - Date.now()) / 1000)) > 0 && line.isConnected; ) {
      line.textContent = text("opens_in", { duration: duration(left), when: at });
      await pause(1000);
    }
    if (!line.isConnected) return;
    line.textContent = $("[data-announce]").textContent = text("opened");
    $("[data-act=resume]").disabled = false;
    $("[data-act=resume]").focus();
  }

  function duration(seconds) {
    const [hours, minutes] = [Math.floor(seconds / 3600), Math.floor(seconds / 60) % 60];
    if (hours) return text("hours", { hours, minutes });
    return minutes ? text("minutes", { minutes, seconds: seconds % 60 }) : text("seconds", { seconds });
  }

  function showSignIn(problem) {
    sessionStorage.removeItem(TOKEN);
    clock = null;
    const stage = $("[data-stage]");
    stage.replaceChildren($(`template[data-signin="${language}"]`).content.cloneNode(true));
    stage.removeAttribute("aria-busy");
    tell("");
    $("[data-problem]").textContent = problem || "";
    const invited = new URLSearchParams(location.hash.slice(1)).get("code");
    if (invited) $("input", stage).value = invited;
    if (location.hash) history.replaceState(null, "", location.pathname + location.search); // the code leaves it at once
    if (root.offsetParent && problem) $("input", stage).focus();
  }

  function focusHeading() {
    const heading = $("[data-heading]");
    if (!heading || !root.offsetParent) return;
    heading.focus({ preventScroll: true });
    window.scrollBy({ top: root.getBoundingClientRect().top - BANNER }); // each step begins at the same place
  }

  function tell(words, urgent = false) {
    const line = $("[data-saving]");
    line.textContent = words;
    delete line.dataset.open;
    line.classList.toggle("sk-urgent", urgent);
  }

  // --- time on a step, without that in which its tab was hidden ------------------------------------------------

  function clockFrom(seconds) {
    let before = seconds, since = document.hidden ? null : performance.now();
    return {
      stop() { before = this.seconds(); since = null; },
      go() { since ??= performance.now(); },
      seconds: () => before + (since === null ? 0 : (performance.now() - since) / 1000),
    };
  }

  document.addEventListener("visibilitychange", () => {
    if (!clock || sending) return;
    if (document.hidden) clock.stop();
    else clock.go();
    keep();
  });
  window.addEventListener("pagehide", () => clock && keep());
  window.addEventListener("beforeunload", (event) => { if (sending) event.preventDefault(); });

  // --- answers -------------------------------------------------------------------------------------------------

  const stepShown = () => $("[data-step]")?.dataset.step;
  const questions = () => all("fieldset[data-key]");

  function answerOf(question) {
    const { kind } = question.dataset;
    if (kind === "text") return $("textarea", question).value.trim() || null;
    if (kind === "percent") {
      const field = $("[data-number]", question);
      return field.value === "" || !field.checkValidity() ? null : Number(field.value);
    }
    const value = $("input:checked", question)?.value ?? null;
    if (value === null) return null;
    return kind === "likert" ? Number(value) : kind === "yes_no" ? value === "true" : value;
  }

  function answers() {
    const given = questions().map((question) => [question.dataset.key, answerOf(question)]);
    return Object.fromEntries(given.filter(([, value]) => value !== null));
  }

  // The unconfirmed answers of the step on the page, and the id under which they will be sent.
  function draft(step) {
    const kept = JSON.parse(stored(DRAFT) || "null");
    const mine = kept && kept.step === step && kept.owner === stored(OWNER);
    return mine ? kept : { owner: stored(OWNER), step, answers: {}, seconds: 0, request: uuid() };
  }

  function keep() {
    const step = stepShown();
    if (!step || !clock) return;
    const kept = { ...draft(step), answers: answers(), seconds: clock.seconds() };
    sessionStorage.setItem(DRAFT, JSON.stringify(kept));
    return kept;
  }

  function restore(step) {
    const kept = draft(step);
    for (const question of questions()) {
      const value = kept.answers[question.dataset.key];
      if (value === undefined) continue;
      const { kind } = question.dataset;
      if (kind === "text") $("textarea", question).value = value;
      else if (kind === "percent") setPercent(question, String(value));
      else all("input", question).forEach((radio) => { radio.checked = radio.value === String(value); });
    }
    sessionStorage.setItem(DRAFT, JSON.stringify(kept));
  }

  // crypto.randomUUID exists on https and localhost only; a clinic's own network may have neither
  function uuid() {
    if (crypto.randomUUID) return crypto.randomUUID();
    return [...crypto.getRandomValues(new Uint8Array(16))].map((b) => b.toString(16).padStart(2, "0")).join("");
  }

  function setPercent(question, value) {
    const [slider, number, box] = ["[data-slider]", "[data-number]", ".sk-percent"].map((s) => $(s, question));
    number.value = value;
    const known = value !== "" && number.checkValidity();
    if (known) slider.value = value;
    box.classList.toggle("sk-untouched", !known);
    slider.setAttribute("aria-valuetext", known ? text("percent", { value }) : text("percent_open"));
  }

  function onInput(event) {
    const question = event.target.closest("fieldset[data-key]");
    if (!question) return;
    if (event.target.matches("[data-slider], [data-number]")) setPercent(question, event.target.value);
    changed(question);
  }

  function changed(question) {
    if (answerOf(question) !== null) mark(question, "");
    if ($("[data-saving]").dataset.open) tellOpen();
    keep();
  }

  function mark(question, words) {
    $("[data-missing]", question).textContent = words;
    question.classList.toggle("sk-wanting", Boolean(words));
  }

  // Words for what a question still needs, or "".
  function wanting(question) {
    const number = $("[data-number]", question);
    if (number && (number.validity.badInput || (number.value !== "" && !number.checkValidity()))) {
      return text("percent_needed");
    }
    const needed = question.dataset.required === "true" && answerOf(question) === null;
    return needed ? text("answer_needed") : "";
  }

  function complete() {
    const open = questions().filter((question) => {
      mark(question, wanting(question));
      return wanting(question);
    });
    if (!open.length) return true;
    tellOpen();
    $("input, textarea", open[0]).focus();
    return false;
  }

  // How many questions are still to be answered, counted down as they are.
  function tellOpen() {
    const open = questions().filter(wanting).length;
    tell(open ? text(open === 1 ? "one_open" : "some_open", { open }) : "", open > 0);
    if (open) $("[data-saving]").dataset.open = open;
  }

  // --- what the reader does ------------------------------------------------------------------------------------

  async function onSubmit(event) {
    event.preventDefault();
    if (sending) return;
    const form = event.target;
    if (form.dataset.form === "sign-in") return signIn(form);
    if (form.dataset.form === "step" && complete()) await busy(form, () => send(form));
  }

  // While a request is under way its form is frozen: what is sent is what is shown.
  async function busy(form, work) {
    const fields = all("input, textarea, button", form);
    sending = true;
    fields.forEach((field) => { field.disabled = true; });
    form.setAttribute("aria-busy", "true");
    try {
      await work();
    } finally {
      sending = false;
      form.removeAttribute("aria-busy");
      fields.forEach((field) => { field.disabled = false; });
    }
  }

  async function send(form) {
    clock.stop();
    const { step, request, answers, seconds } = keep();
    const since = performance.now();
    tell(text("saving"));
    const message = { token: stored(TOKEN), step, request_id: request, answers, seconds };
    const reply = await insist("submit", message, text("not_saved_yet"));
    if (reply.html) sessionStorage.removeItem(DRAFT); // acknowledged
    if (reply.problem && !reply.signed_out) return refuse(form, reply.problem);
    await show(reply, since);
  }

  // The server names a question by its key; the words go to that question, or above all of them.
  function refuse(form, problem) {
    const [, key, said] = problem.match(/^(\w+): (.*)$/s) || [];
    const question = key && questions().find((q) => q.dataset.key === key);
    const box = $("[data-problem]", form);
    box.textContent = question ? "" : text("not_saved", { problem });
    if (question) mark(question, said[0].toUpperCase() + said.slice(1));
    tell("");
    clock.go();
    setTimeout(() => (question ? $("input, textarea", question) : box).focus());
  }

  async function signIn(form) {
    const code = $("input", form).value.trim();
    const problem = $("[data-problem]", form);
    problem.textContent = "";
    let reply;
    await busy(form, async () => {
      tell(text("signing_in"));
      reply = await asked("sign_in", { code }).catch(() => ({
        problem: text("sign_in_failed"),
      }));
    });
    tell("");
    if (!reply.token) {
      problem.textContent = reply.problem;
      $("input", form).focus();
      return;
    }
    sessionStorage.setItem(TOKEN, reply.token);
    // the code's public part: another reader at this computer must not be given these answers
    sessionStorage.setItem(OWNER, code.replace(/[\s-]/g, "").toUpperCase().slice(0, 4));
    await show(reply);
  }

  function onClick(event) {
    const chosen = event.target.closest("[data-language]")?.dataset.language;
    if (chosen && !sending) {
      const typed = $("input").value;
      speak(chosen);
      showSignIn();
      $("input").value = typed;
      $(`[data-language="${chosen}"]`).focus();
    }
    const act = event.target.closest("[data-act]")?.dataset.act;
    if (act) ACTS[act]();
    const picture = event.target.closest(".sk-enlarge");
    if (picture) enlarge(picture);
  }

  const ACTS = {
    pause() {
      if (sending) return;
      keep();
      asked("sign_out", { token: stored(TOKEN) }).catch(() => {}); // it ends by itself where this is not heard
      showSignIn();
      tell(text("signed_out"));
      $("input").focus();
    },
    resume,
    async receipt() {
      const reply = await asked("receipt", { token: stored(TOKEN) }).catch(() => ({
        problem: text("receipt_failed"),
      }));
      if (reply.signed_out) return showSignIn(reply.problem);
      const code = document.createElement("output");
      code.className = "sk-code";
      code.textContent = reply.receipt || "";
      dialog(text("receipt_title"), reply.problem || text("receipt_text"), reply.receipt ? [code] : []);
    },
    withdraw() {
      const form = document.createElement("form");
      form.innerHTML = '<label><span></span><input type="text" autocomplete="off" spellcheck="false"></label>' +
        '<p class="sk-problem" role="alert"></p><button class="sk-danger"></button>';
      $("span", form).textContent = text("withdraw_type");
      $("button", form).textContent = text("withdraw_button");
      const box = dialog(text("withdraw_title"), text("withdraw_text"), [form]);
      $("input", form).focus();
      let unanswered = false; // a try that may have arrived, though its acknowledgement did not
      form.addEventListener("submit", async (event) => {
        event.preventDefault();
        const request = { token: stored(TOKEN), word: $("input", form).value };
        const reply = await asked("withdraw", request).catch(() => {
          unanswered = true;
          return { problem: text("withdraw_unsure") };
        });
        if (unanswered && reply.signed_out) {
          reply.problem = text("withdraw_maybe");
        }
        if (!reply.withdrawn && !reply.signed_out) {
          $(".sk-problem", form).textContent = reply.problem;
          return;
        }
        box.close();
        sessionStorage.removeItem(DRAFT);
        sessionStorage.removeItem(TOKEN);
        await show(reply);
      });
    },
  };

  // --- keyboard ------------------------------------------------------------------------------------------------

  document.addEventListener("keydown", (event) => {
    if (!root?.offsetParent || event.ctrlKey || event.metaKey || event.altKey || document.querySelector("dialog[open]")) {
      return;
    }
    if (event.target.matches("textarea, input[type=text], input[type=number], select")) return;
    if (/^[1-9]$/.test(event.key)) pick(Number(event.key), event);
    else if (event.key.toLowerCase() === "z") $(".sk-enlarge")?.click();
    else if (event.key === "Enter" && event.repeat) event.preventDefault(); // a held key confirms one step only
  });

  // A digit answers the question that has the focus, or else the first one that is open.
  function pick(digit, event) {
    const here = event.target.closest("fieldset[data-key]");
    const open = questions().find((q) => $("input[type=radio]", q) && answerOf(q) === null);
    const question = here || open;
    const option = question && all("input[type=radio]", question)[digit - 1];
    if (!option || option.disabled) return;
    option.focus();
    option.click();
    event.preventDefault();
  }

  // --- windows over the page -----------------------------------------------------------------------------------

  function dialog(title, said, parts, kind = "sk-window") {
    const box = document.createElement("dialog");
    const [heading, line, close] = ["h2", "p", "button"].map((tag) => document.createElement(tag));
    box.className = kind;
    box.setAttribute("aria-label", title);
    [heading.textContent, line.textContent, close.textContent, close.type] = [title, said, text("close"), "button"];
    close.addEventListener("click", () => box.close());
    box.addEventListener("close", () => box.remove());
    box.append(heading, ...(said ? [line] : []), ...parts, close);
    document.querySelector(".gradio-container").append(box);
    box.showModal();
    return box;
  }

  // The picture as large as the window, and up to six times that: by slider, + and -, wheel, arrow keys and dragging.
  function enlarge(button) {
    const stage = document.createElement("div"), picture = $("img", button).cloneNode();
    const zoom = document.createElement("label"), slider = document.createElement("input");
    stage.className = "sk-loupe";
    stage.tabIndex = 0;
    stage.setAttribute("role", "group");
    stage.setAttribute("aria-label", text("picture"));
    stage.append(picture);
    Object.assign(slider, { type: "range", min: "1", max: "6", step: "0.25", value: "1" });
    zoom.className = "sk-field";
    zoom.append(text("zoom"), slider);
    const box = dialog(button.dataset.name, "", [zoom, stage], "sk-window sk-loupe-window");
    let factor = 1;
    const set = (wanted) => {
      const change = Math.min(6, Math.max(1, wanted)) / factor;
      const [x, y] = [stage.scrollLeft + stage.clientWidth / 2, stage.scrollTop + stage.clientHeight / 2];
      factor *= change;
      slider.value = factor;
      stage.style.setProperty("--zoom", factor);
      stage.scrollTo(x * change - stage.clientWidth / 2, y * change - stage.clientHeight / 2);
    };
    slider.addEventListener("input", () => set(Number(slider.value)));
    box.addEventListener("keydown", (event) => {
      const step = { "+": 0.5, "=": 0.5, "-": -0.5 }[event.key];
      if (step) set(factor + step);
    });
    stage.addEventListener("wheel", (event) => {
      event.preventDefault();
      set(factor - Math.sign(event.deltaY) * 0.25);
    }, { passive: false });
    stage.addEventListener("pointermove", (event) => {
      if (event.buttons === 1 && event.pointerType === "mouse") stage.scrollBy(-event.movementX, -event.movementY);
    });
    picture.draggable = false;
    stage.focus();
  }

  // A click on the middle of an untouched slider changes nothing that the browser would tell: it is an answer too.
  document.addEventListener("pointerup", (event) => {
    const question = event.target.closest?.("#study fieldset[data-key]");
    if (question && event.target.matches("[data-slider]")) {
      setPercent(question, event.target.value);
      changed(question);
    }
  });

  return { attach };
})();
