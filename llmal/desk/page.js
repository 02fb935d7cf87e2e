// The review page: one key a label. Every text, label, name and note reaches the page through textContent alone.
// Sections: what is known; the server; deeds; the text; labels; flags and comments; guidance; disputes; people; keys.
"use strict";

// === what is known ===========================================================================================

const KEYS = "123456789abcdefghijklmnopqrstuvwxyz";
const FEW = 12; // labels above which a search field helps
const PATIENCE_MS = 10000; // for one answer to be kept, before it is sent again
const IDLE_MS = 15000; // between two looks at whether something waits again
const LIVE_MS = 10000; // between two looks at the figures, while they are open
const $ = (id) => document.getElementById(id);

const S = {
  token: "", person: "", several: false, adjudicates: false, labels: [], kind: "single", // of this start
  done: 0, left: 0, mine: 0, disputed: 0, times: [], // progress
  current: null, ahead: [], past: [], pending: [], sending: false, undoing: false, more: 0, ended: false, // deeds
  settling: false, resting: null, disputes: [], settled: [], looking: false, // the disputes, and labelling meanwhile
  picked: new Set(), marks: new Map(), full: false, query: "", drawn: "", scrolled: false, down: false, // on the screen
  spent: 0, since: 0, idle: 0, live: 0, single: true, // clocks; whether single keys work
};

function say(words, kind) {
  $("status").textContent = words;
  $("status").className = kind || "";
}

function trouble(words) {
  if ($("trouble").textContent !== words) $("trouble").textContent = words; // spoken once
  $("trouble").hidden = !words;
}

function made(tag, kind, words) {
  const one = document.createElement(tag);
  if (kind) one.className = kind;
  if (words !== undefined) one.textContent = words;
  return one;
}

function cap(key) { // on a button, whose shortcut a reader is told by itself
  const one = made("kbd", "", key);
  one.setAttribute("aria-hidden", "true");
  return one;
}

function count(n, one, many) {
  return n + " " + (n === 1 ? one : many || one + "s");
}

function named(labels) {
  return labels.join(", ") || "no label";
}

function percent(share) {
  return share === null ? "" : Math.round(100 * share) + "\u00a0%";
}

// === the server ==============================================================================================

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
  } catch (error) {
    return { status: 0, data: { error: "" } }; // no server, or none that speaks JSON
  } finally {
    clearTimeout(timer);
  }
}

async function load() {
  clearTimeout(S.idle);
  const { status, data } = await ask("/start");
  if (status === 401) {
    trouble("Open the address that llmal review printed: this one has no valid token.");
    return;
  }
  if (status !== 200) {
    trouble("The page's server does not answer" + (data.error ? " (" + data.error + ")" : "") + ". Trying again …");
    S.idle = setTimeout(load, IDLE_MS);
    return;
  }
  trouble("");
  if (!S.labels.length) begun(data);
  counted(data);
  coming(data.items);
  if (!S.current && !S.settling && !S.pending.length) next(true);
}

function begun(data) {
  Object.assign(S, { labels: data.labels, kind: data.kind, person: data.person, several: data.several, adjudicates: data.adjudicates, past: data.last });
  $("run").textContent = data.run;
  $("me").textContent = data.person === "someone" ? "" : data.person;
  document.title = "Review " + data.run;
  $("tools").hidden = false;
  guide(data);
}

function counted(data) {
  S.done = data.done;
  S.left = data.left;
  S.mine = data.mine;
  S.disputed = data.disputes;
  progress();
}

function coming(items) {
  const known = new Set(held());
  for (const one of items) if (!known.has(one.item)) S.ahead.push(one);
}

function held() {
  const here = S.settling ? S.resting.current : S.current;
  return [here, ...S.ahead, ...S.pending.map((one) => one.deed)].filter(Boolean).map((one) => one.item);
}

// === deeds: kept one after another ===========================================================================

const STAYS = new Set(["flag", "unflag"]); // the text stays on the screen

function newId() {
  return Array.from(crypto.getRandomValues(new Uint8Array(16)), (b) => b.toString(16).padStart(2, "0")).join("");
}

function does(what, one, more, beside) {
  const deed = { id: newId(), item: one.item, what, ...more };
  S.pending.push({ deed, ...beside });
  return deed.id;
}

