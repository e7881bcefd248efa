"use strict";
// Tables can be sorted by any column, with the mouse or the keyboard; without this script they are as they were written.

const UNITS = { kB: 1e3, MB: 1e6, GB: 1e9, min: 60, h: 3600 };

// "1,024" → 1024, "1.5 MB" → 1500000, "1 min 15 s" → 75, "4.0× …" → 4; NaN for what begins with no number.
function number(text) {
  const parts = [...text.matchAll(/([+\-\u2212\u00b1]?)(\d[\d,]*\.?\d*)\s*(kB|MB|GB|min|h|s)?(?![\w])/g)];
  if (!parts.length || parts[0].index > 0) return NaN;
  const value = ([, sign, digits, unit]) =>
    (sign === "-" || sign === "\u2212" ? -1 : 1) * parseFloat(digits.replaceAll(",", "")) * (UNITS[unit] || 1);
  const timed = parts.length > 1 && (parts[0][3] === "min" || parts[0][3] === "h") && parts[1][3];
  return value(parts[0]) + (timed ? value(parts[1]) : 0);
}

function key(row, column) {
  let at = 0;
  for (const cell of row.cells) {
    if (at === column) return cell.innerText.trim();
    at += cell.colSpan;
    if (at > column) return "";
  }
  return "";
}

// Absent values stand last, whatever the direction; equal ones keep their order.
function sorted(items, keyOf, direction) {
  const keys = new Map(items.map((item) => [item, keyOf(item)]));
  const absent = (text) => text === "" || text === "\u2013";
  const numeric = items.every((item) => absent(keys.get(item)) || !Number.isNaN(number(keys.get(item))));
  return [...items].sort((a, b) => {
    const [x, y] = [keys.get(a), keys.get(b)];
    if (absent(x) || absent(y)) return absent(x) - absent(y);
    return direction * (numeric ? number(x) - number(y) : x.localeCompare(y));
  });
}

function sortBy(table, head, column) {
  const direction = head.getAttribute("aria-sort") === "ascending" ? -1 : 1;
  for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
  head.setAttribute("aria-sort", direction === 1 ? "ascending" : "descending");
  const bodies = [...table.tBodies];
  if (table.classList.contains("variants")) {
    // Each variant is a body of its own.
    table.append(...sorted(bodies, (body) => key(body.rows[0], column), direction));
    return;
  }
  for (const body of bodies) {
    const rows = [...body.rows].filter((row) => !row.classList.contains("group"));
    body.append(...sorted(rows, (row) => key(row, column), direction));
  }
}

for (const table of document.querySelectorAll("table")) {
  if (!table.tHead || table.querySelectorAll("tbody tr").length < 3) continue;
  [...table.tHead.rows[0].cells].forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    button.addEventListener("click", () => sortBy(table, head, column));
    head.append(button);
  });
}

// What is folded away prints, too.
let closed = [];
addEventListener("beforeprint", () => {
  closed = [...document.querySelectorAll("details:not([open])")];
  for (const part of closed) part.open = true;
});
addEventListener("afterprint", () => {
  for (const part of closed) part.open = false;
});
