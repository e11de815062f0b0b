// ---------------------------------------------------------------- the camera

let stream = null, recorder = null, timer = 0;

$("camera").addEventListener("click", async () => {
  if (!navigator.mediaDevices || !self.MediaRecorder) {
    say("This browser gives no camera to this page. Browsers allow it only where the page is opened as localhost or by https.");
    return;
  }
  $("camera").disabled = true;
  let opened;
  try {
    opened = await navigator.mediaDevices.getUserMedia({video: {width: {ideal: 640}, height: {ideal: 480}}});
  } catch (error) {
    say(error.name === "NotAllowedError" ? "The browser did not allow the camera." : error.name === "NotFoundError" ? "No camera was found." : `The camera can't be used: ${error.message}.`);
    $("camera").disabled = is_stopped;
    return;
  }
  if (is_stopped) { closeStream(opened); return; }
  stream = opened;
  say("");
  $("preview").srcObject = stream;
  $("preview").play().catch(() => {});
  $("recorder").hidden = false;
  $("drop").classList.add("filming");
  $("recording").textContent = `A recording of up to ${MAX_RECORDING} seconds is scored like a file.`;
  $("record").focus();
});

function closeStream(stream) { stream.getTracks().forEach(track => track.stop()); }

function closeCamera() {
  if (recorder) recorder.stop();
  if (stream) closeStream(stream);
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
start();
