// Draws the boards from assets/boards.js: sorts, filters, pages, chooses columns, saves. Without it a page
// shows the first rows as a plain table.
"use strict";

(function () {
  const PAGE = 100;
  const MISSING = "–";
  const KINDS = ["scored", "control", "unscored"];
  const escaped = (text) => String(text).replace(/[&<>"']/g, (sign) => `&#${sign.charCodeAt(0)};`);
  const fixed = (value) => (value === null ? MISSING : (value / 1000).toFixed(3).replace("-", "−"));
  const place = (value, [low, high]) => {
    const share = (100 * (value - low)) / (high - low);
    return Math.round(10 * Math.min(100, Math.max(0, share))) / 10;
  };

  // The ends of intervals come as distances from the value.
  function unpack(board) {
    for (const { kind, data } of board.columns) {
      if (kind !== "measure") continue;
      data.lo = data.lo.map((low, row) => (low === null ? null : data.v[row] - low));
      data.hi = data.hi.map((high, row) => (high === null ? null : data.v[row] + high));
    }
  }

  function begin(table) {
    const board = window.affectbenchBoards[table.dataset.board];
    const prefix = table.dataset.prefix || "";
    const root = table.dataset.root || "";
    const columns = board.columns;
    const column = Object.fromEntries(columns.map((each) => [each.key, each]));
    const groupOf = board.groups.flatMap((group, index) => Array(group.rows).fill(index));
    const [fixedKey, fixedValue] = (table.dataset.fix || "=").split(/=(.*)/s);
    const base = [...board.kinds].map((_, row) => row).filter(belongs);
    const usual = columns.filter((each) => each.shown && each.key !== fixedKey).map((each) => each.key);
    const filters = columns.filter((each) => each.filter && each.key !== fixedKey && distinct(each).length > 1);
    const start = { sort: "rank", dir: "ascending", q: "", controls: "1", page: 1, cols: usual.join(" ") };
    for (const each of filters) start[each.key] = "";
    const orders = new Map();
    const texts = new Map();
    let state = { ...start };

    // Values.
    function code(each, row) {
      return each.data.i[each.data.by_group ? groupOf[row] : row];
    }
    function text(each, row) {
      return each.data.d[code(each, row)];
    }
    function belongs(row) {
      if (!fixedKey) return true;
      if (fixedKey === "group") return board.groups[groupOf[row]].id === fixedValue;
      return text(column[fixedKey], row) === fixedValue;
    }
    function distinct(each) {
      return [...new Set(base.map((row) => code(each, row)))].sort((a, b) => a - b).map((at) => each.data.d[at]);
    }
    function words(row) {
      if (!texts.has(row)) {
        const found = columns.filter((each) => each.data.d).map((each) => text(each, row));
        const status = column.status.data;
        found.push(status.why.d[status.why.i[row]], status.flags.d[status.flags.i[row]]);
        texts.set(row, found.join(" ").toLowerCase());
      }
      return texts.get(row);
    }
    function key(each) {
      if (!each.data.d) return (row) => each.data.v[row];
      if (!orders.has(each.key)) {
        const sorted = each.data.d.map((value, at) => [value, at]);
        sorted.sort((a, b) => a[0].localeCompare(b[0], "en", { numeric: true }));
        const order = [];
        sorted.forEach(([value, at], index) => (order[at] = value === MISSING ? null : index));
        orders.set(each.key, order);
      }
      return (row) => orders.get(each.key)[code(each, row)];
    }
    function grouped() {
      return board.groups.length > 0 && state.sort === "rank" && state.dir === "ascending";
    }
    function found() {
      const search = state.q.toLowerCase().split(/\s+/).filter(Boolean);
      const codes = filters.filter((each) => state[each.key]).map((each) => [each, each.data.d.indexOf(state[each.key])]);
      const rows = base.filter((row) => {
        if (state.controls === "0" && board.kinds[row] === "1") return false;
        return codes.every(([each, at]) => code(each, row) === at) && search.every((word) => words(row).includes(word));
      });
      if (state.sort === "rank" && state.dir === "ascending") return rows;
      const value = key(column[state.sort]);
      const sign = state.dir === "ascending" ? 1 : -1;
      const keyed = rows.map((row) => {
        const own = value(row);
        return { row, own: sign * own, last: (board.kinds[row] === "2" ? 2 : 0) + (own === null ? 1 : 0) };
      });
      return keyed.sort((a, b) => a.last - b.last || a.own - b.own || a.row - b.row).map((each) => each.row);
    }
    function visible() {
      const chosen = state.cols.split(" ");
      const said = grouped() ? ["model", "task"] : []; // The heading of the group says it.
      return columns.filter((each) => chosen.includes(each.key) && !said.includes(each.key));
    }

    // Drawing.
    function cellName(row) {
      const group = board.groups[groupOf[row]];
      const name = text(column.selector, row).replace(/[^A-Za-z0-9.]+/g, "-").replace(/^[-.]+|[-.]+$/g, "");
      return `${(group.before + name + group.after).slice(0, 150)}__${board.digests.slice(8 * row, 8 * row + 8)}`;
    }
    function link(each, row) {
      if (each.data.h) return root + each.data.h[code(each, row)];
      return each.key === "selector" ? `${root}entries/${cellName(row)}.html` : "";
    }
    function linked(each, row) {
      const address = link(each, row);
      const shown = escaped(text(each, row));
      return address ? `<a href="${escaped(address)}">${shown}</a>` : shown;
    }
    const draw = {
      rank(each, row) {
        const tie = each.data.tied[row] ? '<span class="tie" title="tied with other rows">=</span>' : "";
        return `<td class="rank">${each.data.v[row] === null ? '<span class="none">–</span>' : each.data.v[row] + tie}</td>`;
      },
      text(each, row) {
        if (each.key !== "selector") return `<td class="name">${linked(each, row)}</td>`;
        const control = board.kinds[row] === "1" ? ' <span class="badge control">control</span>' : "";
        const group = board.groups[groupOf[row]];
        const sub = group ? `<span class="sub">${escaped(group.sub)}</span>` : "";
        return `<th scope="row" class="name">${linked(each, row)}${control}${sub}</th>`;
      },
      plain(each, row) {
        return `<td class="plain">${escaped(text(each, row))}</td>`;
      },
      measure(each, row) {
        const { v, lo, hi, axis } = each.data;
        if (v[row] === null) return '<td class="measure"><span class="none">–</span></td>';
        const whole = lo[row] !== null && hi[row] !== null;
        const [low, high] = whole ? [lo[row], hi[row]] : [v[row], v[row]];
        const from = place(low, axis);
        const style = `--zero:${place(0, axis)}%;--start:${from}%;--width:${Math.round(10 * (place(high, axis) - from)) / 10}%;--at:${place(v[row], axis)}%`;
        const interval = whole ? `[${fixed(low)}, ${fixed(high)}]` : "no interval";
        return `<td class="measure"><span class="value">${fixed(v[row])}</span><span class="whisker" aria-hidden="true" style="${style}"><i></i></span><span class="ci">${interval}</span></td>`;
      },
      number(each, row) {
        return `<td class="plain ${each.key}"><span class="value">${fixed(each.data.v[row])}</span></td>`;
      },
      p(each, row) {
        const value = each.data.v[row];
        if (value === null) return '<td class="plain"><span class="none">–</span></td>';
        const mark = each.data.yes[row] ? '<span class="mark yes">significant</span>' : '<span class="mark no">n.s.</span>';
        return `<td class="plain"><span class="value">${value === 0 ? "&lt;0.001" : fixed(value)}</span>${mark}</td>`;
      },
      status(each, row) {
        const { why, flags } = each.data;
        const sub = (list, name) => (list.d[list.i[row]] ? `<span class="sub ${name}">${escaped(list.d[list.i[row]])}</span>` : "");
        const status = escaped(text(each, row));
        return `<td class="status"><span class="badge status-${status}">${status}</span>${sub(why, "reason")}${sub(flags, "flag")}</td>`;
      },
    };
    function groupRow(group, width) {
      const [model, task, protocol] = group.title.map(escaped);
      const mark = group.instrument ? '<span class="badge instrument">calibration instrument: no evidence about real models</span>' : "";
      return `<tr class="group"><th colspan="${width}" scope="rowgroup"><div><a href="${root}comparisons/${escaped(group.id)}.html"><strong>${model}</strong> on <strong>${task}</strong>, ${protocol}</a>${mark}<span class="facts">${escaped(group.facts)}</span></div></th></tr>`;
    }
    function drawRows(rows, shown) {
      const parts = [];
      let last = null;
      for (const row of rows) {
        if (grouped() && fixedKey !== "group" && groupOf[row] !== last) {
          last = groupOf[row];
          parts.push(groupRow(board.groups[last], shown.length));
        }
        const cells = shown.map((each) => draw[each.kind](each, row)).join("");
        parts.push(`<tr class="row ${KINDS[board.kinds[row]]}">${cells}</tr>`);
      }
      if (!rows.length) parts.push(`<tr><td class="nothing" colspan="${shown.length}">No row matches. Reset the filters to see all.</td></tr>`);
      table.tBodies[0].innerHTML = parts.join("");
    }
    function drawHead(shown) {
      const keys = shown.map((each) => each.key).join(" ");
      if (table.dataset.columns !== keys) {
        table.dataset.columns = keys;
        const names = (each) => (["text", "status"].includes(each.kind) ? ' class="name"' : "");
        const head = (each) => `<th scope="col"${names(each)} data-sort="${escaped(each.key)}"${each.help ? ` title="${escaped(each.help)}"` : ""}><button type="button">${escaped(each.title)}</button></th>`;
        const focused = table.tHead.contains(document.activeElement) && document.activeElement.closest("th").dataset.sort;
        table.tHead.innerHTML = `<tr>${shown.map(head).join("")}</tr>`;
        if (focused) table.tHead.querySelector(`[data-sort="${focused}"] button`)?.focus();
      }
      for (const head of table.tHead.rows[0].cells) {
        head.setAttribute("aria-sort", head.dataset.sort === state.sort ? state.dir : "none");
      }
    }
    function show() {
      const rows = found();
      const shown = visible();
      const last = Math.max(1, Math.ceil(rows.length / PAGE));
      state.page = Math.min(Math.max(1, Number.parseInt(state.page, 10) || 1), last);
      drawHead(shown);
      drawRows(rows.slice((state.page - 1) * PAGE, state.page * PAGE), shown);
      const across = board.groups.length && !grouped() && fixedKey !== "group" ? "; ranks count only within a comparison" : "";
      form.querySelector("output").textContent = `${rows.length} of ${base.length} rows${across}`;
      pages.hidden = last === 1;
      pages.querySelector("span").textContent = `Page ${state.page} of ${last}`;
      pages.querySelector('[data-step="-1"]').disabled = state.page === 1;
      pages.querySelector('[data-step="1"]').disabled = state.page === last;
      for (const control of form.elements) {
        if (control.type === "checkbox" && control.name === "cols") control.checked = state.cols.split(" ").includes(control.value);
        else if (control.type === "checkbox") control.checked = state.controls !== "0";
        else if (control.name && control.value.trim() !== state[control.name]) control.value = state[control.name];
      }
    }

    // The address keeps the state: one board's names may bear a prefix.
    function read() {
      const hash = new URLSearchParams(location.hash.slice(1));
      state = { ...start };
      for (const name of Object.keys(start)) if (hash.has(prefix + name)) state[name] = hash.get(prefix + name);
      if (!column[state.sort]) state.sort = start.sort;
      if (!["ascending", "descending"].includes(state.dir)) state.dir = start.dir;
      if (!state.cols.split(" ").some((name) => column[name])) state.cols = start.cols;
      for (const each of filters) if (!each.data.d.includes(state[each.key])) state[each.key] = "";
    }
    function write() {
      const hash = new URLSearchParams(location.hash.includes("=") ? location.hash.slice(1) : "");
      for (const name of Object.keys(start)) {
        hash.delete(prefix + name);
        if (String(state[name]) !== String(start[name])) hash.set(prefix + name, state[name]);
      }
      const text = hash.toString();
      history.replaceState(null, "", text ? `#${text}` : location.pathname + location.search);
    }
    function change(values) {
      Object.assign(state, { page: 1 }, values);
      show();
      write();
    }

    // What is seen can be taken along.
    function values(each, row) {
      const plain = (value) => (value === null ? null : value / 1000);
      if (each.kind === "measure") {
        const { v, lo, hi } = each.data;
        return { [each.key]: plain(v[row]), [`${each.key}_low`]: plain(lo[row]), [`${each.key}_high`]: plain(hi[row]) };
      }
      if (each.kind === "status") {
        const { why, flags } = each.data;
        return { status: text(each, row), reason: why.d[why.i[row]], flags: flags.d[flags.i[row]] };
      }
      if (each.data.d) return { [each.key]: text(each, row) };
      return { [each.key]: each.kind === "rank" ? each.data.v[row] : plain(each.data.v[row]) };
    }
    function records() {
      const shown = visible();
      return found().map((row) => {
        const record = Object.assign({}, ...shown.map((each) => values(each, row)));
        if (board.digests) record.cell = cellName(row);
        return record;
      });
    }
    function csv(rows) {
      const field = (value) => {
        if (value === null) return "";
        if (typeof value === "number") return String(value);
        const safe = /^[=+\-@\t\r]/.test(value) ? `'${value}` : value; // No formula in a spreadsheet.
        return /[",\n]/.test(safe) ? `"${safe.replaceAll('"', '""')}"` : safe;
      };
      const names = Object.keys(rows[0] || {});
      return [names.join(","), ...rows.map((row) => names.map((name) => field(row[name])).join(","))].join("\n") + "\n";
    }
    function save(form_) {
      const content = form_ === "csv" ? csv(records()) : `${JSON.stringify(records(), null, 1)}\n`;
      const anchor = document.createElement("a");
      anchor.href = URL.createObjectURL(new Blob([content], { type: form_ === "csv" ? "text/csv" : "application/json" }));
      anchor.download = `affectbench-${table.dataset.board}.${form_}`;
      anchor.click();
      setTimeout(() => URL.revokeObjectURL(anchor.href), 1000);
    }

    // Controls.
    function makeForm() {
      const made = document.createElement("form");
      const option = (value) => `<option value="${escaped(value)}">${escaped(value)}</option>`;
      const select = (each) => `<label>${escaped(each.title)} <select name="${each.key}"><option value="">all</option>${distinct(each).map(option).join("")}</select></label>`;
      const box = (each) => `<label class="check"><input type="checkbox" name="cols" value="${escaped(each.key)}"> ${escaped(each.title)}</label>`;
      const controls = board.kinds.includes("1") ? '<label class="check"><input type="checkbox" name="controls"> controls</label>' : "";
      made.className = "filters";
      made.setAttribute("role", "search");
      made.setAttribute("aria-label", `Filter: ${table.dataset.title}`);
      made.autocomplete = "off";
      made.innerHTML = `<label>Search <input type="search" name="q" placeholder="any text"></label>${filters.map(select).join("")}${controls}
        <details><summary>Columns</summary><div class="choices">${columns.map(box).join("")}</div></details>
        <button type="reset">Reset</button><span class="saves">Save <button type="button" data-save="csv">CSV</button> <button type="button" data-save="json">JSON</button></span>
        <output aria-live="polite"></output>`;
      return made;
    }
    function makePages() {
      const made = document.createElement("nav");
      made.className = "pages";
      made.setAttribute("aria-label", `Pages: ${table.dataset.title}`);
      made.innerHTML = '<button type="button" data-step="-1">Previous</button> <span></span> <button type="button" data-step="1">Next</button>';
      return made;
    }
    function listen() {
      table.tHead.addEventListener("click", (event) => {
        const head = event.target.closest("button") && event.target.closest("th");
        if (!head) return;
        const again = head.dataset.sort === state.sort;
        const opposite = state.dir === "ascending" ? "descending" : "ascending";
        change({ sort: head.dataset.sort, dir: again ? opposite : column[head.dataset.sort].first });
      });
      form.addEventListener("input", () => {
        const boxes = [...form.elements].filter((each) => each.name === "cols" && each.checked);
        const values = { q: form.elements.q.value.trim(), cols: boxes.map((each) => each.value).join(" ") || start.cols };
        if (form.elements.controls) values.controls = form.elements.controls.checked ? "1" : "0";
        for (const each of filters) values[each.key] = form.elements[each.key].value;
        change(values);
      });
      form.addEventListener("submit", (event) => event.preventDefault());
      form.addEventListener("reset", (event) => {
        event.preventDefault();
        change({ ...start });
      });
      form.addEventListener("click", (event) => {
        if (event.target.dataset.save) save(event.target.dataset.save);
      });
      pages.addEventListener("click", (event) => {
        const step = Number(event.target.dataset.step || 0);
        if (!step) return;
        change({ page: state.page + step });
        table.scrollIntoView({ block: "start" });
      });
      window.addEventListener("hashchange", () => {
        if (location.hash && !location.hash.includes("=")) return; // A link to a section.
        read();
        show();
      });
    }

    const form = makeForm();
    const pages = makePages();
    const frame = table.closest(".scroll");
    frame.before(form);
    frame.after(pages);
    table.classList.add("live");
    listen();
    read();
    show();
  }

  window.addEventListener("DOMContentLoaded", () => {
    if (!window.affectbenchBoards) return;
    Object.values(window.affectbenchBoards).forEach(unpack);
    document.querySelectorAll("table[data-board]").forEach(begin);
  });
})();
