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
