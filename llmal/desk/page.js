// The review page: one key a label. Every text, label and name reaches the page through textContent alone.
"use strict";

const KEYS = "123456789abcdefghijklmnopqrstuvwxyz";
const FEW = 12; // labels above which a search field helps
const PATIENCE_MS = 10000; // for one answer to be kept, before it is sent again
const $ = (id) => document.getElementById(id);

const S = {
  token: "", labels: [], kind: "single", current: null, ahead: [], past: [], pending: [], sending: false,
  left: 0, done: 0, picked: new Set(), full: false, query: "", since: 0, away: 0, awaySince: 0, times: [],
  drawn: "", undoing: false, more: 0, ended: false,
};

function say(words, kind) {
  $("status").textContent = words;
  $("status").className = kind || "";
}

function trouble(words) {
  $("trouble").textContent = words;
  $("trouble").hidden = !words;
}

function token() {
  const found = /^#token=([\w-]+)$/.exec(location.hash);
  if (found) {
    sessionStorage.setItem("token", found[1]);
    history.replaceState(null, "", location.pathname); // out of the history, and of screenshots
  }
  return sessionStorage.getItem("token") || "";
}

async function ask(path, body) {
  const stop = new AbortController();
  const timer = setTimeout(() => stop.abort(), PATIENCE_MS);
  try {
    const answer = await fetch(path, {
      method: body ? "POST" : "GET", cache: "no-store", credentials: "omit", signal: stop.signal,
      headers: { "Authorization": "Bearer " + S.token, ...(body ? { "Content-Type": "application/json" } : {}) },
      body: body ? JSON.stringify(body) : undefined,
    });
    return { status: answer.status, data: await answer.json() };
  } finally {
    clearTimeout(timer);
  }
}

function newId() {
  return Array.from(crypto.getRandomValues(new Uint8Array(16)), (b) => b.toString(16).padStart(2, "0")).join("");
}

// --- what is done, kept one after another --------------------------------------------------------------------

function held() {
  return [S.current, ...S.ahead].filter(Boolean).map((one) => one.item).concat(S.pending.map((one) => one.item));
}

async function pump() {
  if (S.sending || S.ended) return;
  S.sending = true;
  let tries = 0;
  while (S.pending.length && !S.ended) {
    const deed = S.pending[0];
    let got = null;
    try {
      got = await ask("/say", { ...deed, have: held().filter((item) => item !== deed.item).slice(0, 200) });
    } catch (error) {
      got = { status: 0, data: {} };
    }
    if (got.status === 200) {
      tries = 0;
      trouble("");
      S.pending.shift();
      kept(deed, got.data);
    } else if (got.status === 409 || got.status === 422) {
      S.pending.shift();
      S.past = S.past.filter((one) => one.id !== deed.id);
      S.undoing = false;
      say("Not taken: " + String(got.data.error));
    } else if (got.status === 401 || got.status === 400 || got.status === 403) {
      ended("Not saved: " + unsaved() + ". The page was started anew: open the address it printed.");
    } else { // the same deed with the same id: kept twice it counts once
      tries += 1;
      trouble("Not saved yet: " + unsaved() + ". Trying again" + (got.data.error ? " (" + String(got.data.error) + ")" : "") + " …");
      await new Promise((wake) => setTimeout(wake, Math.min(5000, 200 * 2 ** tries)));
    }
  }
  S.sending = false;
  if (!S.current && !S.undoing && !S.ended) next();
}

function unsaved() {
  return S.pending.length === 1 ? "1 answer" : S.pending.length + " answers";
}

function ended(words) {
  S.ended = true;
  trouble(words);
}