async function pump() {
  if (S.sending || S.ended) return;
  S.sending = true;
  let tries = 0;
  while (S.pending.length && !S.ended) {
    const one = S.pending[0], deed = one.deed;
    const have = held().filter((item) => item !== deed.item || STAYS.has(deed.what)).slice(0, 200);
    const { status, data } = await ask("/say", { ...deed, have });
    if (status === 200) {
      tries = 0;
      trouble("");
      S.pending.shift();
      kept(one, data);
    } else if (status === 409 || status === 422) {
      S.pending.shift();
      refused(one, data);
    } else if (status === 401 || status === 400 || status === 403) {
      S.ended = true;
      trouble("Not saved: " + unsaved() + ". The page was started anew: open the address it printed.");
    } else { // the same deed with the same id: kept twice it counts once
      tries += 1;
      trouble("Not saved yet: " + unsaved() + ". Trying again" + (data.error ? " (" + String(data.error) + ")" : "") + " …");
      await new Promise((wake) => setTimeout(wake, Math.min(5000, 200 * 2 ** tries)));
    }
  }
  S.sending = false;
  if (!S.current && !S.undoing && !S.ended) next();
}

function refused(one, data) {
  S.past = S.past.filter((past) => past.id !== one.deed.id);
  S.settled = S.settled.filter((past) => past.id !== one.deed.id);
  S.undoing = false;
  S.more = 0;
  if (one.of) one.of.flagged = one.was;
  if (one.of && one.of === S.current) why();
  say("Not taken: " + String(data.error));
}

function unsaved() {
  return count(S.pending.length, "answer");
}

function kept(one, data) {
  const deed = one.deed;
  if (deed.what === "undo") undone(one, data);
  else if (!S.undoing) say(told(deed, data), "saved");
  coming(data.items);
  counted(data);
}

function told(deed, data) {
  if (deed.what === "skip") return "Skipped: it comes again last";
  if (deed.what === "unsure") return "Noted as not sure";
  if (deed.what === "flag") return "Flagged: the text still waits for its answer";
  if (deed.what === "unflag") return "The flag is taken away";
  if (deed.what === "adjudicate") return "Settled: " + named(deed.labels);
  const words = "Saved: " + named(deed.labels);
  if (!data.machine) return words;
  const sure = data.machine.confidence === null ? "" : " (" + percent(data.machine.confidence) + ")";
  const same = named([...data.machine.labels].sort()) === named([...deed.labels].sort());
  return words + (same ? ". The machine says the same" : ". The machine says: " + named(data.machine.labels)) + sure;
}

function said(what, labels) {
  const one = S.current;
  if (!one || S.ended || S.undoing) return;
  const given = labels || [];
  const more = { labels: given, note: $("note").value, full: S.full, seconds: Math.round(looked()) / 1000 };
  const id = does(S.settling ? "adjudicate" : what, one, more);
  (S.settling ? S.settled : S.past).push({ id, item: one.item, labels: given, one });
  if (what === "answer") S.times.push(performance.now());
  S.current = null;
  next();
  pump();
}

function skip() {
  if (!S.settling) said("skip");
  else if (!S.disputes.length) say("This is the last dispute");
  else if (S.current) {
    S.disputes.push(S.current);
    next();
  }
}

function undo() {
  if (S.undoing) S.more += 1; // once the one under way is on the screen
  const past = S.settling ? S.settled : S.past, last = past[past.length - 1];
  if (!last) say("There is nothing to take back");
  if (!last || S.undoing || S.ended) return;
  past.pop();
  S.undoing = true;
  does("undo", last, { of: last.id }, { labels: last.labels, dispute: S.settling ? last.one : null });
  pump();
}

function undone(one, data) {
  S.undoing = false;
  const again = one.dispute || data.undone, here = S.current;
  if (one.dispute) S.disputes = [here, ...S.disputes].filter(Boolean);
  else S.ahead = [here, ...S.ahead].filter((other) => other && other.item !== one.deed.item);
  if (again) show(again, one.labels);
  else next();
  say("Taken back. Answer it anew.", "saved");
  if (S.more > 0) {
    S.more -= 1;
    undo();
  }
}

// === the text ================================================================================================

