"use strict";

const MINUTE = 60; // seconds that a chart shows
const LINGER = 5; // seconds that a face which left stays on the page
const QUIET = 2.5; // seconds without a frame until the page says so
const RETRY = 1500; // milliseconds until the page tries to connect again
const element = (id) => document.getElementById(id);
const tracks = new Map(); // key of a face -> {card, times, rows, ...}
let classes = [];
let run = "";
let newest = null;
let source = null;
let paused = false;
let retry = 0;
let drawing = false;

function make(tag, name, text) {
  const made = document.createElement(tag);
  if (name) made.className = name;
  if (text !== undefined) made.textContent = text; // never as HTML: names come from files
  return made;
}

function say(state, text) {
  const status = element("status");
  if (status.textContent !== text) status.textContent = text;
  status.dataset.state = state;
  element("scene").classList.toggle("stale", state === "lost" || state === "waiting");
}

const known = (value) => value !== null && value !== undefined;
const number = (value, digits) => (known(value) ? value.toFixed(digits) : "–");
const percent = (value) => (known(value) ? `${Math.round(value * 100)} %` : "–");

function connect() {
  clearTimeout(retry);
  if (source) source.close();
  source = new EventSource("numbers");
  source.addEventListener("start", (event) => start(JSON.parse(event.data)));
  source.addEventListener("numbers", (event) => update(JSON.parse(event.data)));
  source.onerror = () => {
    source.close();
    const ended = newest && newest.ended;
    say("lost", ended ? `${newest.ended} Waiting for the next.` : "Connection lost. Trying again.");
    retry = setTimeout(connect, RETRY);
  };
}

function start(told) {
  if (told.run !== run) {
    for (const key of [...tracks.keys()]) remove(key);
    newest = null;
  }
  run = told.run;
  classes = told.classes;
  element("about").replaceChildren(
    ...told.about.flatMap(([name, value]) => [make("dt", "", name), make("dd", "", value)]),
  );
  element("summary").textContent = told.about.slice(0, 3).map(([, value]) => value).join(" · ");
  element("summary").hidden = told.about.length === 0;
  element("stored").textContent = told.stored.length
    ? `This run stores: ${told.stored.join(", ")}.`
    : "Nothing is stored; the last minute is kept in memory.";
  for (const past of told.past) {
    const kept = track(`track ${past.track}`, past.track);
    kept.times = past.times;
    kept.rows = past.rows;
  }
  element("picture").src = `pictures?${Date.now()}`;
}

function update(told) {
  newest = told;
  if (!told.frames) say("waiting", told.ended || "Waiting for the first picture");
  else if (told.ended) say("ended", told.ended);
  else if (told.age > QUIET) say("waiting", `No new picture for ${Math.round(told.age)} seconds`);
  else say("live", "Live");
  if (!told.frames) return;
  const picture = element("picture");
  if (picture.width !== told.size[0] || picture.height !== told.size[1]) [picture.width, picture.height] = told.size;
  element("rate").textContent = number(told.rate, 1);
  element("delay").textContent = number(told.delay, 0);
  element("frames").textContent = told.frames.toLocaleString("en");
  element("dropped").textContent = told.dropped.toLocaleString("en");
  stages(told.stages);
  faces(told);
  if (!drawing) {
    drawing = true;
    requestAnimationFrame(draw);
  }
}

function stages(told) {
  const list = element("stages");
  while (list.children.length > told.length) list.lastChild.remove();
  while (list.children.length < told.length) {
    const row = make("li");
    const bar = make("span", "bar");
    bar.append(make("i"));
    row.append(make("span", "name"), bar, make("span", "ms"));
    list.append(row);
  }
  const longest = Math.max(...told.map((stage) => stage.ms || 0), 1e-9);
  told.forEach((stage, at) => {
    const [name, bar, ms] = list.children[at].children;
    name.textContent = stage.name;
    bar.firstChild.style.width = `${((stage.ms || 0) / longest) * 100}%`;
    ms.textContent = `${number(stage.ms, 1)} ms`;
  });
}

function track(key, id) {
  if (tracks.has(key)) return tracks.get(key);
  const card = make("article", "face");
  const title = make("h3");
  const label = make("span");
  const chance = make("span", "chance");
  title.append(label, make("span", "quiet", id === null ? key : `face ${id}`), chance);
  const list = make("ul", "rows");
  const rows = classes.map((name, at) => {
    const row = make("li");
    const [left, right] = [make("span", "name", name), make("span", "value")];
    left.title = name;
    for (const cell of [left, right]) cell.style.gridRow = at + 1;
    row.append(left, right);
    list.append(row);
    return row;
  });
  const frame = make("li", "plot");
  frame.setAttribute("aria-hidden", "true"); // the values stand in the rows as text
  const canvas = make("canvas");
  canvas.style.gridRow = `1 / ${classes.length + 1}`;
  frame.append(canvas);
  if (id !== null) {
    const axis = make("span", "axis");
    axis.append(make("span", "", "1 minute ago"), make("span", "", "now"));
    axis.style.gridRow = classes.length + 1;
    frame.append(axis);
  }
  list.append(frame);
  card.append(title, list);
  const kept = { id, card, label, chance, lines: rows, canvas, times: [], rows: [], shown: -1, seen: -Infinity };
  tracks.set(key, kept);
  return kept;
}

function remove(key) {
  tracks.get(key).card.remove();
  tracks.delete(key);
}