function kept(deed, data) {
  S.done = data.done;
  S.left = data.left;
  if (deed.what === "undo") {
    S.undoing = false;
    const here = S.current;
    S.ahead = [here, ...S.ahead].filter((one) => one && one.item !== deed.item);
    if (data.undone) show(data.undone, deed.labels);
    say("Taken back. Answer it anew.", "saved");
    if (S.more > 0) {
      S.more -= 1;
      undo();
    }
  } else if (!S.undoing) {
    say(deed.what === "answer" ? "Saved: " + (deed.labels.join(", ") || "none") : deed.what === "skip" ? "Skipped: it comes again last" : "Noted as not sure", "saved");
  }
  const known = new Set(held());
  for (const one of data.items) if (!known.has(one.item)) S.ahead.push(one);
  progress();
}

function said(what, labels) {
  const one = S.current;
  if (!one || S.ended || S.undoing) return;
  const now = performance.now();
  const deed = {
    id: newId(), item: one.item, what, labels: labels || [], note: $("note").value, full: S.full || !one.candidates.length,
    seconds: Math.max(0, (now - S.since - S.away) / 1000),
  };
  S.past.push({ id: deed.id, item: one.item, labels: deed.labels });
  if (what === "answer") S.times.push(now);
  S.current = null;
  S.pending.push(deed);
  next();
  pump();
}

function undo() {
  if (S.undoing) S.more += 1; // once the one under way is on the screen
  const last = S.past[S.past.length - 1];
  if (!last) say("There is nothing to take back");
  if (!last || S.undoing || S.ended) return;
  S.past.pop();
  S.undoing = true;
  S.pending.push({ id: newId(), item: last.item, what: "undo", of: last.id, labels: last.labels || [] });
  pump();
}

// --- what is seen --------------------------------------------------------------------------------------------

function next() {
  const one = S.ahead.shift() || null;
  if (one) show(one);
  else if (!S.pending.length) finished();
  progress();
}

function show(one, before) {
  S.current = one;
  S.picked = new Set(before || []);
  S.full = !one.candidates.length;
  S.since = performance.now();
  S.away = 0;
  S.query = $("search").value = "";
  $("note").value = "";
  noting(false);
  $("work").hidden = false;
  $("done").hidden = true;
  $("why").textContent = reason(one);
  for (const words of one.flags) {
    const flag = document.createElement("span");
    flag.className = "flag";
    flag.textContent = words;
    $("why").append(flag);
  }
  $("text").textContent = one.text;
  $("text").scrollTop = 0;
  if (document.activeElement && document.activeElement.closest("#labels, #search")) $("text").focus({ preventScroll: true });
  draw();
}

function reason(one) {
  return one.why === "audit" ? "Measures quality: drawn at random, shown without any machine's answer" : "Why you: " + one.why;
}

function inSight() {
  const columns = S.full ? S.labels.map((_, i) => i) : S.current.candidates.map((name) => S.labels.findIndex((l) => l.name === name));
  const query = S.query.trim().toLowerCase();
  return query ? columns.filter((i) => (S.labels[i].name + "\n" + S.labels[i].description).toLowerCase().includes(query)) : columns;
}

// A label keeps its key from text to text; only lists too long for that number what is in sight.
function keyOf(column, place) {
  return (S.labels.length <= KEYS.length ? KEYS[column] : KEYS[place]) || "";
}

function draw() {
  const columns = inSight();
  const list = columns.join(",");
  if (list !== S.drawn) {
    S.drawn = list;
    $("labels").replaceChildren(...columns.map(button));
  }
  for (const one of $("labels").children) {
    const name = S.labels[one.dataset.column].name;
    if (S.kind === "multi") one.setAttribute("aria-pressed", String(S.picked.has(name)));
    else one.classList.toggle("given", S.picked.has(name));
  }
  const short = S.current.candidates.length > 0;
  $("find").hidden = !(S.full && S.labels.length > FEW);
  $("none").hidden = columns.length > 0;
  $("hint").textContent = short && !S.full ? "The likely labels of " + S.labels.length + "; if none is right, show all." : S.kind === "multi" ? "Any number of labels, then Enter." : "";
  $("all").hidden = !short || S.full;
  $("all-words").textContent = "Show all " + S.labels.length + " labels";
  $("send").hidden = S.kind !== "multi";
  const n = S.picked.size;
  $("send-words").textContent = n === 0 ? "Save: no label fits" : n === 1 ? "Save 1 label" : "Save " + n + " labels";
  $("undo").disabled = !S.past.length;
}

