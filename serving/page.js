"use strict";

const SETTINGS = JSON.parse(document.getElementById("settings").textContent);
const LABELS = SETTINGS.labels;
const HOME = `/${SETTINGS.session}`;
const N_LINES = 4, N_BARS = 5, MAX_MOMENTS = 40, MAX_RECORDING = 60;
const $ = id => document.getElementById(id);

function make(tag, properties = {}, ...children) {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children);
  return element;
}

function clock(seconds) {
  const tenths = Math.round(seconds * 10), minutes = Math.floor(tenths / 600);
  const rest = ((tenths % 600) / 10).toFixed(1).padStart(4, "0");
  return minutes < 60 ? `${minutes}:${rest}`
    : `${Math.floor(minutes / 60)}:${String(minutes % 60).padStart(2, "0")}:${rest}`;
}

const megabytes = bytes => bytes >= 1e9 ? `${(bytes / 1e9).toFixed(1).replace(".0", "")} GB` : `${Math.max(1, Math.round(bytes / 1e6))} MB`;
const minutesText = n => n === 1 ? "1 minute" : `${n} minutes`;
const later = f => { let asked = false; return () => { if (!asked) { asked = true; requestAnimationFrame(() => { asked = false; f(); }); } }; };

// ---------------------------------------------------------------- videos and what is known of them

class Video {
  constructor(file, name) {
    this.file = file;
    this.name = name;
    this.url = URL.createObjectURL(file);
    this.id = "";              // given by the server
    this.state = "local";      // local, uploading, waiting, running, done, failed
    this.sent = 0;             // share of the upload
    this.ahead = 0;
    this.problem = "";
    this.windows = [];
    this.sums = new Float64Array(LABELS.length);
    this.totals = null;
    this.strips = [];
    this.slots = new Map();    // label -> colour of its line
    this.time = 0;             // seconds of the moment that is shown
    this.length = 0;           // seconds, as far as the browser knows
    this.overlay = {state: "none", problem: "", sent: 0, ahead: 0};
    this.request = null;
  }

  get end() {
    const last = this.windows.length ? this.windows[this.windows.length - 1].end : 0;
    return Math.max(last, this.totals ? this.totals.seconds : 0, this.length);
  }

  add(window) {
    this.windows.push(window);
    window.scores.forEach((score, i) => { this.sums[i] += score; });
    const best = this.ranking(N_LINES);
    for (const label of this.slots.keys()) if (!best.includes(label)) this.slots.delete(label);
    for (const label of best) {
      if (this.slots.has(label)) continue;
      const used = [...this.slots.values()];
      this.slots.set(label, [1, 2, 3, 4].find(slot => !used.includes(slot)));
    }
  }

  ranking(n) {
    return ranked(this.sums).slice(0, n);
  }

  mean(label) { return this.sums[label] / this.windows.length; }

  colour(label) { return `var(--line-${this.slots.get(label) || 5})`; }

  // The window whose centre is nearest to a time.
  at(time) {
    let low = 0, high = this.windows.length - 1;
    const centre = i => (this.windows[i].start + this.windows[i].end) / 2;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (Math.abs(centre(middle + 1) - time) <= Math.abs(centre(middle) - time)) low = middle + 1;
      else high = middle;
    }
    return low;
  }

  // Consecutive windows with the same top label.
  moments() {
    const parts = [];
    for (const window of this.windows) {
      const label = ranked(window.scores)[0], last = parts[parts.length - 1];
      if (last && last.label === label) {
        last.end = window.end; last.total += window.scores[label]; last.n += 1;
        if (window.scores[label] > last.best) { last.best = window.scores[label]; last.time = (window.start + window.end) / 2; }
      } else parts.push({label, start: window.start, end: window.end, total: window.scores[label], n: 1,
                         best: window.scores[label], time: (window.start + window.end) / 2});
    }
    return parts;
  }

  get text() {
    if (this.state === "local") return "waiting for its upload";
    if (this.state === "uploading") return `uploading, ${Math.round(100 * this.sent)}%`;
    if (this.state === "waiting") return this.ahead ? `waiting, ${this.ahead} before it` : "next";
    if (this.state === "failed") return this.problem;
    const best = this.windows.length ? this.ranking(1)[0] : null;
    const top = best === null ? "" : `${LABELS[best]} ${this.mean(best).toFixed(2)}`;
    return this.state === "running" ? (top ? `scoring: ${top}` : "reading") : top;
  }
}