function next(loaded) {
  const one = (S.settling ? S.disputes : S.ahead).shift() || null;
  if (one) show(one);
  else if (S.pending.length) return; // whatever comes next comes with the server's word
  else if (S.settling) disputes();
  else if (S.left > 0 && !loaded) load();
  else finished();
}

function show(one, before) {
  S.current = one;
  S.picked = new Set(before || (S.settling ? agreed(one) : S.kind === "multi" && one.guess) || []);
  S.marks = S.settling ? voices(one) : new Map((one.guess || []).map((name) => [name, ("machine " + percent(one.confidence)).trim()]));
  S.full = !one.candidates.length;
  S.query = $("search").value = "";
  $("note").value = "";
  noting(false);
  flagging(false);
  $("work").hidden = false;
  $("done").hidden = true;
  $("text").textContent = one.text;
  if (S.scrolled) $("text").scrollTop = 0; // asked for only then: it costs a layout
  if (S.down) scrollTo(0, 0);
  S.scrolled = S.down = false;
  why();
  wordsOf(S.settling ? one.answers : []);
  if (document.activeElement && document.activeElement.closest("#labels, #search, #accept, #send, #done")) $("text").focus({ preventScroll: true });
  draw();
  S.spent = 0;
  S.since = resting() ? 0 : performance.now();
}

function why() {
  const one = S.current;
  const words = S.settling ? "Two answers or more: yours settles it" : one.why === "audit" ? "Measures quality: drawn at random, shown without any machine's answer" : "Why you: " + one.why;
  $("why").replaceChildren(words, ...one.flags.map((flag) => made("span", "tag", flag)));
  if (flagged()) $("why").append(made("span", "tag flagged", one.flagged ? "Flagged: " + one.flagged : "Flagged"));
  $("flag-words").textContent = flagged() ? "Flagged" : "Flag";
}

function finished() {
  const later = S.several ? "what others leave and what waits later appears here by itself." : "texts that wait then appear here by themselves.";
  const words = count(S.done, "text has", "texts have") + " a person's answer. `llmal run` goes on from them; " + later;
  if ($("done-words").textContent !== words) $("done-words").textContent = words;
  $("undo-last").hidden = !S.past.length;
  if ($("done").hidden) {
    $("work").hidden = true;
    $("done").hidden = false;
    $("done").focus();
  }
  clearTimeout(S.idle);
  S.idle = setTimeout(load, IDLE_MS);
}

function progress() {
  const now = performance.now();
  S.times = S.times.filter((at) => now - at < 300000);
  const minutes = S.times.length > 4 ? (now - S.times[0]) / 60000 : 0;
  const rate = minutes > 0 ? " · " + Math.round((S.times.length - 1) / minutes) + " a minute" : "";
  $("progress-words").textContent = S.done + " done · " + S.left + " left" + (S.several ? " · " + S.mine + " by you" : "") + rate;
  $("progress").max = Math.max(1, S.done + S.left);
  $("progress").value = S.done;
  $("settle").hidden = !S.adjudicates || !(S.several || S.disputed);
  $("settle").disabled = !S.disputed;
  $("settle-words").textContent = "Disputes (" + S.disputed + ")";
  $("settling-words").textContent = "Disputes: " + S.disputed + " left";
}

// The time a text is looked at: not while the page is hidden, nor while something lies over it.

function resting() {
  return document.hidden || document.querySelector("dialog[open]") !== null;
}

function looked() {
  return S.spent + (S.since ? performance.now() - S.since : 0);
}

function clock() {
  S.spent = looked();
  S.since = resting() ? 0 : performance.now();
}

// === labels ==================================================================================================

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
  if (!S.current) return; // a key between two texts
  const columns = inSight();
  const list = columns.join(",");
  if (list !== S.drawn) {
    S.drawn = list;
    $("labels").replaceChildren(...columns.map(button));
  }
  for (const one of $("labels").children) {
    const name = S.labels[one.dataset.column].name, given = S.picked.has(name), by = S.marks.get(name) || "";
    if (S.kind === "multi") one.setAttribute("aria-pressed", String(given));
    else one.classList.toggle("given", given);
    if (one.dataset.by !== by) mark(one, by);
  }
  const multi = S.kind === "multi", n = S.picked.size, { guess, candidates } = S.current, short = candidates.length > 0;
  $("find").hidden = !(S.full && S.labels.length > FEW);
  $("none").hidden = columns.length > 0;
  $("hint").textContent = hint(guess, multi, short);
  $("accept").hidden = multi || guess === null;
  if (!$("accept").hidden) $("accept-words").textContent = "Accept " + machine(guess);
  $("all").hidden = !short || S.full;
  $("all-words").textContent = "Show all " + S.labels.length + " labels";
  $("send").hidden = !multi;
  $("send-words").textContent = n === 0 ? "Save: no label fits" : "Save " + count(n, "label");
  $("unsure").hidden = S.settling;
  $("undo").disabled = !(S.settling ? S.settled : S.past).length;
}

