// ---------------------------------------------------------------- choosing and dropping

function addFiles(files) {
  const refused = [];
  for (const file of files) {
    if (file.size > SETTINGS.max_bytes)
      refused.push(`${file.name} has ${megabytes(file.size)}; at most ${megabytes(SETTINGS.max_bytes)} are accepted.`);
    else if (!file.size) refused.push(`${file.name} is empty.`);
    else if (videos.length >= SETTINGS.max_videos) refused.push(`${file.name} is left out: up to ${SETTINGS.max_videos} videos are listed, remove some first.`);
    else videos.push(new Video(file));
  }
  say(refused.join(" "));
  const first = videos.find(video => video.state === "local");
  if (first && !chosen) choose(first);
  upload();
  draw();
}

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
$("overlay").addEventListener("click", () => { chosen.overlay = newJob("local"); upload(); draw(); });