function ranked(scores) {
  return [...scores.keys()].sort((a, b) => scores[b] - scores[a]);
}

const videos = [];
const known = new Map();       // by the server's id
const early = new Map();       // messages that overtook the answer to an upload
let chosen = null, is_stopped = false;

// ---------------------------------------------------------------- adding and uploading

function say(text) { $("note").textContent = text; }

function alarm(text, button) {
  $("alarm").replaceChildren(text);
  if (button) {
    const reload = make("button", {type: "button", textContent: "Reload the page"});
    reload.addEventListener("click", () => location.reload());
    $("alarm").append(" ", reload);
  }
  $("alarm").hidden = !text;
}

function addFiles(files) {
  const refused = [];
  for (const file of files) {
    if (file.size > SETTINGS.max_bytes)
      refused.push(`${file.name} has ${megabytes(file.size)}; at most ${megabytes(SETTINGS.max_bytes)} are accepted.`);
    else if (!file.size) refused.push(`${file.name} is empty.`);
    else videos.push(new Video(file, file.name));
  }
  say(refused.join(" "));
  const first = videos.find(video => video.state === "local");
  if (first && !chosen) choose(first);
  upload();
  draw();
}

// One at a time, in order.
function upload() {
  if (is_stopped || videos.some(video => video.request)) return;
  const next = videos.find(video => video.state === "local");
  if (next) {
    next.state = "uploading";
    send(next, `${HOME}/videos?name=${encodeURIComponent(next.name)}`, share => { next.sent = share; }, answer => {
      next.id = answer.video;
      next.state = "waiting";
      known.set(next.id, next);
      (early.get(next.id) || []).forEach(message => receive(next, message));
      early.delete(next.id);
    }, problem => { next.state = "failed"; next.problem = problem; });
    return;
  }
  const drawn = videos.find(video => video.overlay.state === "local");
  if (!drawn) return;
  const overlay = drawn.overlay;
  overlay.state = "uploading";
  send(drawn, `${HOME}/videos/${drawn.id}/overlay`, share => { overlay.sent = share; }, () => {
    if (overlay.state === "uploading") overlay.state = "waiting";
  }, problem => { overlay.state = "failed"; overlay.problem = problem; });
}

function send(video, url, onShare, onDone, onProblem) {
  const request = video.request = new XMLHttpRequest();
  request.open("POST", url);
  request.setRequestHeader("Content-Type", "application/octet-stream");
  request.responseType = "text";
  request.upload.onprogress = event => { if (event.lengthComputable) { onShare(event.loaded / event.total); draw(); } };
  request.onloadend = () => {
    video.request = null;
    let answer = {};
    try { answer = JSON.parse(request.responseText); } catch (error) { /* not from this server */ }
    if (request.status === 201) onDone(answer);
    else if (request.status) onProblem(answer.error || `The server refused the video (${request.status}).`);
    else onProblem(is_stopped ? "The server was stopped." : "The upload broke off: the server does not answer, or the file has changed.");
    upload();
    draw();
  };
  request.send(video.file);
}

function remove(video) {
  const place = videos.indexOf(video);
  videos.splice(place, 1);
  if (video.request) { video.request.onloadend = null; video.request.abort(); video.request = null; }
  if (video.id && !is_stopped) fetch(`${HOME}/videos/${video.id}`, {method: "DELETE"}).catch(() => {});
  known.delete(video.id);
  URL.revokeObjectURL(video.url);
  if (chosen === video) choose(videos[Math.min(place, videos.length - 1)] || null);
  upload();
  draw();
  const next = $("list").children[Math.min(place, videos.length - 1)];
  (next ? next.querySelector(".pick") : $("choose")).focus();
}