function machine(guess) {
  return "machine: " + (named(guess) + " " + percent(S.current.confidence)).trim();
}

function hint(guess, multi, short) {
  const lines = [];
  if (guess && multi) lines.push("The " + machine(guess) + ".");
  if (short && !S.full) lines.push("The likely labels of " + S.labels.length + "; if none is right, show all.");
  else if (multi) lines.push("Any number of labels, then Enter.");
  return lines.join(" ");
}

function mark(one, by) {
  one.dataset.by = by;
  const old = one.querySelector(".by");
  if (old) old.remove();
  if (by) one.querySelector(".line").append(made("span", "by", by));
}

function button(column, place) {
  const one = made("button", "label"), label = S.labels[column], key = keyOf(column, place), line = made("span", "line");
  one.type = "button";
  one.dataset.column = column;
  one.dataset.key = key;
  one.dataset.by = "";
  if (key) one.setAttribute("aria-keyshortcuts", key);
  line.append(made("bdi", "name", label.name));
  one.append(cap(key), line);
  if (label.description) one.append(made("span", "about", label.description));
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
  if (!S.current) return;
  if (S.kind === "multi") said("answer", S.labels.map((l) => l.name).filter((name) => S.picked.has(name)));
  else if (!$("accept").hidden) said("answer", S.current.guess);
}

function showAll() {
  S.full = true;
  draw();
  say("All " + S.labels.length + " labels are shown");
}

// === flags and comments ======================================================================================

function noting(open) {
  $("noting").hidden = !open;
  $("comment").setAttribute("aria-expanded", String(open));
  if (open) $("note").focus();
}

function flagged() {
  return S.current !== null && typeof S.current.flagged === "string";
}

function flagging(open) {
  $("flagging").hidden = !open;
  $("flag").setAttribute("aria-expanded", String(open));
  if (!open || !S.current) return;
  $("flag-note").value = S.current.flagged || "";
  $("flag-it-words").textContent = flagged() ? "Change the flag" : "Flag this text";
  $("unflag").hidden = !flagged();
  $("flag-note").focus();
}

function flag(what) {
  const one = S.current;
  if (!one || S.ended || S.undoing) return;
  const note = what === "flag" ? $("flag-note").value : "";
  does(what, one, { note }, { of: one, was: one.flagged });
  one.flagged = what === "flag" ? note : null;
  why();
  flagging(false);
  $("text").focus({ preventScroll: true });
  pump();
}

// === guidance: beside the text, open or closed as it was left ================================================

function guide(data) {
  const wide = matchMedia("(min-width: 48.01rem)").matches;
  const meanings = S.labels.flatMap((label) => about(label.name, label.description, label.examples));
  const shown = data.demonstrations.flatMap((one) => about(named(one.labels), "", [one.text]));
  $("guidelines-words").textContent = data.guidelines;
  $("meanings").replaceChildren(...meanings);
  $("examples").replaceChildren(...shown);
  const few = S.labels.length <= FEW && S.labels.some((label) => label.examples.length);
  for (const [id, any, open] of [["guidelines", data.guidelines, true], ["meaning", meanings.length, few], ["shown", shown.length, false]]) {
    const left = sessionStorage.getItem("guide." + id);
    $(id).hidden = !any;
    $(id).open = left === null ? Boolean(open && wide) : left === "open";
    $(id).addEventListener("toggle", () => sessionStorage.setItem("guide." + id, $(id).open ? "open" : "closed"));
  }
  const some = parts();
  $("guide").hidden = !some.length;
  document.body.classList.toggle("guided", Boolean(data.guidelines || shown.length));
  if (some.length) some[0].querySelector("summary").append(cap("-"));
}

