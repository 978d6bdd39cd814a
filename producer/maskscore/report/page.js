// A row and its mask light up together; a column's heading sorts by it. Without script the page shows the same, still.
for (const section of document.querySelectorAll("section")) {
  const photo = section.querySelector(".photo");
  const pick = (index) => {
    for (const one of section.querySelectorAll("[data-mask]")) one.classList.toggle("on", one.dataset.mask === index);
    photo?.classList.toggle("picked", index !== undefined);
  };
  for (const one of section.querySelectorAll("[data-mask]")) {
    one.addEventListener("mouseenter", () => pick(one.dataset.mask));
    one.addEventListener("mouseleave", () => pick(undefined));
    one.addEventListener("focus", () => pick(one.dataset.mask));
    one.addEventListener("blur", () => pick(undefined));
  }
  for (const layer of section.querySelectorAll(".layer")) {
    layer.addEventListener("click", () => {
      section.querySelector(`tr[data-mask="${layer.dataset.mask}"]`)?.scrollIntoView({ block: "nearest" });
    });
  }
  const body = section.querySelector("tbody");
  section.querySelectorAll("th").forEach((heading, column) => {
    heading.querySelector("button")?.addEventListener("click", () => {
      const descending = heading.getAttribute("aria-sort") !== "descending";
      section.querySelectorAll("th").forEach((other) => other.removeAttribute("aria-sort"));
      heading.setAttribute("aria-sort", descending ? "descending" : "ascending");
      const key = (row) => row.cells[column].dataset.value ?? row.cells[column].textContent.trim();
      const compare = (a, b) => {
        const [x, y] = [key(a), key(b)];
        const numbers = x !== "" && y !== "" && !isNaN(x) && !isNaN(y);
        return numbers ? x - y : x.localeCompare(y, undefined, { numeric: true });
      };
      body.append(...[...body.rows].sort((a, b) => (descending ? compare(b, a) : compare(a, b))));
    });
  });
}