// ---------------------------------------------------------------- messages of the server

function receive(video, message) {
  if (message.strips) video.strips = message.strips;
  if (message.window) video.add(message.window);
  if (message.totals) video.totals = message.totals;
  const target = message.task === "overlay" ? video.overlay : video;
  if (message.state) target.state = message.state;
  if ("ahead" in message) target.ahead = message.ahead;
  if ("problem" in message) target.problem = message.problem;
}

function listen() {
  const source = new EventSource(`${HOME}/events`);
  source.onopen = () => alarm("");
  source.onmessage = event => {
    const message = JSON.parse(event.data), video = known.get(message.video);
    if (video) receive(video, message);
    else early.set(message.video, [...(early.get(message.video) || []), message]);
    draw();
  };
  source.addEventListener("stopped", () => {
    source.close();
    stopped("The server was stopped. The results stay on this page until you close it; to score more videos, start the server again and");
  });
  source.onerror = () => {
    if (source.readyState === EventSource.CLOSED)
      stopped("The server was started again and no longer knows this page. To score more videos,");
    else alarm("The server does not answer: it was stopped, or the connection is down. Trying again …");
  };
}

function stopped(text) {
  is_stopped = true;
  alarm(`${text} reload this page.`, true);
  for (const video of videos) {
    if (!["done", "failed"].includes(video.state)) { video.state = "failed"; video.problem = "The server was stopped."; }
    if (["local", "uploading", "waiting", "running"].includes(video.overlay.state)) { video.overlay.state = "failed"; video.overlay.problem = "The server was stopped."; }
  }
  ["choose", "camera", "record"].forEach(id => { $(id).disabled = true; });
  draw();
}

// ---------------------------------------------------------------- drawing

const draw = later(() => { drawList(); drawResult(); });

function drawList() {
  $("work").hidden = !videos.length;
  document.body.classList.toggle("working", videos.length > 0);
  const rows = new Map([...$("list").children].map(row => [row.video, row]));
  videos.forEach((video, place) => {
    let row = rows.get(video);
    rows.delete(video);
    if (!row) {
      const pick = make("button", {type: "button", className: "pick"}, make("b"), make("span"));
      pick.addEventListener("click", () => choose(video));
      const drop = make("button", {type: "button", className: "drop", textContent: "×", title: "Remove"});
      drop.setAttribute("aria-label", `Remove ${video.name}`);
      drop.addEventListener("click", () => remove(video));
      row = make("li", {}, pick, drop, make("i"));
      row.video = video;
    }
    if ($("list").children[place] !== row) $("list").insertBefore(row, $("list").children[place] || null);
    row.className = `${video.state} ${video === chosen ? "chosen" : ""}`;
    const pick = row.querySelector(".pick");
    pick.querySelector("b").textContent = video.name;
    pick.querySelector("span").textContent = video.text;
    pick.setAttribute("aria-current", video === chosen);
    const bar = row.querySelector("i");
    const share = video.state === "uploading" ? video.sent
      : video.state === "running" && video.windows.length && video.length ? Math.min(1, video.windows[video.windows.length - 1].end / video.length) : 0;
    bar.style.setProperty("--v", share);
    bar.className = video.state === "running" && !share ? "busy" : "";
  });
  rows.forEach(row => row.remove());
}

function choose(video) {
  chosen = video;
  const player = $("player");
  $("playing").hidden = true;
  player.pause();
  if (!video) { player.removeAttribute("src"); player.load(); draw(); return; }
  player.hidden = video.unplayable === true;
  if (video.unplayable) player.removeAttribute("src"); else player.src = video.url;
  draw();
}