function button(column, place) {
  const one = document.createElement("button"), key = document.createElement("kbd");
  const name = document.createElement("bdi"), about = document.createElement("span"), label = S.labels[column];
  one.type = "button";
  one.className = "label";
  one.dataset.column = column;
  key.textContent = keyOf(column, place);
  if (key.textContent) one.setAttribute("aria-keyshortcuts", key.textContent);
  one.dataset.key = key.textContent;
  name.className = "name";
  name.textContent = label.name;
  about.className = "about";
  about.textContent = label.description;
  one.append(key, name);
  if (label.description) one.append(about);
  one.addEventListener("click", () => choose(column));
  return one;
}

function choose(column) {
  const name = S.labels[column].name;
  if (!S.current || S.undoing) return;
  if (S.kind === "single") {
    said("answer", [name]);
    return;
  }
  if (!S.picked.delete(name)) S.picked.add(name);
  draw();
}

function send() {
  if (S.kind === "multi" && S.current) said("answer", S.labels.map((l) => l.name).filter((name) => S.picked.has(name)));
}

function showAll() {
  S.full = true;
  draw();
  say("All " + S.labels.length + " labels are shown");
}

function noting(open) {
  $("noting").hidden = !open;
  $("comment").setAttribute("aria-expanded", String(open));
  if (open) $("note").focus();
}

function progress() {
  const total = S.done + S.left;
  const now = performance.now(), lately = S.times.filter((at) => now - at < 300000);
  const minutes = lately.length > 1 ? (now - lately[0]) / 60000 : 0;
  const rate = lately.length > 4 && minutes > 0 ? " · " + Math.round((lately.length - 1) / minutes) + " a minute" : "";
  $("progress-words").textContent = S.done + " done · " + S.left + " left" + rate;
  $("progress").max = Math.max(1, total);
  $("progress").value = S.done;
}

function finished() {
  if (S.left > 0 && !S.ended) {
    load();
    return;
  }
  $("work").hidden = true;
  $("done").hidden = false;
  $("done-title").textContent = "Nothing waits for you";
  $("done-words").textContent = S.done + " texts have a person's answer. Stop the page with Ctrl+C in its terminal, then let llmal run go on.";
  $("undo-last").hidden = !S.past.length;
  $("done").focus();
}

function guide() {
  const rows = [];
  for (const label of S.labels) {
    if (!label.description && !label.examples.length) continue;
    const name = document.createElement("dt");
    name.textContent = label.name;
    rows.push(name);
    for (const [words, kind] of [[label.description, "about"], ...label.examples.map((e) => [e, "example"])]) {
      if (!words) continue;
      const line = document.createElement("dd");
      line.className = kind;
      line.dir = "auto";
      line.textContent = words;
      rows.push(line);
    }
  }
  $("meanings").replaceChildren(...rows);
  $("guide").hidden = !rows.length;
  // What the buttons do not say, where there is room for it.
  const more = S.labels.some((label) => label.examples.length) && S.labels.length <= FEW;
  $("guide").open = more && matchMedia("(min-width: 48.01rem)").matches;
}

// --- keys ----------------------------------------------------------------------------------------------------

function move(step) {
  const all = [...$("labels").children];
  const at = all.indexOf(document.activeElement);
  const to = all[at < 0 ? (step > 0 ? 0 : all.length - 1) : Math.min(all.length - 1, Math.max(0, at + step))];
  if (to) to.focus();
}

