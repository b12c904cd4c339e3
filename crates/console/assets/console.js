// The console's script: live parts, the SQL box, selection. Pages work without it.
"use strict";
(() => {
  const one = (selector, root = document) => root.querySelector(selector);
  const all = (selector, root = document) => [...root.querySelectorAll(selector)];

  // --- Live parts -------------------------------------------------------------------
  const url = document.body.dataset.live;
  const toggle = one("[data-live-toggle]");
  if (url && toggle && window.EventSource) {
    const text = one("[data-live-text]", toggle);
    const spoken = one("#spoken");
    let source = null;
    let lastSpoken = null;

    const show = (state, label) => {
      toggle.dataset.state = state;
      text.textContent = label;
    };

    // Replacing content must not take the focus away from whoever is in it.
    const replace = (element, html) => {
      const held = element.contains(document.activeElement) && element !== document.activeElement
        ? document.activeElement : null;
      const same = held && (held.getAttribute("href")
        ? `[href="${CSS.escape(held.getAttribute("href"))}"]`
        : held.value ? `[value="${CSS.escape(held.value)}"]` : null);
      element.innerHTML = html;
      if (same) one(same, element)?.focus({ preventScroll: true });
    };

    const start = () => {
      source = new EventSource(url);
      show("wait", "Connecting");
      source.addEventListener("parts", (event) => {
        const message = JSON.parse(event.data);
        for (const [id, html] of Object.entries(message.parts)) {
          const element = document.getElementById(id);
          // A selection in progress is left alone; the next change comes soon.
          const selection = window.getSelection();
          const selecting = selection && !selection.isCollapsed && element?.contains(selection.anchorNode);
          if (element && !selecting) replace(element, html);
        }
        if (lastSpoken !== null && message.spoken !== lastSpoken) spoken.textContent = message.spoken;
        lastSpoken = message.spoken;
        show("on", "Live");
      });
      source.addEventListener("trouble", (event) => show("wait", JSON.parse(event.data).detail));
      source.addEventListener("gone", () => { source.close(); location.reload(); });
      source.onerror = () => {
        if (source.readyState === EventSource.CLOSED) {
          show("wait", "Reconnecting");
          setTimeout(() => { if (toggle.getAttribute("aria-pressed") === "true") start(); }, 5000);
        } else {
          show("wait", "Reconnecting");
        }
      };
    };
    const stop = (label) => { source?.close(); source = null; show("off", label); };

    toggle.hidden = false;
    toggle.addEventListener("click", () => {
      const on = toggle.getAttribute("aria-pressed") !== "true";
      toggle.setAttribute("aria-pressed", String(on));
      if (on) start(); else stop("Paused");
    });
    document.addEventListener("visibilitychange", () => {
      if (toggle.getAttribute("aria-pressed") !== "true") return;
      if (document.hidden) stop("Paused"); else if (!source) start();
    });
    start();
  }

  // --- Dead letters -----------------------------------------------------------------
  for (const master of all("[data-check-all]")) {
    const form = master.form;
    const name = master.dataset.checkAll;
    const boxes = () => all(`input[name="${name}"]`, form);
    const button = one(`[data-count-of="${name}"]`, form);
    const label = button.textContent;
    const update = () => {
      const checked = boxes().filter((box) => box.checked).length;
      button.disabled = checked === 0;
      button.textContent = checked ? `${label} (${checked})` : label;
      master.checked = checked > 0 && checked === boxes().length;
      master.indeterminate = checked > 0 && !master.checked;
    };
    master.hidden = false;
    for (const sibling of all("[hidden]", master.parentElement)) sibling.hidden = false;
    master.addEventListener("change", () => {
      for (const box of boxes()) box.checked = master.checked;
      update();
    });
    form.addEventListener("change", update);
    update();
  }
  for (const form of all("[data-auto-submit]")) {
    const button = one("button", form);
    if (button) button.hidden = true;
    form.addEventListener("change", () => form.requestSubmit());
  }

  // --- SQL --------------------------------------------------------------------------
  const sqlForm = one("#sql-form");
  if (sqlForm) {
    const box = one("#sql");
    const result = one("#result");
    const run = one("button[type=submit]", sqlForm);
    const stop = one("#sql-stop");
    let running = null;

    const busy = (on) => {
      result.setAttribute("aria-busy", String(on));
      run.textContent = on ? "Running…" : "Run";
      run.disabled = on;
      stop.hidden = !on;
    };
    const say = (text) => {
      const p = document.createElement("p");
      p.className = "outcome faint";
      p.textContent = text;
      result.replaceChildren(p);
    };

    sqlForm.addEventListener("submit", async (event) => {
      event.preventDefault();
      if (running) return;
      running = new AbortController();
      busy(true);
      try {
        const response = await fetch(sqlForm.action, {
          method: "POST",
          headers: { "X-Part": "result" },
          body: new URLSearchParams(new FormData(sqlForm)),
          signal: running.signal,
        });
        if (response.status === 401) { location.reload(); return; }
        result.innerHTML = await response.text();
      } catch (error) {
        say(error.name === "AbortError" ? "Stopped." : "The server did not answer. Is it still running?");
      } finally {
        running = null;
        busy(false);
      }
    });
    stop.addEventListener("click", () => running?.abort());
    box.addEventListener("keydown", (event) => {
      if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) {
        event.preventDefault();
        sqlForm.requestSubmit();
      } else if (event.key === "Escape" && running) {
        running.abort();
      }
    });
    for (const button of all("[data-select-from]")) {
      button.hidden = false;
      button.addEventListener("click", () => {
        box.value = `SELECT *\nFROM ${button.dataset.selectFrom}\nLIMIT 50`;
        box.focus();
      });
    }
    if (!box.value) box.focus();
  }
})();
