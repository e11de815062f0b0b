// ---------------------------------------------------------------- the scores of the chosen video

function drawResult() {
  const video = chosen;
  if (!video) return;
  $("name").textContent = video.name;
  const state = $("state"), n = video.windows.length;
  state.className = video.state === "failed" ? "failed" : video.problem ? "damaged" : "";
  const text = video.state === "done" ? `${counts(video)} ${video.problem}`.trim() : video.state === "running" ? "Scoring …"
    : video.state === "failed" ? video.problem : sentence(video.text);
  setText("state", text);
  $("share").textContent = percent(video);  // not read out
  $("scores").hidden = !n;
  if (!n) return;
  drawMoment();
  $("about-whole").textContent = isCut(video) ? `Until ${clock(video.totals.seconds)}` : "Whole video";
  bars($("whole"), video.means);
  drawMoments(video);
  drawStrips(video);
  drawDownloads(video);
}

const sentence = text => `${text[0].toUpperCase()}${text.slice(1)}${text.endsWith(".") ? "" : "."}`;

// A text that is read out when it changes.
function setText(id, text) {
  if ($(id).textContent !== text) $(id).textContent = text;
}

const isCut = video => video.totals !== null && video.totals.is_cut;

function counts(video) {
  const {seconds, frames} = video.totals, n = video.windows.length;
  return `${isCut(video) ? `Scored until ${clock(seconds)}` : `${clock(seconds)} long`}, ${frames} frames, ${n} ${n === 1 ? "score" : "scores"}.`;
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
  const place = video.at(video.time), window = video.windows[place];
  const is_beyond = isCut(video) && video.time > video.totals.seconds;  // not scored
  $("at").textContent = `At ${clock(video.time)}${is_beyond ? ": not scored" : ""}`;
  bars($("now"), is_beyond ? [] : window.scores.slice(0, 3));
  const still = $("still"), picture = `${home}/videos/${video.id}/${place}.jpg`;
  still.hidden = $("about-still").hidden = !$("player").hidden || is_stopped || is_beyond;
  still.alt = `Frame at ${clock(video.time)}`;
  if (!still.hidden && still.getAttribute("src") !== picture) still.src = picture;
  drawChart(video, is_beyond ? null : window);
  const chart = $("chart"), [label, score] = window.scores[0];
  chart.setAttribute("aria-valuemax", video.windows.length - 1);
  chart.setAttribute("aria-valuenow", place);
  chart.setAttribute("aria-valuetext", `${clock(window.start)} to ${clock(window.end)}: ${LABELS[label]} ${score.toFixed(2)}`);
}

const LEFT = 34, RIGHT = 12, TOP = 8, BOTTOM = 24;

function drawChart(video, now) {
  const chart = $("chart"), width = Math.max(200, chart.clientWidth - 12), height = width < 500 ? 170 : 220;
  const end = video.end || 1, n = video.windows.length;
  const x = time => LEFT + (width - LEFT - RIGHT) * Math.min(1, time / end);
  const y = score => TOP + (height - TOP - BOTTOM) * (1 - score);
  const parts = [];
  if (now) parts.push(`<rect class="part" x="${x(now.start)}" y="${TOP}" width="${Math.max(1, x(now.end) - x(now.start))}" height="${height - TOP - BOTTOM}"/>`);
  for (const score of [0, 0.5, 1]) parts.push(
    `<line class="rule" x1="${LEFT}" x2="${width - RIGHT}" y1="${y(score)}" y2="${y(score)}"/><text x="${LEFT - 7}" y="${y(score) + 4}" text-anchor="end">${score}</text>`);
  for (const time of ticks(end, width)) parts.push(
    `<text x="${x(time)}" y="${height - 6}" text-anchor="${time === 0 ? "start" : "middle"}">${clock(time).replace(/\.0$/, "")}</text>`);
  for (const [label, slot] of [...video.slots].reverse()) {
    const height_of = window => y(window.score_of.get(label) || 0).toFixed(1);
    const points = video.windows.map(window => `${x((window.start + window.end) / 2).toFixed(1)},${height_of(window)}`);
    const [first, last] = [video.windows[0], video.windows[n - 1]];
    points.unshift(`${x(first.start).toFixed(1)},${height_of(first)}`);
    points.push(`${x(last.end).toFixed(1)},${height_of(last)}`);
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
  const list = $("moments"), parts = video.moments;
  if (list.video === video && list.n_windows === video.windows.length) return;
  Object.assign(list, {video, n_windows: video.windows.length});
  const items = parts.slice(0, MAX_MOMENTS).map(part => {
    const button = make("button", {type: "button"}, make("b", {textContent: LABELS[part.label]}), " ",
      make("span", {textContent: `${(part.total / part.n).toFixed(2)}, ${clock(part.start)} to ${clock(part.end)}`}));
    button.style.setProperty("--colour", video.colour(part.label));
    button.addEventListener("click", () => go(part.time));
    return make("li", {}, button);
  });
  if (parts.length > MAX_MOMENTS) items.push(make("li", {className: "more", textContent: `and ${parts.length - MAX_MOMENTS} more`}));
  const focused = [...list.children].findIndex(item => item.contains(document.activeElement));
  list.replaceChildren(...items);
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
  for (const [id, file] of [["json", "scores.json"], ["csv", "scores.csv"], ["mp4", "overlay.mp4"]])
    $(id).href = `${home}/videos/${video.id}/${file}`;
  const overlay = video.overlay, is_idle = ["none", "failed"].includes(overlay.state);
  $("mp4").hidden = overlay.state !== "done";
  $("overlay").hidden = overlay.state === "done";
  $("overlay").disabled = !is_idle;
  const text = {
    none: "", local: overlay.full || "Waiting for the upload.", uploading: "Uploading again.",
    waiting: sentence(placeOf(overlay)), running: "Drawing …",
    done: overlay.problem || "Drawn.", failed: overlay.problem,
  }[overlay.state];
  setText("overlay-state", text);
  $("overlay-share").textContent = percent(overlay);
}
