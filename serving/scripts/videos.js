"use strict";

const SETTINGS = JSON.parse(document.getElementById("settings").textContent);
const LABELS = SETTINGS.labels;
const N_LINES = 4, MAX_MOMENTS = 40, MAX_RECORDING = 60;
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
const minutesText = n => n === 1 ? "1 minute" : `${Number(n.toPrecision(3))} minutes`;
const later = f => { let asked = false; return () => { if (!asked) { asked = true; requestAnimationFrame(() => { asked = false; f(); }); } }; };


// A part of the video whose windows have the same top label.
class Moment {
  constructor(label, start) {
    Object.assign(this, {label, start, end: start, total: 0, n: 0, best: -1, time: start});
  }

  add(window, score) {
    this.end = window.end;
    this.total += score;
    this.n += 1;
    if (score > this.best) { this.best = score; this.time = (window.start + window.end) / 2; }
  }
}

const newJob = state => ({state, sent: 0, tries: 0, ahead: null, problem: "", full: ""});  // ahead: null until the server says it

function placeOf(job) {
  if (job.ahead === null) return "waiting";
  return job.ahead ? `waiting, ${job.ahead} before it` : "next";
}

// What the server does with a video is its scores, a job, and `overlay`, another one. Their states:
// none, local, uploading, waiting, running, done, failed.
class Video {
  constructor(file) {
    Object.assign(this, newJob("local"));
    this.overlay = newJob("none");
    this.file = file;
    this.name = file.name;
    this.id = [...crypto.getRandomValues(new Uint8Array(16))].map(byte => byte.toString(16).padStart(2, "0")).join("");
    this.url = URL.createObjectURL(file);
    this.windows = [];
    this.means = [];           // [label, score] of the first labels, over all windows
    this.moments = [];
    this.totals = null;
    this.strips = [];
    this.slots = new Map();    // label -> colour of its line
    this.time = 0;             // seconds of the moment that is shown
    this.length = 0;           // seconds, as far as the browser knows
    this.unplayable = false;
    this.request = null;
  }

  get end() {
    const last = this.windows.length ? this.windows[this.windows.length - 1].end : 0;
    return Math.max(last, this.totals ? this.totals.seconds : 0, this.length);
  }

  add(window, means) {
    window.score_of = new Map(window.scores);  // of the first labels; the others are close to 0
    this.windows.push(window);
    this.means = means;
    const [label, score] = window.scores[0];
    if (!this.moments.length || this.moments[this.moments.length - 1].label !== label) this.moments.push(new Moment(label, window.start));
    this.moments[this.moments.length - 1].add(window, score);
    const best = means.slice(0, N_LINES).map(([label]) => label);
    for (const label of this.slots.keys()) if (!best.includes(label)) this.slots.delete(label);
    for (const label of best) {
      if (this.slots.has(label)) continue;
      const used = [...this.slots.values()];
      this.slots.set(label, [1, 2, 3, 4].find(slot => !used.includes(slot)));
    }
  }

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

  get text() {
    if (this.state === "local") return this.full || "waiting for its upload";
    if (this.state === "uploading") return "uploading";
    if (this.state === "waiting") return placeOf(this);
    if (this.state === "failed") return this.problem;
    const top = this.means.length ? `${LABELS[this.means[0][0]]} ${this.means[0][1].toFixed(2)}` : "";
    return this.state === "running" ? (top ? `scoring: ${top}` : "reading") : top;
  }
}

const percent = job => job.state === "uploading" ? `${Math.round(100 * job.sent)}%` : "";

const videos = [];
let chosen = null;