function drawResult() {
  const video = chosen;
  if (!video) return;
  $("name").textContent = video.name;
  const state = $("state"), n = video.windows.length;
  state.className = video.state === "failed" ? "failed" : video.problem ? "damaged" : "";
  const counts = video.totals ? `${clock(video.totals.seconds)} long, ${video.totals.frames} frames, ${n} ${n === 1 ? "score" : "scores"}. ` : "";
  const text = video.state === "done" ? counts + video.problem : video.state === "running" ? "Scoring …"
    : video.state === "failed" ? video.problem : `${video.text[0].toUpperCase()}${video.text.slice(1)}.`;
  if (state.textContent !== text) state.textContent = text;
  $("scores").hidden = !n;
  if (!n) return;
  drawMoment();
  bars($("whole"), video.ranking(N_BARS).map(label => [label, video.mean(label)]));
  drawMoments(video);
  drawStrips(video);
  drawDownloads(video);
}

function bars(list, rows) {
  while (list.children.length > rows.length) list.lastChild.remove();
  rows.forEach(([label, score], i) => {
    const row = list.children[i] || list.appendChild(make("li", {},
      make("span", {className: "label"}), make("span", {className: "score"}), make("span", {className: "bar"}, make("i"))));
    row.children[0].textContent = row.children[0].title = LABELS[label];
    row.children[1].textContent = score.toFixed(3);
    row.style.setProperty("--v", score);
    row.style.setProperty("--colour", chosen.colour(label));
  });
}

// What depends on the moment that is shown.
function drawMoment() {
  const video = chosen;
  if (!video || !video.windows.length) return;
  const window = video.windows[video.at(video.time)];
  $("at").textContent = `At ${clock(video.time)}`;
  bars($("now"), ranked(window.scores).slice(0, Math.min(N_BARS, 3)).map(label => [label, window.scores[label]]));
  const still = $("still"), player = $("player");
  still.hidden = !player.hidden;
  if (!still.hidden) { still.src = window.picture; still.alt = `Frame at ${clock(video.time)}`; }
  drawChart(video, window);
  const chart = $("chart"), best = ranked(window.scores)[0];
  chart.setAttribute("aria-valuemax", video.windows.length - 1);
  chart.setAttribute("aria-valuenow", video.at(video.time));
  chart.setAttribute("aria-valuetext", `${clock(window.start)} to ${clock(window.end)}: ${LABELS[best]} ${window.scores[best].toFixed(2)}`);
}

const LEFT = 34, RIGHT = 12, TOP = 8, BOTTOM = 24;

function drawChart(video, now) {
  const chart = $("chart"), width = Math.max(200, chart.clientWidth - 12), height = width < 500 ? 170 : 220;
  const end = video.end || 1, n = video.windows.length;
  const x = time => LEFT + (width - LEFT - RIGHT) * Math.min(1, time / end);
  const y = score => TOP + (height - TOP - BOTTOM) * (1 - score);
  const parts = [`<rect class="part" x="${x(now.start)}" y="${TOP}" width="${Math.max(1, x(now.end) - x(now.start))}" height="${height - TOP - BOTTOM}"/>`];
  for (const score of [0, 0.5, 1]) parts.push(
    `<line class="rule" x1="${LEFT}" x2="${width - RIGHT}" y1="${y(score)}" y2="${y(score)}"/><text x="${LEFT - 7}" y="${y(score) + 4}" text-anchor="end">${score}</text>`);
  for (const time of ticks(end, width)) parts.push(
    `<text x="${x(time)}" y="${height - 6}" text-anchor="${time === 0 ? "start" : "middle"}">${clock(time).replace(/\.0$/, "")}</text>`);
  for (const [label, slot] of [...video.slots].reverse()) {
    const points = video.windows.map(window => `${x((window.start + window.end) / 2).toFixed(1)},${y(window.scores[label]).toFixed(1)}`);
    const [first, last] = [video.windows[0], video.windows[n - 1]];
    points.unshift(`${x(first.start).toFixed(1)},${y(first.scores[label]).toFixed(1)}`);
    points.push(`${x(last.end).toFixed(1)},${y(last.scores[label]).toFixed(1)}`);
    parts.push(`<polyline class="line" stroke="var(--line-${slot})" points="${points.join(" ")}"/>`);
  }
  parts.push(`<line class="cursor" x1="${x(video.time)}" x2="${x(video.time)}" y1="${TOP - 4}" y2="${height - BOTTOM}"/>`);
  // Only numbers and colours of this script: names of labels and videos never become markup.
  chart.innerHTML = `<svg viewBox="0 0 ${width} ${height}" aria-hidden="true" focusable="false">${parts.join("")}</svg>`;
}

