// Sorts plain tables (table.sortable) by a click on a heading; without it they stand in their own order.
"use strict";

(function () {
  function value(row, at) {
    const cell = row.cells[at];
    if (cell.dataset.v !== undefined) return Number(cell.dataset.v);
    const text = cell.textContent.trim();
    return text === "–" ? null : text;
  }
  function compared(a, b) {
    if (typeof a === "number" && typeof b === "number") return a - b;
    return String(a).localeCompare(String(b), "en", { numeric: true });
  }
  function begin(table) {
    const body = table.tBodies[0];
    const heads = [...table.tHead.rows[0].cells];
    heads.forEach((head, at) => {
      const button = document.createElement("button");
      button.type = "button";
      button.append(...head.childNodes);
      head.append(button);
      button.addEventListener("click", () => {
        const numeric = [...body.rows].some((row) => row.cells[at].dataset.v !== undefined);
        const now = head.getAttribute("aria-sort");
        const next = (now || (numeric ? "ascending" : "descending")) === "ascending" ? "descending" : "ascending";
        heads.forEach((each) => each.removeAttribute("aria-sort"));
        head.setAttribute("aria-sort", next);
        const sign = next === "ascending" ? 1 : -1;
        const keyed = [...body.rows].map((row) => [value(row, at), row]);
        keyed.sort(([a], [b]) => {
          if (a === null || b === null) return (a === null) - (b === null);
          return sign * compared(a, b);
        });
        body.append(...keyed.map(([, row]) => row));
      });
    });
  }
  document.querySelectorAll("table.sortable").forEach(begin);
})();