function typed(event) { // in the search field or the comment
  if (event.key === "Escape") {
    if (event.target.id === "search") {
      S.query = event.target.value = "";
      draw();
    } else if (event.target.id === "note") noting($("note").value !== "");
    $("text").focus();
  } else if (event.target.id === "search" && event.key === "ArrowDown") move(1);
  else if (event.target.id === "search" && event.key === "Enter") {
    const first = inSight()[0];
    if (S.query.trim() && first !== undefined) {
      choose(first);
      if (S.kind === "multi") {
        S.query = event.target.value = "";
        draw();
      }
    } else if (!S.query.trim()) send();
  } else if (event.target.id === "note" && event.key === "Enter" && (event.ctrlKey || event.metaKey)) $("text").focus();
  else return;
  event.preventDefault();
}

const DEEDS = {
  "?": () => said("unsure"), ".": () => said("skip"), "Backspace": undo, ",": () => noting(true),
  "0": () => { if (!$("all").hidden) showAll(); },
  "/": () => { if (!$("find").hidden) $("search").focus(); else if (!$("all").hidden) { showAll(); if (!$("find").hidden) $("search").focus(); } },
  "ArrowDown": () => move(1), "ArrowUp": () => move(-1),
};

function pressed(event) {
  if (event.isComposing || event.altKey) return;
  if (event.target.matches && event.target.matches("input, textarea")) {
    typed(event);
    return;
  }
  if ((event.ctrlKey || event.metaKey) && event.key === "z") undo();
  else if (event.ctrlKey || event.metaKey) return;
  else if (event.repeat && !event.key.startsWith("Arrow")) return; // a key held down is one answer
  else if (event.key.startsWith("Arrow") && event.target.id === "text") return; // it scrolls
  else if (event.key === "Enter") {
    const other = event.target.closest && event.target.closest("button:not(.label), summary");
    if (other || S.kind === "single") return; // it presses what has the focus
    send();
  } else if ($("work").hidden) {
    if (event.key !== "Backspace") return;
    undo();
  } else if (DEEDS[event.key]) DEEDS[event.key]();
  else {
    const hit = [...$("labels").children].find((one) => one.dataset.key && one.dataset.key === event.key.toLowerCase());
    if (!hit) return;
    choose(Number(hit.dataset.column));
  }
  event.preventDefault();
}

// --- the start -----------------------------------------------------------------------------------------------

async function load() {
  let got = null;
  try {
    got = await ask("/start");
  } catch (error) {
    trouble("The page's server does not answer. Reload once it runs.");
    return;
  }
  if (got.status !== 200) {
    trouble(got.status === 401 ? "Open the address that llmal review printed: this one has no valid token." : String(got.data.error));
    return;
  }
  const first = !S.labels.length;
  S.labels = got.data.labels;
  S.kind = got.data.kind;
  S.done = got.data.done;
  S.left = got.data.left;
  if (first) {
    S.past = got.data.last;
    $("run").textContent = got.data.run + (got.data.person === "someone" ? "" : " · " + got.data.person);
    document.title = "Review " + got.data.run;
    guide();
  }
  S.ahead = got.data.items;
  next();
}

document.addEventListener("keydown", pressed);
document.addEventListener("visibilitychange", () => {
  if (document.hidden) S.awaySince = performance.now();
  else if (S.awaySince) S.away += performance.now() - Math.max(S.awaySince, S.since);
});
addEventListener("beforeunload", (event) => {
  if (S.pending.length) event.preventDefault();
});
$("search").addEventListener("input", () => { S.query = $("search").value; draw(); });
$("all").addEventListener("click", showAll);
$("send").addEventListener("click", send);
$("unsure").addEventListener("click", () => said("unsure"));
$("skip").addEventListener("click", () => said("skip"));
$("undo").addEventListener("click", undo);
$("undo-last").addEventListener("click", undo);
$("comment").addEventListener("click", () => noting($("noting").hidden));

S.token = token();
if (S.token) load();
else trouble("Open the address that llmal review printed: this one has no token.");