function ticks(end, width) {
  const steps = [0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 1200, 1800, 3600];
  const step = steps.find(size => end / size <= width / 70) || 7200;
  return Array.from({length: Math.floor(end / step) + 1}, (_, i) => i * step).filter(time => time <= end * 0.985 || time === 0);
}

function drawMoments(video) {
  const parts = video.moments(), key = `${videos.indexOf(video)}/${video.windows.length}`;
  if ($("moments").dataset.key === key) return;
  $("moments").dataset.key = key;
  const items = parts.slice(0, MAX_MOMENTS).map(part => {
    const button = make("button", {type: "button"}, make("b", {textContent: LABELS[part.label]}), " ",
      make("span", {textContent: `${(part.total / part.n).toFixed(2)}, ${clock(part.start)} to ${clock(part.end)}`}));
    button.style.setProperty("--colour", video.colour(part.label));
    button.addEventListener("click", () => go(part.time));
    return make("li", {}, button);
  });
  if (parts.length > MAX_MOMENTS) items.push(make("li", {className: "more", textContent: `and ${parts.length - MAX_MOMENTS} more`}));
  const focused = [...$("moments").children].findIndex(item => item.contains(document.activeElement));
  $("moments").replaceChildren(...items);
  if (focused >= 0 && items[focused]) items[focused].querySelector("button")?.focus();
}

function drawStrips(video) {
  $("counted").hidden = !video.strips.length;
  if (!video.strips.length || $("strips").video === video) return;
  $("strips").video = video;
  const hot = video.strips.some(strip => strip.heat);
  $("about-frames").textContent = "For each label, the part of the video where it scored highest." +
    (hot ? " Bright areas contributed most to the score (Grad-CAM); the bar below a frame shows its mean heat." : "");
  $("strips").replaceChildren(...video.strips.map(strip => {
    const go_there = make("button", {type: "button", textContent: `Go to ${clock(strip.start)}`});
    go_there.addEventListener("click", () => { go((strip.start + strip.end) / 2); $("name").scrollIntoView({block: "start"}); });
    const caption = make("figcaption", {}, make("span", {}, make("b", {textContent: strip.label}), ` ${strip.score.toFixed(3)}, ${clock(strip.start)} to ${clock(strip.end)}`), go_there);
    const pictures = make("div", {className: "pictures"});
    for (const [src, alt] of [[strip.frames, strip.frames_alt], [strip.heat, strip.heat_alt]])
      if (src) pictures.append(make("img", {src, alt, width: strip.size[0], height: strip.size[1]}));
    return make("figure", {className: "card"}, caption, pictures);
  }));
}

function drawDownloads(video) {
  $("downloads").hidden = video.state !== "done" || is_stopped;
  if (video.state !== "done") return;
  $("json").href = `${HOME}/videos/${video.id}/scores.json`;
  $("csv").href = `${HOME}/videos/${video.id}/scores.csv`;
  $("mp4").href = `${HOME}/videos/${video.id}/overlay.mp4`;
  const overlay = video.overlay, is_idle = ["none", "failed"].includes(overlay.state);
  $("mp4").hidden = overlay.state !== "done";
  $("overlay").hidden = overlay.state === "done";
  $("overlay").disabled = !is_idle;
  const text = {
    none: "", local: "Waiting for the upload.", uploading: `Uploading again, ${Math.round(100 * overlay.sent)}%.`,
    waiting: overlay.ahead ? `Waiting, ${overlay.ahead} before it.` : "Next.", running: "Drawing …",
    done: overlay.problem || "Drawn.", failed: overlay.problem,
  }[overlay.state];
  if ($("overlay-state").textContent !== text) $("overlay-state").textContent = text;
}

