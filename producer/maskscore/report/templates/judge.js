// Judging masks: keys and buttons; what was judged is kept in the browser, per batch, and saved as a file.
"use strict";
(() => {
  const bar = document.querySelector(".judge");
  const rows = [...document.querySelectorAll("tr[data-judge]")];
  if (!bar || !rows.length) return;
  bar.hidden = false;
  const part = (name) => bar.querySelector(name);
  const button = (name) => part(`[data-do=${name}]`);
  const prefix = "maskscore.judgements.";
  // Without classes a mask is kept or dropped.
  const classes = [...bar.querySelectorAll("[data-class]")].map((one) => one.dataset.class);
  const choices = classes.length ? classes : ["keep", "drop"];
  const verdictOf = (one) => one.class ?? (one.keep ? "keep" : "drop");

  // A row's judgement, as it is saved.
  const about = (row) => {
    const of = row.closest("section").dataset;
    const number = row.dataset.part;
    return { job_id: of.job, image: of.image, mask_id: row.dataset.judge, part: number === undefined ? null : Number(number) };
  };
  // A shard is one job of many images.
  const keyOf = (one) => JSON.stringify([one.job_id, one.image, one.mask_id, one.part]);
  const byKey = new Map(rows.map((row) => [keyOf(about(row)), row]));
  const batchOf = (row) => row.closest("section").dataset.batch;
  const batches = [...new Set(rows.map(batchOf))];

  // Per batch all judgements in their order; a later one of the same mask replaces an earlier one, and undo takes the last away.
  const unstored = new Map();
  const trouble = (words) => {
    part(".trouble").hidden = !words;
    part(".trouble").textContent = words;
  };
  const history = (batch) => {
    if (unstored.has(batch)) return unstored.get(batch);
    try {
      const found = JSON.parse(localStorage.getItem(prefix + batch) ?? "[]");
      return Array.isArray(found) ? found : [];
    } catch (error) {
      trouble(`Earlier judgements cannot be read from this browser (${error.message}): save a file before you close this page.`);
      unstored.set(batch, []);
      return unstored.get(batch);
    }
  };
  const store = (batch, list) => {
    if (unstored.has(batch)) return unstored.set(batch, list);
    try {
      localStorage.setItem(prefix + batch, JSON.stringify(list));
    } catch (error) {
      unstored.set(batch, list);
      trouble(`This browser does not keep the judgements (${error.message}): save a file before you close this page.`);
    }
  };
  const everything = () => batches.flatMap((batch) => history(batch).map((one) => ({ ...one, batch })));
  const latest = () => new Map(everything().map((one) => [keyOf(one), one]));

  let current;
  const visible = () => rows.filter((row) => row.checkVisibility()).sort((a, b) => (a.compareDocumentPosition(b) & 4 ? -1 : 1));
  const nameOf = (row) => row.dataset.judge + (row.dataset.part === undefined ? "" : `, part ${row.dataset.part}`);

  const show = () => {
    const judged = latest();
    const here = [...byKey].map(([key]) => judged.get(key)).filter(Boolean);
    for (const [key, row] of byKey) {
      row.querySelector(".verdict-of")?.remove();
      const one = judged.get(key);
      if (!one) continue;
      const mark = document.createElement("span");
      mark.className = `verdict-of ${one.class !== undefined ? "class" : one.keep ? "keep" : "drop"}`;
      mark.textContent = verdictOf(one);
      row.querySelector("td.id").append(mark);
    }
    const verdicts = here.map(verdictOf);
    const counts = [...new Set([...choices, ...verdicts])].map((name) => `${verdicts.filter((one) => one === name).length} ${name}`);
    const elsewhere = judged.size - here.length;
    part(".count").textContent = `${here.length} of ${rows.length} judged: ${counts.join(", ")}` + (elsewhere ? `; ${elsewhere} on other pages` : "");
    part("progress").max = rows.length;
    part("progress").value = here.length;
    part(".now").textContent = current ? nameOf(current) : "choose a mask, or press →";
    button("undo").disabled = button("save").disabled = judged.size === 0;
    for (const one of bar.querySelectorAll("[data-do=keep], [data-do=drop], [data-do=class]")) one.disabled = !current;
  };

  const select = (row, focus) => {
    current?.removeAttribute("aria-current");
    current = row;
    row.setAttribute("aria-current", "true");
    row.scrollIntoView({ block: "center" });
    // By its buttons the focus stays on them; the mask lights up all the same.
    if (focus) row.focus({ preventScroll: true });
    else row.dispatchEvent(new PointerEvent("pointerenter"));
    show();
  };
  const move = (step, focus) => {
    const list = visible();
    if (!list.length) return;
    const at = list.indexOf(current);
    if (at < 0) return select(list.find((row) => !latest().has(keyOf(about(row)))) ?? list[0], focus);
    select(list[Math.min(Math.max(at + step, 0), list.length - 1)], focus);
  };
  const judge = (verdict, focus) => {
    // A mask that nobody has looked at is not judged.
    if (!current || !current.checkVisibility()) return move(0, focus);
    const batch = batchOf(current);
    store(batch, [...history(batch), { ...about(current), ...verdict, at: Date.now() }]);
    move(1, focus);
    show();
  };
  const undo = (focus) => {
    const last = everything().reduce((a, b) => (a && a.at > b.at ? a : b), null);
    if (!last) return;
    store(last.batch, history(last.batch).slice(0, -1));
    const row = byKey.get(keyOf(last));
    if (row?.checkVisibility()) select(row, focus);
    else show();
  };
  const save = () => {
    const judgements = [...latest().values()].map(({ at, batch, ...one }) => one);
    const text = JSON.stringify({ kind: "maskscore-judgements", version: 1, judgements }, null, 1);
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([text], { type: "application/json" }));
    link.download = `judgements-${(batches[0] || "jobs").replace(/[^\w.-]/g, "_")}.json`;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 60000);
  };

  const actions = {
    previous: (focus) => move(-1, focus),
    next: (focus) => move(1, focus),
    keep: (focus) => judge({ keep: true }, focus),
    drop: (focus) => judge({ keep: false }, focus),
    class: (focus, name) => judge({ class: name }, focus),
    undo,
    save,
  };
  const keys = { ...(classes.length ? {} : { k: "keep", d: "drop" }), u: "undo", ArrowRight: "next", ArrowDown: "next", ArrowLeft: "previous", ArrowUp: "previous" };
  addEventListener("keydown", (event) => {
    const name = classes[event.key - 1] === undefined ? keys[event.key] : "class";
    if (!name || event.ctrlKey || event.metaKey || event.altKey || event.target.closest?.("input, textarea, select")) return;
    event.preventDefault();
    actions[name](true, classes[event.key - 1]);
  });
  for (const one of bar.querySelectorAll("button")) one.addEventListener("click", () => actions[one.dataset.do](false, one.dataset.class));
  for (const row of rows) row.addEventListener("focus", () => row !== current && (current?.removeAttribute("aria-current"), (current = row), row.setAttribute("aria-current", "true"), show()));
  // Another tab with a page of the same report.
  addEventListener("storage", show);
  addEventListener("pageshow", show);
  show();
})();
