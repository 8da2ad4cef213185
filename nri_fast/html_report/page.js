// Draws the graphs over the trajectories, and lets a reader step through them. No library, no network.
"use strict";
(function () {
  const source = document.getElementById("graph-data");
  if (!source) return;
  const data = JSON.parse(source.textContent);
  const at = (id) => document.getElementById(id);
  const WIDTH = 640, HEIGHT = 480, MARGIN = 34, BEND = 0.12;
  const SPATIAL = data.plane && data.features.length === 3;
  const entityColour = (k) => `var(--c${k % 8})`;
  const escaped = (text) => String(text).replace(/[&<>"]/g, (c) => `&#${c.charCodeAt(0)};`);
  const percent = (p) => (100 * p).toFixed(p < 0.9995 && p > 0.995 ? 2 : 1) + " %";

  const shown = data.types.map((type) => type.shown);
  let system, step = 0, timer = null;

  // Places on the stage -------------------------------------------------------------------------------------------

  function onCircle(k, count) {
    const angle = Math.PI / 2 - (2 * Math.PI * k) / count;
    return [WIDTH / 2 + 185 * Math.cos(angle), HEIGHT / 2 - 185 * Math.sin(angle)];
  }

  // Across and up: x and y; in space seen from the side, turned about the axis y.
  function seen(k, t) {
    const states = system.states;
    if (states[0][k][t] === null) return null;  // absent
    if (!SPATIAL) return [states[0][k][t], states[1][k][t]];
    const angle = (Number(at("turn").value) * Math.PI) / 180;
    const x = states[0][k][t] - system.middle[0], z = states[2][k][t] - system.middle[2];
    return [x * Math.cos(angle) + z * Math.sin(angle), states[1][k][t] + 0.25 * (z * Math.cos(angle) - x * Math.sin(angle))];
  }

  function extent(values) {
    let low = Infinity, high = -Infinity;
    for (const row of values) for (const value of row) if (value !== null) { low = Math.min(low, value); high = Math.max(high, value); }
    return [low, high];
  }

  // One scale for a whole system, so that nothing jumps while one steps through it.
  function fitted() {
    const count = system.entities.length, moments = system.moments.length, all = [[], []];
    for (let k = 0; k < count; k++) {
      for (let t = 0; t < moments; t++) {
        const p = seen(k, t);
        if (p) { all[0].push(p[0]); all[1].push(p[1]); }
      }
    }
    const [left, right] = extent([all[0]]), [low, high] = extent([all[1]]);
    const scale = Math.min((WIDTH - 2 * MARGIN) / (right - left || 1), (HEIGHT - 2 * MARGIN) / (high - low || 1));
    return (p) => p && [WIDTH / 2 + scale * (p[0] - (left + right) / 2), HEIGHT / 2 - scale * (p[1] - (low + high) / 2)];
  }

  // Drawing -------------------------------------------------------------------------------------------------------

  function edgesShown() {
    const e = system.edges, least = Number(at("least").value) / 100, kept = [];
    for (let k = 0; k < e.from.length; k++) if (shown[e.type[k]] && e.p[k] >= least) kept.push(k);
    return kept;
  }

  function arrow(k, places, thin) {
    const e = system.edges, a = places[e.from[k]], b = places[e.to[k]], type = data.types[e.type[k]];
    const dx = b[0] - a[0], dy = b[1] - a[1], length = Math.hypot(dx, dy) || 1;
    const control = [(a[0] + b[0]) / 2 - BEND * dy, (a[1] + b[1]) / 2 + BEND * dx];
    // Ends at the rim of the receiver, coming from the control point.
    const ux = b[0] - control[0], uy = b[1] - control[1], way = Math.hypot(ux, uy) || 1, x = ux / way, y = uy / way;
    const gap = Math.min(10, length / 3), tip = [b[0] - gap * x, b[1] - gap * y];
    const size = Math.min(thin ? 7 : 10, length / 3), back = [tip[0] - size * x, tip[1] - size * y], half = 0.42 * size;
    const sure = data.even < 1 ? Math.max(0, (e.p[k] - data.even) / (1 - data.even)) : 1;
    const round = (v) => v.toFixed(1);
    let svg = `<g opacity="${(0.12 + 0.88 * sure).toFixed(2)}" data-edge="${k}"><title>${escaped(system.entities[e.from[k]])} → ` +
      `${escaped(system.entities[e.to[k]])}: ${escaped(type.name)}, ${percent(e.p[k])}</title>` +
      `<path d="M${round(a[0])} ${round(a[1])}Q${round(control[0])} ${round(control[1])} ${round(back[0])} ${round(back[1])}" ` +
      `fill="none" stroke="var(${type.colour})" stroke-width="${thin ? 1.3 : 2.4}"/>` +
      `<path d="M${round(tip[0])} ${round(tip[1])}L${round(back[0] - half * y)} ${round(back[1] + half * x)}` +
      `L${round(back[0] + half * y)} ${round(back[1] - half * x)}Z" fill="var(${type.colour})"/></g>`;
    if (data.labelled && at("wrong").checked && e.wrong[k]) {
      const cx = (a[0] + 2 * control[0] + b[0]) / 4, cy = (a[1] + 2 * control[1] + b[1]) / 4;
      svg += `<path d="M${round(cx - 5)} ${round(cy - 5)}l10 10m0 -10l-10 10" stroke="var(--alarm)" stroke-width="2.5"/>`;
    }
    return svg;
  }

  // A line through points, broken where one is missing.
  function drawn(points) {
    return points.map((p, t) => p ? `${t && points[t - 1] ? "L" : "M"}${p[0].toFixed(1)} ${p[1].toFixed(1)}` : "").join("");
  }

  function draw() {
    const count = system.entities.length, kept = edgesShown(), parts = [];
    let places;
    if (data.plane) {
      const fit = fitted(), moments = system.moments.length;
      for (let k = 0; k < count; k++) {
        const path = Array.from({length: moments}, (_, t) => fit(seen(k, t)));
        const line = (points, width, opacity) => `<path d="${drawn(points)}" fill="none" ` +
          `stroke="var(--faint)" stroke-width="${width}" opacity="${opacity}" stroke-linejoin="round"/>`;
        parts.push(line(path, 1.2, 0.6), line(path.slice(0, step + 1), 4, 0.4));
      }
      places = system.entities.map((_, k) => fit(seen(k, step)));
    } else places = system.entities.map((_, k) => onCircle(k, count));
    for (const k of kept) {
      if (places[system.edges.from[k]] && places[system.edges.to[k]]) parts.push(arrow(k, places, kept.length > 40));
    }
    const named = count <= 16;
    places.forEach((place, k) => {
      if (!place) return;
      const [x, y] = place;
      const name = escaped(system.entities[k]);
      parts.push(`<circle cx="${x.toFixed(1)}" cy="${y.toFixed(1)}" r="${named ? 7 : 4.5}" fill="${data.plane ? "var(--ink)" : entityColour(k)}" ` +
        `stroke="var(--paper)" stroke-width="1.5"><title>${name}</title></circle>`);
      if (named) parts.push(`<text class="name" x="${(x + 10).toFixed(1)}" y="${(y - 8).toFixed(1)}">${name}</text>`);
    });
    at("stage").innerHTML = parts.join("");
    at("moment").textContent = String(system.moments[step]);
    at("least-shown").textContent = at("least").value + " %";
    const left = system.edgesLeftOut ? `; ${system.edgesLeftOut} less sure ones are not in this page` : "";
    at("told").textContent = `${kept.length} of ${system.edges.from.length} edges shown${left}.`;
    if (!data.plane) drawSeries();
    if (at("edges").open) fillTable(kept);
  }

  function drawSeries() {
    const rows = system.states[Number(at("feature").value) || 0], moments = system.moments.length;
    const [low, high] = extent(rows), last = Math.max(1, moments - 1);
    const x = (t) => 46 + (560 * t) / last, y = (v) => 168 - (150 * (v - low)) / (high - low || 1);
    const parts = rows.map((row, k) => `<path d="${drawn(row.map((v, t) => v === null ? null : [x(t), y(v)]))}" ` +
      `fill="none" stroke="${entityColour(k)}" stroke-width="1.6"><title>${escaped(system.entities[k])}</title></path>`);
    parts.push(`<path d="M${x(step).toFixed(1)} 14V172" stroke="var(--ink)" stroke-width="1.2" stroke-dasharray="3 3"/>`);
    parts.push(`<text class="axis" x="4" y="22">${high.toPrecision(3)}</text><text class="axis" x="4" y="172">${low.toPrecision(3)}</text>`);
    parts.push(`<text class="axis" x="46" y="192">step ${system.moments[0]}</text>`);
    parts.push(`<text class="axis" x="606" y="192" text-anchor="end">${system.moments[moments - 1]}</text>`);
    at("series").innerHTML = parts.join("");
  }

  function fillTable(kept) {
    const e = system.edges;
    at("edges").querySelector("tbody").innerHTML = kept.map((k) => `<tr><td>${escaped(system.entities[e.from[k]])}</td>` +
      `<td>${escaped(system.entities[e.to[k]])}</td><td>${escaped(data.types[e.type[k]].name)}</td><td>${percent(e.p[k])}</td></tr>`).join("");
  }

  // Choosing ------------------------------------------------------------------------------------------------------

  function choose(number) {
    system = data.systems[number];
    if (SPATIAL && !system.middle) system.middle = system.states.map((rows) => { const [a, b] = extent(rows); return (a + b) / 2; });
    at("system").value = String(number);
    at("step").max = String(system.moments.length - 1);
    step = Math.min(step, system.moments.length - 1);
    at("step").value = String(step);
    at("stage").setAttribute("aria-label", `Trajectories of ${system.name}: ${system.entities.length} entities, ` +
      `${system.edges.from.length} edges`);
    draw();
  }

  function move(by) {
    const count = data.systems.length;
    choose((Number(at("system").value) + by + count) % count);
  }

  function stop() {
    clearInterval(timer);
    timer = null;
    at("play").textContent = "Play";
  }

  function play() {
    if (timer) return stop();
    at("play").textContent = "Stop";
    timer = setInterval(() => {
      step = (step + 1) % system.moments.length;
      at("step").value = String(step);
      draw();
    }, 120);
  }

  data.systems.forEach((s, number) => at("system").add(new Option(s.name, String(number))));
  data.types.forEach((type, k) => {
    const label = document.createElement("label");
    label.innerHTML = `<input type="checkbox"${type.shown ? " checked" : ""}> <span class="swatch" ` +
      `style="background:var(${type.colour})"></span> ${escaped(type.name)}`;
    label.firstChild.addEventListener("change", (event) => { shown[k] = event.target.checked; draw(); });
    at("types").append(label);
  });
  if (!data.plane) {
    at("series").removeAttribute("hidden");
    at("feature-choice").hidden = data.features.length < 2;
    data.features.forEach((name, k) => at("feature").add(new Option(name, String(k))));
    at("feature").addEventListener("change", draw);
  }
  at("wrong-choice").hidden = !data.labelled;
  at("wrong").addEventListener("change", draw);
  at("system").addEventListener("change", (event) => choose(Number(event.target.value)));
  at("previous").addEventListener("click", () => move(-1));
  at("next").addEventListener("click", () => move(1));
  at("play").addEventListener("click", play);
  at("step").addEventListener("input", (event) => { stop(); step = Number(event.target.value); draw(); });
  at("least").addEventListener("input", draw);
  at("edges").addEventListener("toggle", draw);
  if (SPATIAL) at("turn").addEventListener("input", draw);
  choose(0);
})();