// ---------------------------------------------------------------- going to a moment

function go(time) {
  if (!chosen) return;
  chosen.time = Math.max(0, Math.min(time, chosen.end));
  const player = $("player");
  if (!player.hidden && player.readyState) player.currentTime = Math.min(chosen.time, Number.isFinite(player.duration) ? player.duration : chosen.time);
  drawMoment();
}

function pointed(event) {
  const box = $("chart").querySelector("svg").getBoundingClientRect();
  go(chosen.end * (event.clientX - box.left - LEFT) / (box.width - LEFT - RIGHT));
}

$("chart").addEventListener("pointerdown", event => { $("chart").setPointerCapture(event.pointerId); pointed(event); });
$("chart").addEventListener("pointermove", event => { if (event.buttons) pointed(event); });
$("chart").addEventListener("keydown", event => {
  if (!chosen || event.ctrlKey || event.altKey || event.metaKey) return;
  const n = chosen.windows.length, now = chosen.at(chosen.time);
  const place = {ArrowRight: now + 1, ArrowUp: now + 1, ArrowLeft: now - 1, ArrowDown: now - 1, PageUp: now + 10, PageDown: now - 10, Home: 0, End: n - 1}[event.key];
  if (place === undefined) return;
  event.preventDefault();
  const window = chosen.windows[Math.max(0, Math.min(n - 1, place))];
  go((window.start + window.end) / 2);
});
new ResizeObserver(later(drawMoment)).observe($("chart"));

const player = $("player");
player.addEventListener("timeupdate", () => { if (chosen && !player.seeking && !player.paused) { chosen.time = player.currentTime; drawMoment(); } });
player.addEventListener("seeked", () => { if (chosen && !chosen.measuring && document.activeElement === player) { chosen.time = player.currentTime; drawMoment(); } });
player.addEventListener("loadedmetadata", () => {
  if (!chosen) return;
  if (!player.videoWidth) { unplayable(); return; }
  if (player.duration === Infinity) { chosen.measuring = true; player.currentTime = 1e7; return; }  // a recording says its length only when read to its end
  chosen.length = player.duration;
  if (chosen.time) player.currentTime = chosen.time;
  draw();
});
player.addEventListener("durationchange", () => {
  if (!chosen || !chosen.measuring || !Number.isFinite(player.duration)) return;
  chosen.measuring = false;
  chosen.length = player.duration;
  player.currentTime = chosen.time;
  draw();
});
player.addEventListener("error", () => { if (player.hasAttribute("src")) unplayable(); });

function unplayable() {
  if (!chosen) return;
  chosen.unplayable = true;
  player.removeAttribute("src");
  player.hidden = true;
  $("playing").hidden = false;
  draw();
}

// ---------------------------------------------------------------- choosing and dropping

