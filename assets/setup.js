// Set-up page: sends the archive of photos, with the code and the study that it is for, and tells the server's page.
(() => {
  const $ = (selector) => document.querySelector(selector);

  // Puts a value into a hidden field, whose change the server hears of.
  function hand(id, value) {
    const field = $(`${id} textarea, ${id} input`);
    field.value = value;
    field.dispatchEvent(new Event("input", { bubbles: true }));
  }

  const say = (words) => { $("#setup-upload-words").textContent = words; };

  function ended(request) {
    $("#setup-sent").hidden = true;
    let reply = {};
    try { reply = JSON.parse(request.responseText); } catch { /* no reply of ours */ }
    if (reply.problem) return say(reply.problem);
    if (request.status !== 200) return say("The archive did not reach the program. Check the connection and try again.");
    say(`${reply.files} files taken.`);
    hand("#setup-uploaded", JSON.stringify({ at: Date.now(), left_out: reply.left_out }));
  }

  function send(file) {
    const study = $("#setup-chosen textarea, #setup-chosen input").value;
    if (!study) return say("Choose a study first.");
    const request = new XMLHttpRequest(), sent = $("#setup-sent");
    sent.hidden = false;
    sent.value = 0;
    say("Sending …");
    request.upload.addEventListener("progress", (event) => { sent.value = 100 * event.loaded / (event.total || 1); });
    request.upload.addEventListener("load", () => say("Unpacking …"));
    for (const name of ["load", "error", "abort"]) request.addEventListener(name, () => ended(request));
    request.open("POST", `${location.pathname.replace(/\/$/, "")}/photos`);
    request.setRequestHeader("X-Study", study);
    request.setRequestHeader("X-Setup-Code", sessionStorage.getItem("study-setup") || "");
    request.setRequestHeader("Content-Type", "application/zip");
    request.send(file);
  }

  document.addEventListener("change", (event) => {
    if (event.target.id !== "setup-zip" || !event.target.files[0]) return;
    send(event.target.files[0]);
    event.target.value = ""; // so that the same file can be chosen again
  });
})();
