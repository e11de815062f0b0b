// ---------------------------------------------------------------- the connection to the server

const RETRY = 3000;  // milliseconds
const TRIES = 3;     // more for an upload that breaks off
const NO_ANSWER = "The server does not answer: it was stopped, or the connection is down. Trying again …";
const FOREIGN = "The server takes this page for one of another site. A proxy must pass on the Host header.";
let home = "";         // address of this page's session, below that of the page
let source = null, last_message = "0", is_stopped = false;

// The status of an answer, 0 without one, and what it says.
async function ask(address, options) {
  try {
    const answer = await fetch(address, options);
    let content = {};
    try { content = await answer.json(); } catch (error) { /* of a proxy */ }
    return {...content, status: answer.status};
  } catch (error) { return {status: 0}; }
}

async function start() {
  const answer = await ask("sessions", {method: "POST"});
  if (answer.status !== 201) {
    alarm(answer.error ? `${answer.error} Trying again …` : answer.status === 403 ? FOREIGN : NO_ANSWER);
    setTimeout(start, RETRY);
    return;
  }
  home = answer.session;
  last_message = "0";
  listen();
  upload();
}

function listen() {
  if (source) source.close();
  source = new EventSource(`${home}/events?after=${last_message}`);
  source.onopen = () => alarm("");
  source.onmessage = event => {
    last_message = event.lastEventId;
    const message = JSON.parse(event.data), video = videos.find(video => video.id === message.video);
    if (video) { receive(video, message); draw(); }
  };
  source.addEventListener("stopped", () => stopped("The server was stopped.",
    "The results stay on this page until you close it; to score more videos, start the server again and"));
  source.onerror = () => {
    alarm(NO_ANSWER);
    if (source.readyState === EventSource.CLOSED) findOut();
  };
}

// Whether the server has forgotten this page, or a proxy has lost the server.
async function findOut() {
  const answer = await ask(home);
  if (is_stopped) return;
  if (answer.status !== 404 || !answer.error) setTimeout(listen, RETRY);
  else if (videos.every(video => video.state === "local")) start();
  else stopped("The server no longer knows this page.",
    `It was started again, or this page was not connected for ${SETTINGS.kept_minutes} minutes. To score more videos,`);
}

function receive(video, message) {
  if (message.strips) video.strips = message.strips;
  if (message.window) video.add(message.window, message.means);
  if (message.totals) video.totals = message.totals;
  const job = message.task === "overlay" ? video.overlay : video;
  if (message.state) job.state = message.state;
  if ("ahead" in message) job.ahead = message.ahead;
  if ("problem" in message) job.problem = message.problem;
}

function stopped(problem, remedy) {
  is_stopped = true;
  source.close();
  alarm(`${problem} ${remedy} reload this page.`, true);
  for (const job of [...videos, ...videos.map(video => video.overlay)])
    if (!["none", "done", "failed"].includes(job.state)) Object.assign(job, {state: "failed", problem});
  ["choose", "camera", "record"].forEach(id => { $(id).disabled = true; });
  draw();
}

addEventListener("pagehide", event => { if (home && !is_stopped && !event.persisted) navigator.sendBeacon(`${home}/bye`); });
addEventListener("pageshow", event => { if (home && !is_stopped && event.persisted) listen(); });

// ---------------------------------------------------------------- uploading

let is_sending = false, next_try = 0;

// One at a time, in order; where the queue is full, again later.
async function upload() {
  if (is_sending || is_stopped || !home) return;
  const video = videos.find(video => video.state === "local") || videos.find(video => video.overlay.state === "local");
  if (!video) return;
  const job = video.state === "local" ? video : video.overlay;
  is_sending = true;
  const answer = await ask(home);  // before the video is sent: an answer during an upload may be lost
  if (answer.status === 200 && !answer.full && videos.includes(video) && !is_stopped) { send(video, job); return; }
  is_sending = false;
  if (videos.includes(video)) wait(job, answer.full || ""); else upload();
}

function wait(job, why) {
  if (is_stopped) return;
  Object.assign(job, {state: "local", full: why});
  clearTimeout(next_try);
  next_try = setTimeout(upload, RETRY);
  draw();
}

function send(video, job) {
  const address = `${home}/videos/${video.id}`, request = video.request = new XMLHttpRequest();
  Object.assign(job, {state: "uploading", sent: 0, full: ""});
  request.open("POST", job === video ? `${address}?name=${encodeURIComponent(video.name)}` : `${address}/overlay`);
  request.setRequestHeader("Content-Type", "application/octet-stream");
  request.responseType = "text";
  request.upload.onprogress = event => { if (event.lengthComputable) { job.sent = event.loaded / event.total; draw(); } };
  request.onloadend = () => {
    video.request = null;
    is_sending = false;
    let answer = {};
    try { answer = JSON.parse(request.responseText); } catch (error) { /* not from this server */ }
    if (job.state === "uploading") {  // else messages about it have come first
      if (request.status === 201) job.state = "waiting";
      else if (request.status === 503) { wait(job, answer.error || ""); return; }
      else if (!request.status && job.tries < TRIES) { job.tries += 1; wait(job, "The upload broke off; it will be sent again."); return; }
      else Object.assign(job, {state: "failed", problem: answer.error || (request.status
        ? `The server refused the video (${request.status}).`
        : "The upload broke off: the server does not answer, or the file has changed.")});
    }
    upload();
    draw();
  };
  request.send(video.file);
  draw();
}

function remove(video) {
  const place = videos.indexOf(video);
  videos.splice(place, 1);
  if (video.request) { video.request.onloadend = null; video.request.abort(); video.request = null; is_sending = false; }
  if (video.state !== "local" && !is_stopped) ask(`${home}/videos/${video.id}`, {method: "DELETE", keepalive: true});
  URL.revokeObjectURL(video.url);
  if (chosen === video) choose(videos[Math.min(place, videos.length - 1)] || null);
  upload();
  drawList();
  const next = $("list").children[Math.min(place, videos.length - 1)];
  (next ? next.querySelector(".pick") : $("choose")).focus();
}
