"use strict";
// The only script of the page. Texts of the model reach the document through textContent and nothing else.
(() => {
  const facts = JSON.parse(document.getElementById("facts").textContent);
  const byId = (id) => document.getElementById(id);
  const make = (tag, className, text) => {
    const node = document.createElement(tag);
    if (className) node.className = className;
    if (text !== undefined) node.textContent = text;
    return node;
  };

  // What the reader chose survives a reload of a report that follows its run. Storage may be denied to local files.
  const store = {
    get(key) { try { return sessionStorage.getItem(key); } catch { return null; } },
    set(key, value) { try { sessionStorage.setItem(key, value); } catch { /* nothing to remember it in */ } },
  };

  // Light and dark -------------------------------------------------------------------------------------------------
  const root = document.documentElement;
  if (store.get("theme")) root.dataset.theme = store.get("theme");
  byId("theme").addEventListener("click", () => {
    const dark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
    root.dataset.theme = dark ? "light" : "dark";
    store.set("theme", root.dataset.theme);
  });

  // Curves: the legend tells the values under the pointer, and at rest the last ones ---------------------------------
  const written = (value, unit) => {
    if (unit === "share") return `${(100 * value).toFixed(0)} %`;
    if (unit === "bytes") return value >= 1e8 ? `${(value / 1e9).toFixed(2)} GB` : `${(value / 1e6).toFixed(0)} MB`;
    if (value !== 0 && (Math.abs(value) < 1e-3 || Math.abs(value) >= 1e5)) return value.toExponential(1);
    return Math.abs(value) >= 100 ? value.toFixed(0) : String(Number(value.toPrecision(3)));
  };
  const nearest = (xs, x) => {
    let low = 0, high = xs.length - 1;
    while (high - low > 1) {
      const middle = (low + high) >> 1;
      if (xs[middle] <= x) low = middle; else high = middle;
    }
    return x - xs[low] <= xs[high] - x ? low : high;
  };
  for (const figure of document.querySelectorAll(".curve")) {
    const chart = facts.charts[figure.dataset.chart];
    const series = chart.series.filter((one) => one.x.length);
    const svgs = figure.querySelectorAll("svg"); // a wide chart is drawn twice, for two widths
    const at = figure.querySelector(".at");
    const values = figure.querySelectorAll(".legend b");
    const first = Number(svgs[0].dataset.x0), last = Number(svgs[0].dataset.x1);
    const tell = (step) => {
      series.forEach((one, i) => { values[i].textContent = written(one.y[nearest(one.x, step)], chart.unit); });
      at.textContent = `step ${Math.round(step)}`;
    };
    tell(last);
    for (const svg of svgs) {
      const cross = svg.querySelector(".cross");
      const width = svg.viewBox.baseVal.width, left = 40, right = width - 10; // as drawn in svg.py
      svg.addEventListener("pointermove", (event) => {
        const box = svg.getBoundingClientRect();
        const x = Math.min(right, Math.max(left, ((event.clientX - box.left) / box.width) * width));
        tell(first + ((x - left) / (right - left)) * (last - first));
        cross.setAttribute("x1", x);
        cross.setAttribute("x2", x);
        cross.setAttribute("visibility", "visible");
      });
      svg.addEventListener("pointerleave", () => { tell(last); cross.setAttribute("visibility", "hidden"); });
    }
  }

  // The task browser -------------------------------------------------------------------------------------------------
  const list = byId("list");
  if (list) {
    const page = 40;
    const state = { sort: "step", down: true, find: "", kind: "", verdict: "", shown: page };
    try { Object.assign(state, JSON.parse(store.get("tasks") || "{}")); } catch { /* as it was */ }
    const verdicts = {
      valid: (task) => task.valid,
      learnable: (task) => task.valid && task.rate > 0 && task.rate < 1,
      never: (task) => task.valid && task.rate === 0,
      always: (task) => task.valid && task.rate === 1,
      refused: (task) => !task.valid,
    };
    const keys = {
      step: (task) => task.step, kind: (task) => task.kind, rate: (task) => task.rate, reward: (task) => task.reward,
      why: (task) => task.why, length: (task) => task.program.length,
    };
    const firstLine = (task) => {
      const lines = (task.program || task.reply).split("\n").map((line) => line.trim());
      const wanted = lines.filter((line) => line && !line.startsWith("```") && !line.startsWith("<"));
      return wanted.slice(0, 4).join("  ");
    };
    const part = (name, text) => {
      const node = make("div");
      node.append(make("h4", "", name), make("pre", "", text));
      return node;
    };
    const detail = (task) => {
      const box = make("div", "detail");
      const left = make("div"), right = make("div");
      if (task.program) left.append(part(task.valid ? "program" : "program it was given", task.program));
      if (task.message) left.append(part("message", task.message));
      if (task.cases.length) left.append(part("input → output", task.cases.map(([i, o]) => `f(${i})  →  ${o}`).join("\n")));
      right.append(part("the proposer's own words", task.reply));
      if (task.detail) right.append(part("what Python said", task.detail));
      if (task.attempts.length) {
        right.append(make("h4", "", "attempts of the solver"));
        for (const [reply, why, correct, count] of task.attempts) {
          const row = make("div", "answer");
          row.append(make("span", `why ${correct ? "ok" : "no"}`, `${count} × ${correct ? "right" : why}`), make("pre", "", reply));
          right.append(row);
        }
      }
      const numbers = [];
      if (task.reward !== null) numbers.push(`reward ${task.reward}`);
      if (task.advantage !== null) numbers.push(`advantage ${task.advantage.toFixed(3)}`);
      if (task.tokens !== null) numbers.push(`${task.tokens} tokens`);
      left.append(make("p", "muted small", numbers.join(" · ")));
      box.append(left, right);
      return box;
    };
    const item = (task) => {
      const box = make("div", "item");
      const row = make("button", "row");
      row.type = "button";
      row.setAttribute("aria-expanded", "false");
      const rate = make("span", "rate");
      if (task.rate !== null) {
        const meter = make("span", "meter"), fill = make("i");
        fill.style.width = `${100 * task.rate}%`;
        meter.append(fill);
        rate.append(meter, `${Math.round(100 * task.rate)} %`);
      } else rate.append(make("span", "muted", "–"));
      row.append(
        make("span", "step", String(task.step)), make("span", `kind ${/^[a-z]+$/.test(task.kind) ? task.kind : ""}`, task.kind), rate,
        make("span", "reward", task.reward === null ? "" : task.reward.toFixed(2)),
        make("span", `why ${task.valid ? "ok" : "no"}`, task.valid ? "valid" : task.why), make("code", "", firstLine(task)),
      );
      row.addEventListener("click", () => {
        const open = box.querySelector(".detail");
        if (open) open.remove(); else box.append(detail(task));
        row.setAttribute("aria-expanded", String(!open));
      });
      box.append(row);
      return box;
    };
    const draw = () => {
      const words = state.find.toLowerCase();
      const chosen = facts.tasks.filter((task) =>
        (!state.kind || task.kind === state.kind)
        && (!state.verdict || verdicts[state.verdict](task))
        && (!words || `${task.program}\n${task.reply}\n${task.why}\n${task.detail}\n${task.message}`.toLowerCase().includes(words)));
      const key = keys[state.sort], sign = state.down ? -1 : 1;
      chosen.sort((a, b) => {
        const x = key(a), y = key(b);
        if (x === y) return 0;
        if (x === null) return 1; // what has no value stands last, whichever way the rest is sorted
        if (y === null) return -1;
        return (x < y ? -1 : 1) * sign;
      });
      list.replaceChildren(...chosen.slice(0, state.shown).map(item));
      byId("count").textContent = `${chosen.length} of ${facts.tasks.length}`;
      byId("more").hidden = chosen.length <= state.shown;
      for (const button of document.querySelectorAll(".head button")) {
        button.className = button.dataset.sort === state.sort ? (state.down ? "down" : "up") : "";
      }
      store.set("tasks", JSON.stringify(state));
    };
    for (const name of ["find", "kind", "verdict"]) {
      byId(name).value = state[name];
      byId(name).addEventListener("input", (event) => { state[name] = event.target.value; state.shown = page; draw(); });
    }
    for (const button of document.querySelectorAll(".head button")) {
      button.addEventListener("click", () => {
        state.down = state.sort === button.dataset.sort ? !state.down : true;
        state.sort = button.dataset.sort;
        draw();
      });
    }
    byId("more").addEventListener("click", () => { state.shown += page; draw(); });
    draw();
  }

  // A run that goes on: load again, unless somebody is reading a task or typing --------------------------------------
  const refresh = Number(document.body.dataset.refresh);
  if (refresh > 0) {
    setInterval(() => {
      const busy = document.querySelector(".detail, details[open]") || document.activeElement === byId("find");
      if (!busy) location.reload();
    }, 1000 * refresh);
  }
})();