function faces(told) {
  const here = new Set();
  told.faces.forEach((face, at) => {
    const key = face.track === null ? `face ${at + 1}` : `track ${face.track}`;
    here.add(key);
    const kept = track(key, face.track);
    kept.seen = told.time;
    if (kept.times.length && told.time < kept.times[kept.times.length - 1]) kept.times = kept.rows = [];
    if (face.track === null) [kept.times, kept.rows] = [[told.time], [face.row]];
    else if (told.time > (kept.times[kept.times.length - 1] ?? -1)) {
      kept.times = [...kept.times, told.time];
      kept.rows = [...kept.rows, face.row];
    }
    const old = kept.times.findIndex((time) => time >= told.time - MINUTE);
    if (old > 0) [kept.times, kept.rows] = [kept.times.slice(old), kept.rows.slice(old)];
    kept.shown = face.label;
    kept.label.textContent = classes[face.label] ?? "";
    kept.chance.textContent = percent(face.row[face.label]);
    kept.lines.forEach((line, each) => {
      line.classList.toggle("shown", each === face.label);
      line.lastChild.textContent = percent(face.row[each]);
    });
  });
  for (const [key, kept] of tracks) {
    const gone = !here.has(key);
    kept.card.classList.toggle("gone", gone);
    const left = told.time - kept.seen;
    if (gone && kept.rows.length && kept.rows[kept.rows.length - 1].length) {
      kept.times = [...kept.times, told.time];
      kept.rows = [...kept.rows, []]; // the line breaks while the face is out of view
    }
    // Tracks that came with the past but are not in view are kept without a card, should they return.
    if (gone && (kept.id === null || !(left >= 0 && left <= LINGER))) {
      kept.card.remove();
      if (kept.seen > -Infinity || kept.id === null) tracks.delete(key);
    } else if (!kept.card.isConnected) place(kept);
  }
  const none = told.faces.length === 0;
  element("empty").hidden = element("nobody").hidden = !none;
  element("more").hidden = told.more === 0;
  element("more").textContent = told.more === 1 ? "and 1 more face" : `and ${told.more} more faces`;
}

function place(kept) {
  const later = [...tracks.values()].find((other) => other.card.isConnected && other.id > kept.id);
  element("faces").insertBefore(kept.card, later ? later.card : null);
}

function draw() {
  drawing = false;
  const style = getComputedStyle(document.documentElement);
  const colours = Object.fromEntries(["bright", "dim", "line", "track"].map((name) => [name, style.getPropertyValue(`--${name}`)]));
  for (const kept of tracks.values()) if (kept.card.isConnected) chart(kept, colours);
}

// One strip a class, one above the other: its height is the probability, and its name stands beside it, so that no colour
// has to be told from another.
function chart(kept, colours) {
  const { canvas, times, rows } = kept;
  const dense = window.devicePixelRatio || 1;
  const [width, height] = [canvas.clientWidth, canvas.clientHeight];
  if (canvas.width !== Math.round(width * dense)) canvas.width = Math.round(width * dense);
  if (canvas.height !== Math.round(height * dense)) canvas.height = Math.round(height * dense);
  const pen = canvas.getContext("2d");
  pen.setTransform(dense, 0, 0, dense, 0, 0);
  pen.clearRect(0, 0, width, height);
  const strip = height / classes.length;
  const across = (time) => width * (1 - (newest.time - time) / MINUTE);
  classes.forEach((_, each) => {
    const ground = Math.round((each + 1) * strip) - 1.5;
    const up = (value) => ground - value * (strip - 4);
    pen.fillStyle = pen.strokeStyle = each === kept.shown ? colours.bright : colours.dim;
    if (kept.id === null) {
      const value = rows[0] ? rows[0][each] || 0 : 0;
      pen.save();
      pen.fillStyle = colours.track;
      pen.fillRect(0, ground - strip + 7, width, strip - 11);
      pen.restore();
      pen.fillRect(0, ground - strip + 7, width * value, strip - 11);
      return;
    }
    pen.save();
    pen.fillStyle = colours.line;
    pen.fillRect(0, ground, width, 1);
    pen.restore();
    let points = [];
    times.forEach((time, at) => {
      const value = rows[at][each];
      if (known(value)) points.push([across(time), up(value)]);
      else {
        area(pen, points, ground);
        points = [];
      }
    });
    area(pen, points, ground);
  });
}

function area(pen, points, ground) {
  if (points.length < 2) return;
  pen.beginPath();
  points.forEach(([x, y]) => pen.lineTo(x, y));
  pen.lineWidth = 1.5;
  pen.lineJoin = "round";
  pen.stroke();
  pen.lineTo(points[points.length - 1][0], ground);
  pen.lineTo(points[0][0], ground);
  pen.globalAlpha = 0.3;
  pen.fill();
  pen.globalAlpha = 1;
}

function pause() {
  paused = !paused;
  const button = element("pause");
  button.setAttribute("aria-pressed", String(paused));
  button.textContent = paused ? "Resume" : "Pause";
  if (paused) {
    clearTimeout(retry);
    source.close();
    element("picture").src = `picture.jpg?${Date.now()}`; // one still, so that the server sends nothing more
    say("paused", "Paused");
  } else connect();
}

element("pause").addEventListener("click", pause);
document.addEventListener("keydown", (event) => {
  if (event.key !== " " || event.repeat || event.target !== document.body) return;
  event.preventDefault();
  pause();
});
element("picture").addEventListener("error", () => {
  if (paused || element("picture").dataset.retried) return;
  element("picture").dataset.retried = "yes";
  setTimeout(() => {
    delete element("picture").dataset.retried;
    if (!paused) element("picture").src = `pictures?${Date.now()}`;
  }, RETRY);
});
// The token has become a cookie: it need not stand in the address bar and the history.
if (location.search) history.replaceState(null, "", location.pathname);
// After `load`, which a picture without end would hold back.
window.addEventListener("load", connect);
