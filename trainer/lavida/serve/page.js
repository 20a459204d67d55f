"use strict";
(() => {
  const $ = (id) => document.getElementById(id);
  const limit = Number(document.body.dataset.limit), reads = document.body.dataset.reads === "yes";
  const WIDE = 1000, HIGH = 220, POLL_MS = 400;
  let file = null, job = null, timer = 0, sending = null, times = [], scores = [], told = null;
  const anomalies = [];

  const seconds = (value) => value >= 60 ? `${Math.floor(value / 60)}:${(value % 60).toFixed(1).padStart(4, "0")}` : `${value.toFixed(1)} s`;
  const megabytes = (bytes) => bytes < 1e6 ? `${Math.ceil(bytes / 1e3)} kB` : `${(bytes / 1e6).toFixed(1)} MB`;

  function complain(text) {
    $("alert").textContent = text;
    $("alert").hidden = !text;
    if (text) $("alert").scrollIntoView({block: "nearest"});
  }

  // -- what is asked ---------------------------------------------------------------------------------------------

  function choose(given) {
    complain("");
    file = null;
    $("chosen").textContent = "Drop a video here, or choose a file";
    $("weight").textContent = "mp4, avi, mkv, mov or webm";
    if (!given) return;
    if (given.size > limit) {
      complain(`${given.name} is too large: it has ${megabytes(given.size)}, and this page takes ${megabytes(limit)} at most. Cut it, or start lavida serve with a higher --max-mb.`);
      return;
    }
    file = given;
    $("chosen").textContent = given.name;
    $("weight").textContent = megabytes(given.size);
  }

  function add(text) {
    for (const part of text.split(",")) {
      const word = part.trim();
      if (word && !anomalies.includes(word)) anomalies.push(word);
    }
    $("word").value = "";
    list();
  }

  function list() {
    $("chips").replaceChildren(...anomalies.map((word, place) => {
      const item = document.createElement("li"), name = document.createElement("span"), off = document.createElement("button");
      name.textContent = word;
      off.type = "button";
      off.textContent = "\u00d7";
      off.setAttribute("aria-label", `Remove ${word}`);
      off.addEventListener("click", () => { anomalies.splice(place, 1); list(); $("word").focus(); });
      item.append(name, off);
      return item;
    }));
  }

  $("file").addEventListener("change", () => choose($("file").files[0]));
  for (const kind of ["dragenter", "dragover"]) $("drop").addEventListener(kind, (event) => { event.preventDefault(); $("drop").classList.add("over"); });
  for (const kind of ["dragleave", "drop"]) $("drop").addEventListener(kind, () => $("drop").classList.remove("over"));
  $("drop").addEventListener("drop", (event) => { event.preventDefault(); choose(event.dataTransfer.files[0]); });
  $("add").addEventListener("click", () => { add($("word").value); $("word").focus(); });
  $("word").addEventListener("keydown", (event) => { if (event.key === "Enter" && $("word").value.trim()) { event.preventDefault(); add($("word").value); } });
  for (const button of document.querySelectorAll(".example")) button.addEventListener("click", () => add(button.textContent));

  // -- one run ---------------------------------------------------------------------------------------------------

  function busy(on) {
    $("start").disabled = on;
    $("stop").hidden = !on;
  }

  function say(text, done, total) {
    $("status").textContent = text;
    if (total) { $("bar").max = total; $("bar").value = Math.min(done, total); } else $("bar").removeAttribute("value");
  }

  function forget() {
    clearTimeout(timer);
    if (job) fetch(`jobs/${job}`, {method: "DELETE", keepalive: true}).catch(() => {});
    job = null;
  }

  $("ask").addEventListener("submit", (event) => {
    event.preventDefault();
    add($("word").value);
    complain("");
    if (!file) return complain("Choose a video first.");
    if (reads && !anomalies.length) return complain("Say what is anomalous: add a word or a phrase.");
    forget();
    times = []; scores = []; told = null;
    $("result").hidden = false;
    $("done").hidden = true;
    $("overlay").removeAttribute("src");
    $("rule").textContent = "";
    for (const id of ["level", "now"]) $(id).setAttribute("hidden", "");
    $("spans").replaceChildren();
    draw(0);
    busy(true);
    send();
  });

  function send() {
    const asked = new URLSearchParams(anomalies.map((word) => ["anomaly", word]));
    asked.set("name", file.name);
    sending = new XMLHttpRequest();
    sending.open("POST", `jobs?${asked}`);
    sending.upload.addEventListener("progress", (event) => say(`sending: ${megabytes(event.loaded)} of ${megabytes(event.total)}`, event.loaded, event.total));
    sending.addEventListener("load", () => {
      const answer = read(sending);
      if (sending.status !== 201) return fail(answer.error || `The server answered ${sending.status}.`);
      job = answer.id;
      poll();
    });
    sending.addEventListener("error", () => fail("The server did not take the video: is it still running?"));
    sending.addEventListener("abort", () => fail(""));
    sending.send(file);
    say("sending", 0, 0);
  }

  function read(request) {
    try { return JSON.parse(request.responseText); } catch (error) { return {}; }
  }

  function fail(text) {
    busy(false);
    $("result").hidden = !scores.length;
    say("stopped", 0, 1);
    complain(text);
    forget();
  }

  async function poll() {
    const mine = job;
    let state;
    try {
      const answer = await fetch(`jobs/${mine}?since=${scores.length}`);
      state = await answer.json();
      if (!answer.ok) throw new Error(state.error);
    } catch (error) {
      return job === mine ? fail(`The server does not answer: ${error.message}`) : undefined;
    }
    if (job !== mine) return;
    for (const value of state.times) times.push(value);
    for (const value of state.scores) scores.push(value);
    draw(state.length);
    if (state.state === "failed") return fail(state.error);
    if (state.state === "done") return show(state);
    const ahead = state.ahead ? `waiting: ${state.ahead} before this one` : "loading";
    say(state.done ? `${state.done.toLocaleString("en")} frames${state.total ? ` of ${state.total.toLocaleString("en")}` : ""}` : ahead, state.done, state.done ? state.total : 0);
    timer = setTimeout(poll, POLL_MS);
  }

  $("stop").addEventListener("click", () => { if (sending && !job) sending.abort(); else fail("Stopped."); });

  // -- what is found ---------------------------------------------------------------------------------------------

  function draw(length) {
    const last = Math.max(length || 0, times.length ? times[times.length - 1] : 0) || 1;
    const top = Math.max(1e-9, ...highest(scores)), low = Math.min(0, ...scores.slice(0, 1));
    const y = (value) => HIGH - 4 - (HIGH - 10) * (value - low) / (top - low);
    const points = columns(last).map(([x, value]) => `${x.toFixed(1)} ${y(value).toFixed(1)}`);
    $("line").setAttribute("d", points.length ? `M${points.join("L")}` : "");
    $("area").setAttribute("d", points.length ? `M${points[0].split(" ")[0]} ${HIGH}L${points.join("L")}L${points[points.length - 1].split(" ")[0]} ${HIGH}Z` : "");
    $("end").textContent = times.length ? seconds(last) : "";
    $("scale").textContent = scores.length ? `highest score ${top.toPrecision(3)}` : "";
    return {last, y, top};
  }

  function highest(values) {
    let most = 0;
    for (const value of values) if (value > most) most = value;
    return [most];
  }

  // One point a column, the highest in it: no peak is lost.
  function columns(last) {
    const best = new Map();
    times.forEach((time, place) => {
      const x = Math.round(WIDE * time / last * 2) / 2;
      if (!(best.get(x) >= scores[place])) best.set(x, scores[place]);
    });
    return [...best];
  }

  function show(state) {
    busy(false);
    told = state.answer;
    say(`${told.frames.toLocaleString("en")} frames, ${seconds(told.seconds)}`, 1, 1);
    const {last, y, top} = draw(told.seconds);
    told.last = last;
    const level = Math.min(Math.max(y(told.threshold.high), 0), HIGH);
    if (told.threshold.high <= top) {
      for (const end of ["y1", "y2"]) $("level").setAttribute(end, level);
      $("level").removeAttribute("hidden");
    }
    $("rule").textContent = `Threshold ${told.threshold.high.toPrecision(3)}: ${told.threshold.rule}.`;
    $("spans").replaceChildren(...told.intervals.map((found) => {
      const shape = document.createElementNS("http://www.w3.org/2000/svg", "rect");
      const at = {x: WIDE * found.start_s / last, y: 0, width: Math.max(2, WIDE * (found.stop_s - found.start_s) / last), height: HIGH};
      for (const [name, value] of Object.entries(at)) shape.setAttribute(name, value);
      return shape;
    }));
    $("found").textContent = told.intervals.length === 1 ? "1 interval" : `${told.intervals.length} intervals`;
    $("none").hidden = told.intervals.length > 0;
    $("intervals").replaceChildren(...told.intervals.map((found) => {
      const item = document.createElement("li"), button = document.createElement("button"), when = document.createElement("span"), score = document.createElement("span");
      button.type = "button";
      when.textContent = `${seconds(found.start_s)} \u2013 ${seconds(found.stop_s)}`;
      score.textContent = `up to ${found.peak_score.toPrecision(3)}`;
      score.className = "soft";
      button.append(when, score);
      button.addEventListener("click", () => seek(found.start_s));
      item.append(button);
      return item;
    }));
    $("files").replaceChildren(...state.files.map((name) => {
      const link = document.createElement("a");
      link.href = `jobs/${job}/${name}`;
      link.download = name;
      link.textContent = name;
      return link;
    }));
    $("overlay").src = `jobs/${job}/overlay.mp4`;
    $("done").hidden = false;
    $("result").focus({preventScroll: true});
    $("result").scrollIntoView({block: "start"});
  }

  function seek(time) {
    const video = $("overlay");
    if (video.src && Number.isFinite(time)) video.currentTime = Math.max(0, time);
  }

  $("chart").addEventListener("click", (event) => {
    const box = $("chart").getBoundingClientRect();
    if (told) seek((event.clientX - box.left) / box.width * told.last);
  });
  $("overlay").addEventListener("timeupdate", () => {
    if (!told) return;
    const x = WIDE * $("overlay").currentTime / told.last;
    for (const end of ["x1", "x2"]) $("now").setAttribute(end, x);
    $("now").removeAttribute("hidden");
  });
  window.addEventListener("pagehide", forget);
})();