$("choose").addEventListener("click", () => $("files").click());
$("files").addEventListener("change", () => { addFiles([...$("files").files]); $("files").value = ""; });
let n_over = 0;
const has_files = event => event.dataTransfer && [...event.dataTransfer.types].includes("Files");
addEventListener("dragenter", event => { if (has_files(event)) { n_over += 1; $("drop").classList.add("over"); event.preventDefault(); } });
addEventListener("dragleave", event => { if (has_files(event)) { n_over = Math.max(0, n_over - 1); if (!n_over) $("drop").classList.remove("over"); } });
addEventListener("dragover", event => { if (has_files(event)) { event.preventDefault(); event.dataTransfer.dropEffect = is_stopped ? "none" : "copy"; } });
addEventListener("drop", event => {
  if (!has_files(event)) return;
  event.preventDefault();
  n_over = 0;
  $("drop").classList.remove("over");
  if (is_stopped) return;
  const items = [...event.dataTransfer.items].filter(item => item.kind === "file");
  const folders = items.filter(item => item.webkitGetAsEntry && item.webkitGetAsEntry()?.isDirectory).length;
  addFiles(items.filter(item => !(item.webkitGetAsEntry && item.webkitGetAsEntry()?.isDirectory)).map(item => item.getAsFile()).filter(Boolean));
  if (folders) say("Folders are not read: drop the videos in them.");
});
$("overlay").addEventListener("click", () => { chosen.overlay = {state: "local", problem: "", sent: 0, ahead: 0}; upload(); draw(); });

// ---------------------------------------------------------------- the camera

let stream = null, recorder = null, timer = 0;

$("camera").addEventListener("click", async () => {
  if (!navigator.mediaDevices || !self.MediaRecorder) {
    say("This browser gives no camera to this page. Browsers allow it only where the page is opened as localhost or by https.");
    return;
  }
  try {
    stream = await navigator.mediaDevices.getUserMedia({video: {width: {ideal: 640}, height: {ideal: 480}}});
  } catch (error) {
    say(error.name === "NotAllowedError" ? "The browser did not allow the camera." : error.name === "NotFoundError" ? "No camera was found." : `The camera can't be used: ${error.message}.`);
    return;
  }
  say("");
  $("preview").srcObject = stream;
  $("preview").play().catch(() => {});
  $("recorder").hidden = false;
  $("drop").classList.add("filming");
  $("camera").disabled = true;
  $("recording").textContent = `A recording of up to ${MAX_RECORDING} seconds is scored like a file.`;
  $("record").focus();
});

function closeCamera() {
  if (recorder) recorder.stop();
  if (stream) stream.getTracks().forEach(track => track.stop());
  stream = null;
  $("preview").srcObject = null;
  $("recorder").hidden = true;
  $("drop").classList.remove("filming");
  $("camera").disabled = is_stopped;
}

$("close-camera").addEventListener("click", () => { closeCamera(); $("camera").focus(); });
$("record").addEventListener("click", () => {
  if (recorder) { recorder.stop(); return; }
  const type = ["video/webm;codecs=vp8", "video/webm", "video/mp4"].find(type => MediaRecorder.isTypeSupported(type));
  const parts = [], began = Date.now();
  recorder = new MediaRecorder(stream, {...(type ? {mimeType: type} : {}), videoBitsPerSecond: 2500000});
  recorder.ondataavailable = event => { if (event.data.size) parts.push(event.data); };
  recorder.onstop = () => {
    clearInterval(timer);
    const kind = recorder.mimeType.split(";")[0] || "video/webm", now = new Date(began);
    recorder = null;
    $("record").textContent = "Record";
    $("recording").textContent = "";
    $("recording").classList.remove("live");
    const time = [now.getHours(), now.getMinutes(), now.getSeconds()].map(n => String(n).padStart(2, "0")).join(".");
    addFiles([new File(parts, `camera ${time}.${kind.endsWith("mp4") ? "mp4" : "webm"}`, {type: kind})]);
    if (videos.length) choose(videos[videos.length - 1]);
  };
  recorder.start(500);
  $("record").textContent = "Stop and score";
  $("recording").classList.add("live");
  const show = () => {
    const seconds = (Date.now() - began) / 1000;
    $("recording").textContent = `Recording, ${Math.floor(seconds)} s`;
    if (seconds >= MAX_RECORDING && recorder) recorder.stop();
  };
  show();
  timer = setInterval(show, 500);
});

$("limits").textContent = `Up to ${megabytes(SETTINGS.max_bytes)} and ${minutesText(SETTINGS.max_minutes)} of computing each, one after another. ` +
  "Uploads are deleted as soon as they are scored, results when you close the page.";
listen();
