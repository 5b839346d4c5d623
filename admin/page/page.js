"use strict";
const every = 2000; // milliseconds between two looks
const kept = 60; // rates of that many looks make the line

const $ = id => document.getElementById(id);
const set = (id, text) => { const e = $(id); if (e.textContent !== text) e.textContent = text; };
const make = (name, text, className) => {
  const e = document.createElement(name);
  if (text !== undefined) e.textContent = text;
  if (className) e.className = className;
  return e;
};

const whole = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
const short = new Intl.NumberFormat("en", { notation: "compact", maximumFractionDigits: 1 });
const amount = n => (n < 10000 ? whole : short).format(n);
const rate = n => n === null ? "–" : n > 0 && n < 10 ? n.toFixed(1) : amount(n);
const percent = (part, all) => all > 0 ? (Math.floor(1000 * part / all) / 10).toFixed(1) + " %" : "–";
const span = seconds => {
  if (seconds === null) return "–";
  if (seconds === 0) return "0 s";
  if (seconds < 0.001) return amount(seconds * 1e6) + " µs";
  if (seconds < 1) return (seconds * 1e3).toFixed(seconds < 0.01 ? 1 : 0) + " ms";
  if (seconds < 120) return seconds.toFixed(seconds < 10 ? 1 : 0) + " s";
  if (seconds < 7200) return amount(seconds / 60) + " min";
  if (seconds < 172800) return amount(seconds / 3600) + " h";
  return amount(seconds / 86400) + " days";
};
const size = bytes => bytes < 1024 ? bytes + " B" : bytes < 1 << 20 ? amount(bytes / 1024) + " KiB" : amount(bytes / (1 << 20)) + " MiB";

// quantile finds the time within which a share of the observations is, assuming that they are spread evenly in a bucket.
function quantile(share, bounds, counts) {
  const all = counts.reduce((a, b) => a + b, 0);
  if (all === 0) return null;
  let left = share * all;
  for (let i = 0; i < bounds.length; i++) {
    if (left <= counts[i]) {
      const from = i ? bounds[i - 1] : 0;
      return from + (bounds[i] - from) * (counts[i] ? left / counts[i] : 0);
    }
    left -= counts[i];
  }
  return bounds[bounds.length - 1];
}

let before = null; // the look before
let reads = 0;
let rates = [];

function show(now) {
  const seconds = before ? (Date.parse(now.at) - Date.parse(before.at)) / 1000 : 0;
  const same = before && seconds > 0 && now.uptime_seconds >= before.uptime_seconds;
  const perSecond = (f, was = before && f(before)) => same ? Math.max(0, f(now) - was) / seconds : null;

  const state = $("state");
  const [text, look] = now.draining ? ["draining", "warn"] : now.ready ? ["ready", "good"] : ["not ready", "bad"];
  state.className = "chip " + look;
  set("state", text);
  document.title = (look === "good" ? "" : text + " · ") + "keyrow";
  set("about", `${now.version}, up for ${span(now.uptime_seconds)}`);

  const hits = s => s.mappings.reduce((n, m) => n + m.hits, 0);
  const misses = s => s.mappings.reduce((n, m) => n + m.misses, 0);
  const lately = same ? [hits(now) - hits(before), misses(now) - misses(before)] : [0, 0];
  if (lately[0] + lately[1] > 0) {
    set("hits", percent(lately[0], lately[0] + lately[1]));
    set("hits-more", percent(hits(now), hits(now) + misses(now)) + " since the start");
  } else {
    set("hits", percent(hits(now), hits(now) + misses(now)));
    set("hits-more", "since the start");
  }

  const commands = perSecond(s => s.commands.total);
  set("rate", rate(commands));
  if (commands !== null) {
    rates = [...rates, commands].slice(-kept);
    const top = Math.max(...rates, 1);
    $("rate-line").firstElementChild.setAttribute("points", rates.map((r, i) =>
      `${(100 * i / (kept - 1)).toFixed(1)},${(19 - 18 * r / top).toFixed(1)}`).join(" "));
  }

  const c = now.commands;
  let counts = c.latency_counts;
  if (same) {
    const fresh = counts.map((n, i) => n - before.commands.latency_counts[i]);
    if (fresh.some(n => n > 0)) counts = fresh;
  }
  set("p50", span(quantile(0.5, c.latency_bounds_seconds, counts)));
  set("p99", span(quantile(0.99, c.latency_bounds_seconds, counts)));

  const j = now.journal;
  set("pending", amount(j.pending));
  set("pending-more", `of ${amount(j.max_pending)} at most`);
  set("oldest", span(j.oldest_age_seconds));
  set("flush", rate(perSecond(s => s.journal.flushed_rows)));
  set("flush-more", `${j.owned_partitions.length} partitions are ours`);
  set("clients", amount(now.clients.connected));
  set("clients-more", `of ${amount(now.clients.max)}, ${size(now.clients.buffered_bytes)} buffered`);

  showServers(now);
  showMappings(now, same, seconds);
  set("parked-count", j.parked ? `(${amount(j.parked)}${j.lost ? `, ${amount(j.lost)} lost` : ""})` : "");
  before = now;
}

// list brings the children of an element in line with items; what was there stays, and with it the focus.
function list(parent, items, name, fill) {
  while (parent.children.length > items.length) parent.lastElementChild.remove();
  items.forEach((item, i) => {
    const child = parent.children[i] || parent.appendChild(make(name));
    const key = JSON.stringify(item);
    if (child.dataset.shows !== key) {
      child.dataset.shows = key;
      child.replaceChildren(...fill(item));
    }
  });
}