function about(name, words, examples) {
  if (!words && !examples.length) return [];
  const rows = [[words, "about"], ...examples.map((example) => [example, "example"])].filter(([line]) => line);
  const lines = rows.map(([line, kind]) => made("dd", kind, line));
  for (const line of lines) line.dir = "auto";
  return [made("dt", "", name), ...lines];
}

function parts() {
  return [...$("guide").querySelectorAll("details:not([hidden])")];
}

function fold() {
  const some = parts(), open = !some.some((one) => one.open);
  if (!some.length) return;
  for (const one of some) one.open = open;
  say(open ? "Guidance is open" : "Guidance is closed");
}

// === disputes: one person's word settles what several said ===================================================

function agreed(one) { // of several labels, those that all gave
  if (S.kind !== "multi" || !one.answers.length) return [];
  return one.answers[0].labels.filter((name) => one.answers.every((answer) => answer.labels.includes(name)));
}

function voices(one) {
  const found = new Map();
  for (const answer of one.answers) {
    for (const name of answer.labels) found.set(name, (found.has(name) ? found.get(name) + ", " : "") + answer.person);
  }
  return found;
}

function wordsOf(answers) {
  $("answers").hidden = !answers.length;
  $("answers").replaceChildren(...answers.map((answer) => {
    const row = made("p", "word");
    row.append(made("bdi", "", answer.person), ": ", named(answer.labels));
    if (answer.note) row.append(made("span", "note", answer.note));
    return row;
  }));
}

async function disputes() {
  if (S.looking) return;
  S.looking = true;
  const { status, data } = await ask("/disputes");
  S.looking = false;
  if (!S.settling) return;
  if (status === 200) S.disputes = data.items.map((one) => ({ ...one, candidates: [], guess: null, confidence: null, flagged: null }));
  if (status === 200 && S.disputes.length) {
    S.disputed = data.left;
    progress();
    next();
    return;
  }
  if (status === 200) S.disputed = 0;
  label();
  say(status === 200 ? "No dispute is left" : "The disputes cannot be read now" + (data.error ? ": " + data.error : ""), status === 200 ? "saved" : "");
}

function settle() {
  if (S.settling || S.undoing || S.ended || $("settle").hidden || $("settle").disabled) return;
  S.resting = { current: S.current, picked: S.picked, full: S.full, note: $("note").value, spent: looked() };
  S.settling = true;
  S.current = null;
  S.disputes = [];
  $("settling").hidden = false;
  say("");
  $("text").focus({ preventScroll: true });
  next();
}

function label() {
  if (!S.settling || S.undoing) return;
  const before = S.resting;
  S.settling = false;
  S.resting = null;
  S.current = null;
  $("settling").hidden = true;
  progress();
  say("");
  if (!before.current) {
    next();
    return;
  }
  show(before.current, before.picked);
  S.full = before.full;
  S.spent = before.spent;
  $("note").value = before.note;
  draw();
  $("text").focus({ preventScroll: true });
}

// === people ==================================================================================================

function over(dialog) {
  if (dialog.open) dialog.close();
  else dialog.showModal();
  clock();
}

function people() {
  over($("people"));
  if ($("people").open) crew();
}

async function crew() {
  clearTimeout(S.live);
  const { status, data } = await ask("/people");
  if (!$("people").open) return;
  if (status === 200) figures(data);
  else $("people-news").replaceChildren(made("p", "news", "The figures cannot be read now" + (data.error ? ": " + data.error : ".")));
  clearTimeout(S.live);
  S.live = setTimeout(crew, LIVE_MS);
}

function figures(data) {
  const news = data.people.filter((one) => one.warning).map((one) => {
    const line = made("p", "news", "Look at the answers of ");
    line.append(made("bdi", "", one.name), ": " + one.warning);
    return line;
  });
  const words = news.map((line) => line.textContent).join("");
  if ($("people-news").textContent !== words) $("people-news").replaceChildren(...news); // spoken once
  $("persons").replaceChildren(...data.people.map(person));
  $("together").replaceChildren(card(["Krippendorff's alpha"], "", data.alpha, ""));
  if (data.overlap.wanted) {
    const row = card(["Texts for several people"], data.overlap.done + " of " + data.overlap.wanted + " have all their answers");
    $("together").append(row);
  }
  $("pairs-title").hidden = !data.kappa.length;
  $("pairs").replaceChildren(...data.kappa.map((one) => card([made("bdi", "", one.a), " and ", made("bdi", "", one.b)], "", one, "")));
}

