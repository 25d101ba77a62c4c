// Calls that the server turns away, because it is full or for another reason. Gradio drops the words of some and shows
// those of others for ten seconds; here they stay on the page in a card, with a button that does again what was asked.
(() => {
  const CALL = /\/gradio_api\/(run\/|queue\/join)/;
  const FULL = 503;
  let again = null; // does once more what the visitor asked for last
  let pressed = ""; // the button of Gradio's by which they asked
  let acted = true; // the visitor has done something since the card was shown

  const card = () => document.querySelector("#refused");

  // Where the visitor looks: over the answer, or at the top of another tab.
  function place(of) {
    const answer = document.querySelector("#answer");
    const tab = [...document.querySelectorAll("[role=tabpanel]")].find((panel) => panel.checkVisibility());
    const there = answer?.checkVisibility() ? answer : tab;
    if (there && of.parentElement !== there) there.prepend(of);
  }

  function show(status, words) {
    const one = card();
    if (!one) return;
    place(one);
    for (const part of one.querySelectorAll("[data-refused]")) part.hidden = part.dataset.refused !== (status === FULL ? "full" : "other");
    one.querySelector("[data-refused-words]").textContent = words;
    one.querySelector("[data-again]").hidden = !again;
    one.hidden = false;
    acted = false;
    document.dispatchEvent(new CustomEvent("sk-refused", { detail: pressed }));
    if (!again) return; // who types on is left where they are
    one.scrollIntoView({ block: "nearest" });
    one.querySelector("[data-again]").focus({ preventScroll: true });
  }

  function hide() {
    if (acted && card()) card().hidden = true;
  }

  const ask = window.fetch.bind(window);
  window.fetch = async (...call) => {
    const reply = await ask(...call);
    if (CALL.test(reply.url)) {
      if (reply.ok) hide();
      else reply.clone().json().catch(() => ({})).then((body) => show(reply.status, String(body.detail || body.error || "")));
    }
    return reply;
  };

  // The page's scripts say how what they ask for is asked again; a button of Gradio's is pressed again.
  document.addEventListener("sk-asked", (event) => { again = event.detail; });
  document.addEventListener("click", (event) => {
    const button = event.target.closest?.("button");
    if (button?.matches("#stop, [data-testid=toast-close]")) return; // the page's own doing, after a refusal
    acted = true;
    if (button?.matches("[data-again]")) {
      event.stopPropagation();
      card().hidden = true;
      again?.();
    } else if (!button?.closest("#refused")) {
      pressed = button?.id || "";
      again = pressed ? () => button.click() : null;
    }
  }, true);
  document.addEventListener("input", (event) => {
    if (!event.isTrusted) return; // handed over by the page's scripts
    acted = true;
    again = null;
  }, true);

  new MutationObserver(() => {
    if (card()?.hidden === false) document.querySelector("[data-testid=toast-body].error [data-testid=toast-close]")?.click();
  }).observe(document, { childList: true, subtree: true });
})();