function showServers(now) {
  const r = now.redis, lanes = Object.entries(r.lanes).filter(([, n]) => n).map(([s, n]) => `${n} ${s}`).join(", ");
  const pinned = Object.entries(r.pinned).filter(([, n]) => n).map(([s, n]) => `${n} ${s}`).join(", ");
  const of = name => now.checks.find(c => c.name === name) || {};
  const items = [
    { name: "Redis", addr: r.addr, ok: r.up && !r.breaker_open, text: `shared connections: ${lanes || "none"}` + (pinned ? `; of single clients: ${pinned}` : ""), error: of("redis").error },
    { name: "MySQL", addr: now.mysql.addr, ok: now.mysql.up, text: now.mysql.up ? "rows are read and written" : "rows in Redis are served, and what is written waits", error: of("mysql").error },
    ...now.checks.filter(c => c.name !== "redis" && c.name !== "mysql").map(c => ({ name: c.name, ok: c.ok, text: c.ok ? "" : c.needed ? "keyrow is not ready without" : "", error: c.error })),
  ];
  list($("servers"), items, "li", item => {
    const parts = [make("b", item.name), make("span", item.ok ? "up" : "down", "chip " + (item.ok ? "good" : "bad"))];
    if (item.addr === undefined) parts[1].textContent = item.ok ? "fine" : "look";
    if (item.addr) parts.push(document.createTextNode(" "), make("code", item.addr));
    if (item.text) parts.push(make("p", item.text, "quiet"));
    if (item.error) parts.push(make("p", item.error));
    return parts;
  });
}

function showMappings(now, same, seconds) {
  const was = new Map((same ? before.mappings : []).map(m => [m.name, m]));
  list($("rows"), now.mappings.map(m => {
    const b = was.get(m.name);
    return { ...m, rate: b ? rate(Math.max(0, m.hits + m.misses - b.hits - b.misses) / seconds) : "–" };
  }), "tr", m => {
    const name = make("th", m.name);
    name.scope = "row";
    const key = make("td");
    key.append(make("code", m.key));
    const state = make("td");
    const [text, look] = m.suspended ? ["suspended", "bad"] : m.paused ? ["not written", "bad"] : ["fine", "good"];
    state.append(make("span", text, "chip " + look));
    if (m.suspended) state.append(make("p", m.suspended));
    const numbers = [percent(m.hits, m.hits + m.misses), m.rate, ...[m.hits, m.misses, m.negative_hits, m.fills, m.rejected_fills, m.lease_waits].map(amount)];
    return [name, key, make("td", m.kind + (m.query ? " query" : m.read_only ? ", read only" : "")), state, ...numbers.map(n => make("td", n, "n"))];
  });
}

function showParked(rows, actions) {
  list($("parked"), rows.map(r => ({ ...r, actions })), "li", r => {
    const head = make("div");
    head.append(make("code", r.key), make("span", ` ${r.table}, since ${new Date(r.since).toLocaleString()}, tried ${r.tries === 1 ? "once" : r.tries + " times"}`, "quiet"));
    const parts = [head, make("p", (r.delete ? "Its deletion was refused: " : "") + r.error + (r.code ? ` (${r.code})` : ""))];
    if (actions) {
      const buttons = make("div", undefined, "buttons");
      const retry = make("button", "Retry"), drop = make("button", "Drop…", "danger");
      retry.type = drop.type = "button";
      retry.setAttribute("aria-label", "Retry " + r.key);
      drop.setAttribute("aria-label", "Drop " + r.key);
      retry.onclick = () => act("retry", r, "is tried again");
      drop.onclick = async () => { if (await sure(r.key)) act("drop", r, "was dropped"); };
      buttons.append(retry, drop);
      parts.push(buttons);
    }
    return parts;
  });
}

function sure(key) {
  const dialog = $("sure");
  set("sure-key", key);
  dialog.returnValue = "no";
  dialog.showModal();
  return new Promise(resolve => dialog.addEventListener("close", () => resolve(dialog.returnValue === "yes"), { once: true }));
}

function tell(text, bad) {
  const done = $("done");
  done.className = "notice " + (bad ? "bad" : "good");
  done.hidden = false;
  set("done", text);
}

async function act(what, row, done) {
  try {
    const answer = await fetch("/parked/" + what, { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify({ id: row.id }) });
    if (answer.ok) tell(`${row.key} ${done}.`);
    else tell(`${row.key}: ${(await answer.text()).trim()}`, true);
  } catch (error) {
    tell(`${row.key}: ${error.message}`, true);
  }
  reads = 0;
  look();
}

let paused = false, timer, looking = false;

async function look() {
  clearTimeout(timer);
  if (!looking && !document.hidden) {
    looking = true;
    try {
      const answer = await fetch("/status", { signal: AbortSignal.timeout(10000) });
      if (!answer.ok) throw new Error((await answer.text()).trim() || "answered " + answer.status);
      const now = await answer.json();
      if (now.journal.parked || $("parked").children.length || reads === 0) {
        const parked = await fetch("/parked", { signal: AbortSignal.timeout(10000) });
        if (parked.ok) showParked(await parked.json(), now.actions);
      }
      reads++;
      show(now);
      $("trouble").hidden = true;
    } catch (error) {
      set("trouble", "keyrow does not answer: " + error.message + ". What is shown is from before.");
      $("trouble").hidden = false;
      $("state").className = "chip bad";
      set("state", "no answer");
    }
    looking = false;
  }
  clearTimeout(timer);
  if (!paused) timer = setTimeout(look, every);
}

$("pause").onclick = () => {
  paused = !paused;
  $("pause").setAttribute("aria-pressed", String(paused));
  set("pause", paused ? "Go on" : "Pause");
  look();
};
document.addEventListener("visibilitychange", look);
look();