function person(one) {
  const pace = one.median_seconds === null ? [] : [tenth(one.median_seconds) + " s a text"];
  const settled = one.settled ? [one.settled + " settled"] : [];
  const line = [count(one.words, "answer"), ...settled, Math.round(one.minutes) + " min", ...pace].join(" · ");
  const title = [made("bdi", "", one.name), one.name === S.person ? " (you)" : ""];
  return card(title, line, one.agreement, "Agreement with the others: ");
}

function tenth(seconds) {
  return seconds < 9.95 ? seconds.toFixed(1) : String(Math.round(seconds));
}

// A name, a line, and a figure with its interval; null says that there is too little for one, undefined that none is meant.
function card(name, line, figure, of) {
  const row = made("li", "card"), title = made("p");
  title.append(...name);
  row.append(title);
  if (line) row.append(made("p", figure ? "" : "wide", line));
  if (figure) {
    const words = two(figure.value) + " (95\u00a0%: " + two(figure.low) + " to " + two(figure.high) + "), " + count(figure.n, "text");
    row.append(drawing(figure), made("p", line ? "wide" : "", of + words));
  } else if (figure === null) row.append(made("p", "wide", of + "too few texts with two answers yet"));
  return row;
}

function two(value) {
  return value.toFixed(2).replace("-", "\u2212");
}

function drawing(figure) { // 0 to 1; its words stand beside it
  const space = "http://www.w3.org/2000/svg", at = (value) => 3 + 94 * Math.min(1, Math.max(0, value));
  const part = (tag, kind, more) => {
    const one = document.createElementNS(space, tag);
    if (kind) one.setAttribute("class", kind);
    for (const [name, value] of Object.entries(more)) one.setAttribute(name, String(value));
    return one;
  };
  const all = part("svg", "", { viewBox: "0 0 100 12", "aria-hidden": "true", preserveAspectRatio: "none" });
  all.append(
    part("line", "scale", { x1: 3, x2: 97, y1: 6, y2: 6 }),
    part("line", "range", { x1: at(figure.low), x2: at(figure.high), y1: 6, y2: 6 }),
    part("rect", "value", { x: at(figure.value) - 1, width: 2, y: 0, height: 12 }),
  );
  return all;
}

// === keys ====================================================================================================

function keys() {
  const multi = S.kind === "multi";
  const rows = [
    [S.labels.length > 9 ? ["1", "…", "9", "a", "…"] : ["1", "…", String(S.labels.length)], multi ? "Pick this label, or drop it" : "Answer with this label"],
    [["Enter"], multi ? "Save what is picked" : "Accept the machine's answer, where one is shown"],
    [["⌫"], "Take back the last answer (also Ctrl+Z)"], [["?"], "Not sure: leave it to somebody else"], [["."], "Skip: it comes again last"],
    [["!"], "Flag the text, and say why"], [[","], "Comment"], [["0"], "Show all labels, where a short list is shown"], [["/"], "Search labels, where they are many"],
    [["↑", "↓"], "From label to label"], [["-"], "Open or close the guidance"], [[";"], "People: how far, and how well they agree"],
    [["="], "Disputes: settle what people disagree on"], [["+"], "These keys"], [["Esc"], "Close, or back to the text"],
  ].filter(([[key]]) => key !== "=" || S.adjudicates);
  $("keys-list").replaceChildren(...rows.flatMap(([some, words]) => {
    const row = made("dt");
    row.append(...some.map((key) => made(key === "…" ? "span" : "kbd", "", key)));
    return [row, made("dd", "", words)];
  }));
  over($("keys"));
}

function move(step) {
  const all = [...$("labels").children];
  const at = all.indexOf(document.activeElement);
  const to = all[at < 0 ? (step > 0 ? 0 : all.length - 1) : Math.min(all.length - 1, Math.max(0, at + step))];
  if (to) to.focus();
}

