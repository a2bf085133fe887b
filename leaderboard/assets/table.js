// Sorts, filters and pages the board. Without it the page shows the first rows as a plain table.
"use strict";

(function () {
  const table = document.getElementById("rows");
  if (!table) return;
  const body = table.tBodies[0];
  const heads = [...table.tHead.rows[0].cells];
  const columns = heads.map((head) => head.dataset.sort);
  const form = document.getElementById("filters");
  const pages = document.getElementById("pages");
  const shown = document.getElementById("shown");
  const pageSize = Number(table.dataset.page);
  const filters = [...form.querySelectorAll("select")].map((select) => select.name);
  const start = { sort: "rank", dir: "ascending", q: "", controls: true, page: 1 };
  let state = { ...start };
  let groups = new Map();
  let rows = [];

  function load(elements) {
    for (const element of elements) {
      if (element.classList.contains("group")) groups.set(element.dataset.group, element);
      else rows.push({ element, index: rows.length, kind: element.dataset.kind, text: "", keys: null });
    }
  }

  function keys(row) {
    if (!row.keys) {
      row.keys = [...row.element.cells].map((cell) => cell.dataset.v);
      row.text = row.element.textContent.toLowerCase();
    }
    return row.keys;
  }

  function compare(column, direction) {
    const sign = direction === "ascending" ? 1 : -1;
    return (a, b) => {
      const last = Number(a.kind === "unscored") - Number(b.kind === "unscored");
      if (last) return last;
      const [x, y] = [keys(a)[column], keys(b)[column]];
      if (x === "" || y === "") return Number(x === "") - Number(y === "") || a.index - b.index;
      const numeric = Number(x) - Number(y);
      const order = Number.isNaN(numeric) ? x.localeCompare(y, "en", { numeric: true }) : numeric;
      return sign * order || a.index - b.index;
    };
  }

  function wanted(row) {
    if (!state.controls && row.element.dataset.kind === "control") return false;
    if (filters.some((name) => state[name] && row.element.dataset[name] !== state[name])) return false;
    keys(row);
    return state.q.toLowerCase().split(/\s+/).every((word) => row.text.includes(word));
  }

  function grouped() {
    return state.sort === "rank" && state.dir === "ascending";
  }

  function show() {
    const found = rows.filter(wanted);
    if (!grouped()) found.sort(compare(columns.indexOf(state.sort), state.dir));
    const last = Math.max(1, Math.ceil(found.length / pageSize));
    state.page = Math.min(Math.max(1, state.page), last);
    const elements = [];
    let group = null;
    for (const { element } of found.slice((state.page - 1) * pageSize, state.page * pageSize)) {
      if (grouped() && element.dataset.group !== group) {
        group = element.dataset.group;
        elements.push(groups.get(group));
      }
      elements.push(element);
    }
    body.replaceChildren(...elements);
    table.classList.toggle("grouped", grouped());
    const across = grouped() ? "" : "; ranks count only within the same model, task and protocol";
    shown.textContent = `${found.length} of ${rows.length} rows${across}`;
    pages.hidden = last === 1;
    pages.querySelector("span").textContent = `Page ${state.page} of ${last}`;
    pages.querySelector('[data-step="-1"]').disabled = state.page === 1;
    pages.querySelector('[data-step="1"]').disabled = state.page === last;
    for (const head of heads) {
      head.setAttribute("aria-sort", head.dataset.sort === state.sort ? state.dir : "none");
    }
    for (const name of filters) form.elements[name].value = state[name] || "";
    if (form.elements.q.value !== state.q) form.elements.q.value = state.q;
    form.elements.controls.checked = state.controls;
  }

  function readHash() {
    const hash = new URLSearchParams(location.hash.slice(1));
    state = { ...start, q: hash.get("q") || "", controls: hash.get("controls") !== "0" };
    if (columns.includes(hash.get("sort"))) state.sort = hash.get("sort");
    if (["ascending", "descending"].includes(hash.get("dir"))) state.dir = hash.get("dir");
    state.page = Number.parseInt(hash.get("page"), 10) || 1;
    for (const name of filters) {
      const options = [...form.elements[name].options].map((option) => option.value);
      state[name] = options.includes(hash.get(name)) ? hash.get(name) : "";
    }
  }

  function writeHash() {
    const hash = new URLSearchParams();
    for (const name of ["sort", "dir", "q", "page", ...filters]) {
      if (state[name] && state[name] !== start[name]) hash.set(name, state[name]);
    }
    if (!state.controls) hash.set("controls", "0");
    const text = hash.toString();
    history.replaceState(null, "", text ? `#${text}` : location.pathname + location.search);
  }

  function change(values) {
    Object.assign(state, { page: 1 }, values);
    show();
    writeHash();
  }

  function sortBy(head) {
    const opposite = state.dir === "ascending" ? "descending" : "ascending";
    change({ sort: head.dataset.sort, dir: head.dataset.sort === state.sort ? opposite : head.dataset.first });
  }

  function addButtons() {
    for (const head of heads) {
      const button = document.createElement("button");
      button.type = "button";
      button.append(...head.childNodes);
      button.addEventListener("click", () => sortBy(head));
      head.append(button);
    }
  }

  function listen() {
    form.addEventListener("input", () => {
      const values = { q: form.elements.q.value.trim(), controls: form.elements.controls.checked };
      for (const name of filters) values[name] = form.elements[name].value;
      change(values);
    });
    form.addEventListener("submit", (event) => event.preventDefault());
    form.addEventListener("reset", (event) => {
      event.preventDefault();
      change({ ...start, ...Object.fromEntries(filters.map((name) => [name, ""])) });
    });
    pages.addEventListener("click", (event) => {
      const step = Number(event.target.dataset.step || 0);
      if (step) change({ page: state.page + step });
    });
    window.addEventListener("hashchange", () => {
      if (location.hash && !location.hash.includes("=")) return; // a link to a section
      readHash();
      show();
    });
  }

  function begin() {
    load(body.rows);
    if (window.affectbenchMoreRows) {
      const template = document.createElement("template");
      template.innerHTML = `<table><tbody>${window.affectbenchMoreRows}</tbody></table>`;
      load(template.content.querySelectorAll("tr"));
    }
    addButtons();
    listen();
    form.hidden = false;
    readHash();
    show();
  }

  window.addEventListener("DOMContentLoaded", begin);
})();
