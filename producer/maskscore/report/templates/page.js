// A row and its mask light up together; a heading sorts its column. Without script the page shows the same, still.
"use strict";
const reader = document.createElement("canvas").getContext("2d", { willReadFrequently: true });

// Whether a layer has the mask, and not only its box, at a point of the window.
function covers(layer, x, y) {
  const box = layer.getBoundingClientRect();
  if (x < box.left || x >= box.right || y < box.top || y >= box.bottom || !layer.naturalWidth) return false;
  const column = Math.floor(((x - box.left) / box.width) * layer.naturalWidth);
  const line = Math.floor(((y - box.top) / box.height) * layer.naturalHeight);
  reader.clearRect(0, 0, 1, 1);
  reader.drawImage(layer, -column, -line);
  return reader.getImageData(0, 0, 1, 1).data[3] > 0;
}

function connect(section) {
  const photo = section.querySelector(".photo");
  const stack = section.querySelector(".stack");
  const closer = section.querySelector(".closer");
  const layers = [...section.querySelectorAll(".layer")].reverse();
  const rows = new Map([...section.querySelectorAll("tbody tr")].map((row) => [row.dataset.mask, row]));
  let picked;

  const pick = (mask) => {
    if (mask === picked) return;
    for (const one of section.querySelectorAll(".on")) one.classList.remove("on");
    picked = mask;
    photo?.classList.toggle("picked", layers.some((layer) => layer.dataset.mask === mask));
    if (mask === undefined) return;
    for (const one of section.querySelectorAll(`[data-mask="${mask}"]`)) one.classList.add("on");
    show(rows.get(mask));
  };
  const show = (row) => {
    const crop = row.querySelector(".crop img")?.cloneNode();
    const facts = row.querySelector(".facts").cloneNode(true);
    facts.hidden = false;
    crop?.removeAttribute("loading");
    closer?.replaceChildren(...(crop ? [crop] : []), facts);
  };

  for (const [mask, row] of rows) {
    row.addEventListener("pointerenter", () => pick(mask));
    row.addEventListener("pointerleave", (event) => event.pointerType === "mouse" && pick(undefined));
    row.addEventListener("focus", () => pick(mask));
    row.addEventListener("blur", () => pick(undefined));
  }
  if (stack && rows.size) {
    const at = (event) => layers.find((layer) => covers(layer, event.clientX, event.clientY))?.dataset.mask;
    stack.addEventListener("pointermove", (event) => pick(at(event)));
    stack.addEventListener("pointerleave", (event) => event.pointerType === "mouse" && pick(undefined));
    stack.addEventListener("click", (event) => {
      const row = rows.get(at(event));
      row?.scrollIntoView({ block: "center" });
      row?.focus({ preventScroll: true });
    });
    closer.hidden = false;
    show([...rows.values()].find((row) => row.querySelector(".crop img")) ?? rows.get("0"));
  }
  sortable(section);
}

// The value of a row in a column; a skipped mask's sentence spans several columns and has none.
function valueOf(row, column) {
  let first = 0;
  for (const cell of row.cells) {
    if (column < first + cell.colSpan) return cell.dataset.value ?? cell.textContent.trim();
    first += cell.colSpan;
  }
  return "";
}

function sortable(section) {
  const body = section.querySelector("tbody");
  if (!body) return;
  const original = [...body.rows];
  const headings = [...section.querySelectorAll("th")];
  headings.forEach((heading, column) => {
    heading.querySelector("button")?.addEventListener("click", () => {
      const numbers = heading.classList.contains("number");
      const orders = numbers ? ["descending", "ascending", null] : ["ascending", "descending", null];
      const order = orders[(orders.indexOf(heading.getAttribute("aria-sort")) + 1) % 3];
      for (const other of headings) other.removeAttribute("aria-sort");
      if (!order) return body.append(...original);
      heading.setAttribute("aria-sort", order);
      const sign = order === "ascending" ? 1 : -1;
      const keyed = original.map((row) => [valueOf(row, column), row]);
      keyed.sort(([a], [b]) => {
        if (a === "" || b === "") return (a === "") - (b === "");
        return sign * (numbers ? a - b : a.localeCompare(b, undefined, { numeric: true }));
      });
      body.append(...keyed.map(([, row]) => row));
    });
  });
}

// Rows whose mask or prompts hold the words typed, and their layers; the others go away.
function searchable(search) {
  const sections = [...document.querySelectorAll("section")];
  const rows = sections.flatMap((section) => [...section.querySelectorAll("tbody tr")].map((row) => [section, row, row.textContent.toLowerCase()]));
  search.hidden = rows.length === 0;
  search.querySelector("input").addEventListener("input", (event) => {
    const words = event.target.value.trim().toLowerCase();
    let left = 0;
    for (const [section, row, text] of rows) {
      const away = !text.includes(words);
      left += !away;
      for (const one of section.querySelectorAll(`[data-mask="${row.dataset.mask}"]`)) one.classList.toggle("away", away);
    }
    search.querySelector("[role=status]").textContent = words ? `${left} of ${rows.length}` : "";
  });
}

// A link from a contact sheet ends at its row, with its mask lit.
function land() {
  const row = document.getElementById(location.hash.slice(1));
  if (row?.tagName !== "TR") return;
  row.scrollIntoView({ block: "center" });
  row.focus({ preventScroll: true });
}

document.querySelectorAll("section").forEach(connect);
document.querySelectorAll(".search").forEach(searchable);
const hint = document.querySelector(".hint");
if (hint) hint.hidden = !document.querySelector(".layer");
addEventListener("hashchange", land);
land();