function typed(event) { // in a field
  const id = event.target.id, enter = event.key === "Enter";
  if (event.key === "Escape") {
    if (id === "search") {
      S.query = event.target.value = "";
      draw();
    } else if (id === "note") noting($("note").value !== "");
    else flagging(false);
    $("text").focus();
  } else if (id === "search" && event.key === "ArrowDown") move(1);
  else if (id === "search" && enter && S.query.trim()) {
    const first = inSight()[0];
    if (first !== undefined) choose(first);
    if (S.kind === "multi" && first !== undefined) {
      S.query = event.target.value = "";
      draw();
    }
  } else if (id === "search" && enter) send();
  else if (id === "flag-note" && enter) flag("flag");
  else if (id === "note" && enter && (event.ctrlKey || event.metaKey)) $("text").focus();
  else return;
  event.preventDefault();
}

const DEEDS = {
  "?": () => { if (!S.settling) said("unsure"); }, ".": skip, "Backspace": undo, ",": () => noting(true), "!": () => flagging(true), "-": fold,
  "0": () => { if (!$("all").hidden) showAll(); },
  "/": () => {
    if ($("find").hidden && !$("all").hidden) showAll();
    if (!$("find").hidden) $("search").focus();
  },
};
const ANYWHERE = { ";": people, "=": settle, "+": keys };

function pressed(event) {
  if (event.isComposing || event.altKey) return;
  const at = event.target.closest ? event.target : document.body, key = event.key;
  const open = document.querySelector("dialog[open]");
  if (open) { // Escape closes it by itself
    if (S.single && ((key === ";" && open.id === "people") || (key === "+" && open.id === "keys"))) over(open);
    else return;
  } else if (at.matches("input, textarea")) {
    typed(event);
    return;
  } else if ((event.ctrlKey || event.metaKey) && key === "z") undo();
  else if (event.ctrlKey || event.metaKey) return;
  else if (key.startsWith("Arrow")) {
    if ((key !== "ArrowDown" && key !== "ArrowUp") || at.closest("#text, #guide") || $("work").hidden) return; // it scrolls
    move(key === "ArrowDown" ? 1 : -1);
  } else if (event.repeat) return; // a key held down is one answer
  else if (key === "Escape") {
    if (S.settling) label();
    else $("text").focus();
  } else if (key === "Enter") { // it presses what has the focus, or else sends
    if (at.closest("button:not(.label), summary") || (S.kind === "single" && (at.closest(".label") || $("accept").hidden))) return;
    send();
  } else if (!S.single || $("tools").hidden) return;
  else if (ANYWHERE[key]) ANYWHERE[key]();
  else if ($("work").hidden) {
    if (key !== "Backspace") return;
    undo();
  } else if (DEEDS[key]) DEEDS[key]();
  else {
    const hit = [...$("labels").children].find((one) => one.dataset.key && one.dataset.key === key.toLowerCase());
    if (!hit) return;
    choose(Number(hit.dataset.column));
  }
  event.preventDefault();
}

// === the start ===============================================================================================

const CLICKS = {
  all: showAll, send, accept: send, unsure: () => said("unsure"), skip, undo, "undo-last": undo, comment: () => noting($("noting").hidden),
  flag: () => flagging($("flagging").hidden), "flag-it": () => flag("flag"), unflag: () => flag("unflag"),
  settle, back: label, crew: people, help: keys, "people-close": () => over($("people")), "keys-close": () => over($("keys")),
};
for (const [id, deed] of Object.entries(CLICKS)) $(id).addEventListener("click", () => deed());
for (const dialog of document.querySelectorAll("dialog")) {
  dialog.addEventListener("click", (event) => { if (event.target === dialog) dialog.close(); }); // beside it
  dialog.addEventListener("close", clock);
}
document.addEventListener("keydown", pressed);
document.addEventListener("visibilitychange", clock);
addEventListener("beforeunload", (event) => {
  if (S.pending.length) event.preventDefault();
});
$("text").addEventListener("scroll", () => { S.scrolled = true; }, { passive: true });
addEventListener("scroll", () => { S.down = true; }, { passive: true });
$("search").addEventListener("input", () => { S.query = $("search").value; draw(); });
$("single-keys").addEventListener("change", () => {
  S.single = $("single-keys").checked;
  sessionStorage.setItem("single", S.single ? "on" : "off");
});

S.single = $("single-keys").checked = sessionStorage.getItem("single") !== "off";
S.token = token();
if (S.token) load();
else trouble("Open the address that llmal review printed: this one has no token.");
