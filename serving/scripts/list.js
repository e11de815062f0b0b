// ---------------------------------------------------------------- the list of videos

function say(text) { $("note").textContent = text; }

function alarm(text, button) {
  if ($("alarm").text === text) return;  // or it would be read out again
  $("alarm").text = text;
  $("alarm").replaceChildren(text);
  if (button) {
    const reload = make("button", {type: "button", textContent: "Reload the page"});
    reload.addEventListener("click", () => location.reload());
    $("alarm").append(" ", reload);
  }
  $("alarm").hidden = !text;
}

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
    pick.querySelector("span").textContent = `${video.text} ${percent(video)}`.trim();
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
  $("playing").hidden = !(video && video.unplayable);
  player.pause();
  if (!video) { player.removeAttribute("src"); player.load(); draw(); return; }
  player.hidden = video.unplayable;
  if (video.unplayable) player.removeAttribute("src"); else player.src = video.url;
  draw();
}
