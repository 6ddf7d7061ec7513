// The page is complete without this script. It keeps it up to date: parts arrive rendered, as server-sent events, and are swapped
// in element by element, so that nothing jumps and whatever has the focus keeps it; curves are drawn by uPlot.
"use strict";
(() => {
  const byId = (id) => document.getElementById(id);
  const link = byId("link");
  const maxLines = 200;

  // Elements from a stranger's text cannot come to life here: the server has escaped it, and the policy allows no script.
  const elements = (html) => {
    const t = document.createElement("template");
    t.innerHTML = html;
    return [...t.content.children];
  };

  // What the server sent last for an element; the script changes times afterwards.
  const source = new WeakMap();
  const original = (e) => source.get(e) ?? e.outerHTML;
  const remember = (e) => { source.set(e, e.outerHTML); for (const c of e.children) remember(c); };

  // morph makes the children of an element those of next, touching only what differs.
  function morph(parent, next) {
    const old = [...parent.children];
    const named = new Map(old.filter((e) => e.id).map((e) => [e.id, e]));
    let at = parent.firstElementChild;
    next.forEach((n, i) => {
      let o = n.id ? named.get(n.id) : old[i] && !old[i].id ? old[i] : null;
      if (!o) {
        remember(n);
        parent.insertBefore(n, at);
        return;
      }
      if (o !== at) parent.insertBefore(o, at);
      at = o.nextElementSibling;
      named.delete(o.id);
      if (original(o) === n.outerHTML) return;
      // The same kind of element without text of its own is gone into, others are replaced.
      const text = (e) => [...e.childNodes].some((c) => c.nodeType === 3 && c.data.trim());
      const deep = o.tagName === n.tagName && !text(o) && !text(n);
      const html = n.outerHTML;
      if (!deep) {
        remember(n);
        o.replaceWith(n);
        return;
      }
      for (const a of n.attributes) if (o.getAttribute(a.name) !== a.value) o.setAttribute(a.name, a.value);
      for (const a of [...o.attributes]) if (!n.hasAttribute(a.name)) o.removeAttribute(a.name);
      morph(o, [...n.children]);
      source.set(o, html);
    });
    while (at) {
      const rest = at.nextElementSibling;
      at.remove();
      at = rest;
    }
  }

  // Times in the reader's own zone, and how long ago.
  const span = (s) => {
    s = Math.max(0, Math.round(s));
    if (s < 60) return s + " s";
    if (s < 3600) return Math.floor(s / 60) + " min";
    if (s < 86400) return Math.floor(s / 3600) + " h";
    return Math.floor(s / 86400) + " d";
  };
  function times(root) {
    const now = Date.now();
    const put = (e, text) => { if (e.textContent !== text) e.textContent = text; };
    for (const e of root.querySelectorAll("time[data-ago]")) {
      const s = (now - Date.parse(e.dateTime)) / 1000;
      put(e, s < 5 ? "now" : span(s) + " ago");
    }
    for (const e of root.querySelectorAll("time[data-left]")) {
      const s = (Date.parse(e.dateTime) - now) / 1000;
      put(e, s > 0 ? "in " + span(s) : "has passed");
    }
    for (const e of root.querySelectorAll("time[data-day]")) put(e, new Date(e.dateTime).toLocaleString([], { dateStyle: "medium", timeStyle: "short" }));
    for (const e of root.querySelectorAll("time[data-hour]")) {
      const d = new Date(e.dateTime);
      put(e, d.toLocaleTimeString([], { hour12: false }));
      if (!e.title) e.title = d.toLocaleString();
    }
  }

  // Curves.
  const figures = new Map(); // by element id: {unit, curves: [{name, colour, parts: {name: Map(x → y)}}], plot}
  const colour = (i) => getComputedStyle(document.documentElement).getPropertyValue(i).trim();
  const prefixes = ["", "k", "M", "G", "T", "P"];
  const tick = (unit, top) => {
    if (unit === "%") return (v) => +(100 * v).toFixed(2) + " %";
    if (unit === "B") {
      let p = 0;
      while (top / 1000 ** (p + 1) >= 1 && p < prefixes.length - 1) p++;
      return (v) => +(v / 1000 ** p).toFixed(3) + " " + prefixes[p] + "B";
    }
    return (v) => String(+v.toPrecision(6));
  };

  const range = (unit) => (u, lo, hi) => {
    if (unit === "B") return [0, hi * 1.08 || 1];
    const [a, b] = uPlot.rangeNum(lo, hi, 0.08, true);
    return unit === "%" ? [lo >= 0 ? Math.max(0, a) : a, hi <= 1 ? Math.min(1, b) : b] : [a, b];
  };

  function table(f) {
    const xs = new Set();
    for (const c of f.curves) for (const p of Object.values(c.parts)) for (const x of p.keys()) xs.add(x);
    const x = [...xs].sort((a, b) => a - b);
    const rows = f.curves.map((c) => x.map((v) => {
      let sum = null, some = false;
      for (const p of Object.values(c.parts)) {
        if (!p.has(v)) continue;
        some = true;
        const y = p.get(v);
        if (y !== null) sum = (sum ?? 0) + y;
      }
      return some ? sum : undefined; // undefined is no value there, null a gap
    }));
    return [x, ...rows];
  }

  function draw(id) {
    const f = figures.get(id), box = byId(id)?.querySelector(".plot");
    if (!f || !box || !window.uPlot) return;
    const data = table(f);
    if (data[0].length === 0) return;
    const top = Math.max(0, ...data.slice(1).flat().filter((v) => v != null));
    f.format = tick(f.unit, top);
    if (f.plot) {
      f.plot.setData(data);
      return;
    }
    const font = "12px " + getComputedStyle(document.body).fontFamily;
    const grid = { stroke: () => colour("--grid"), width: 1 }, ticks = { show: false };
    f.plot = new uPlot({
      width: box.clientWidth, height: box.clientHeight,
      legend: { show: false },
      cursor: { y: false, drag: { x: true, y: false }, points: { size: 7 } },
      padding: [8, 10, 0, 0],
      scales: { x: { time: false, range: (u, lo, hi) => lo === hi ? [lo - 0.5, hi + 0.5] : [lo, hi] }, y: { range: range(f.unit) } },
      axes: [
        { stroke: () => colour("--ink"), grid: { show: false }, ticks, font, size: 26, gap: 4, label: "round", labelFont: font, labelSize: 16, labelGap: 0, incrs: [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10000, 50000, 100000], values: (u, v) => v.map(String) },
        { stroke: () => colour("--ink"), grid, ticks, font, size: (u, v) => Math.max(34, ...(v ?? []).map((s) => 7 * s.length + 10)), gap: 6, values: (u, v) => v.map((y) => f.format(y)) },
      ],
      // The whole is drawn first and broad, so that it is seen below a level that is the same.
      series: [{}, ...f.curves.map((c) => ({ label: c.name, stroke: () => colour("--c" + c.colour), width: c.colour === 0 && f.curves.length > 1 ? 4 : 2, points: { show: data[0].length < 3, size: 6 }, spanGaps: false }))],
      hooks: { setCursor: [(u) => values(id, u.cursor.idx)] },
    }, data, box);
    for (const e of [...box.children]) if (e !== f.plot.root) e.remove();
  }

  // values writes what the curves are at the cursor into the names, or the newest.
  function values(id, i) {
    const f = figures.get(id);
    byId(id)?.querySelectorAll(".legend .key b").forEach((b, k) => {
      b.dataset.last ??= b.textContent;
      const v = i == null ? undefined : f.plot.data[k + 1]?.[i];
      b.textContent = i == null ? b.dataset.last : v == null ? "–" : f.unit ? f.format(v) : String(+v.toPrecision(4));
    });
  }

  function setFigures(m) {
    const next = elements(m.html), box = byId("figures");
    const wires = new Map(m.figures.map((f) => [f.id, f]));
    for (const [id, f] of figures) f.plot?.destroy();
    figures.clear();
    // Details that a person has opened stay open.
    for (const n of next) if (byId(n.id)?.querySelector("details")?.open) n.querySelector("details").open = true;
    box.replaceChildren(...next);
    for (const n of next) {
      const f = wires.get(n.id);
      for (const c of f.curves) for (const p in c.parts) c.parts[p] = new Map(c.parts[p]);
      figures.set(n.id, { unit: f.unit, curves: f.curves });
      draw(n.id);
    }
  }

  function addPoints(m) {
    const changed = new Set();
    for (const p of m.points) {
      const c = figures.get(p.figure)?.curves.find((c) => c.name === p.curve);
      if (!c) return connect(true); // cannot be; but then everything anew
      (c.parts[p.part] ??= new Map()).set(p.x, p.y);
      changed.add(p.figure);
    }
    for (const s of m.sides ?? []) {
      const e = byId(s.figure);
      e.querySelector(".legend").replaceChildren(...elements(s.legend));
      e.querySelector(".numbers").replaceChildren(...elements(s.numbers));
    }
    changed.forEach(draw);
  }

  // The log.
  function addLines(m, all) {
    const box = byId("lines"), next = elements(m.html);
    const have = new Set([...box.children].map((e) => e.dataset.key));
    if (all) {
      // What the page has already stays as it is, so that a screen reader does not read it again.
      if (next.length !== box.children.length || next.some((n) => !have.has(n.dataset.key))) box.replaceChildren(...next);
    } else {
      const view = box.parentElement, still = view.scrollTop > 4 ? view.scrollHeight - view.scrollTop : 0;
      box.prepend(...next.filter((n) => !have.has(n.dataset.key)));
      while (box.children.length > maxLines) box.lastElementChild.remove();
      if (still) view.scrollTop = view.scrollHeight - still; // whoever reads further down is not moved
    }
    times(box);
  }

  // The stream.
  let stream, last = "", retry;
  const say = (state, text) => { link.className = "link " + state; if (link.textContent !== text) link.textContent = text; };

  function connect(anew) {
    clearTimeout(retry);
    stream?.close();
    if (anew) last = "";
    const url = new URL(document.body.dataset.stream, location);
    if (last) url.searchParams.set("after", last);
    const s = stream = new EventSource(url);
    const on = (name, f) => s.addEventListener(name, (e) => { if (e.lastEventId) last = e.lastEventId; f(JSON.parse(e.data)); });
    s.onopen = () => say("live", "live");
    on("mark", () => {});
    on("part", (p) => {
      const box = byId(p.id);
      if (!box) return;
      morph(box, elements(p.html));
      times(box);
      if (p.id === "top") document.title = byId("title").dataset.title;
    });
    on("figures", setFigures);
    on("points", addPoints);
    on("log", (m) => addLines(m, false));
    on("logall", (m) => addLines(m, true));
    on("end", () => { s.close(); say("", "ended"); });
    s.onerror = () => {
      if (s !== stream) return;
      say("lost", "reconnecting…");
      if (s.readyState !== EventSource.CLOSED) return; // it tries again by itself
      fetch(location.pathname, { method: "HEAD" }).then((r) => {
        if (r.status === 401) return say("lost", "signed out: reload");
        if (r.status === 404) return say("lost", "no longer here");
        retry = setTimeout(connect, 3000);
      }, () => { retry = setTimeout(connect, 3000); });
    };
  }

  for (const id of ["top", "now", "members", "failures", "runs"]) for (const e of byId(id)?.children ?? []) remember(e);
  times(document);
  setInterval(() => times(document), 1000);
  new ResizeObserver(() => {
    for (const [id, f] of figures) {
      const box = byId(id)?.querySelector(".plot");
      if (f.plot && box && (f.plot.width !== box.clientWidth || f.plot.height !== box.clientHeight)) f.plot.setSize({ width: box.clientWidth, height: box.clientHeight });
    }
  }).observe(document.body);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => { for (const f of figures.values()) f.plot?.redraw(false); });
  // A page that is left must not hold a connection, and one that comes back from the cache of the browser needs a new one.
  addEventListener("pagehide", () => stream?.close());
  addEventListener("pageshow", (e) => { if (e.persisted) connect(false); });
  connect(false);
})();
