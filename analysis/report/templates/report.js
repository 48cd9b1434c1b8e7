// Sort numbers by value, with a bound next to its number. Other text comes before numbers; "–" comes last in both directions.
const numberPattern = /^([≤≥]?)([+−-]?[\d,]*\.?\d+(?:e[+-]?\d+)?)(?=$|%|\s)/i;
function key(text) {
  const match = text.match(numberPattern);
  if (!match) return [text === "–" || text === "" ? 2 : 0, 0, 0, text];
  return [1, Number(match[2].replaceAll(",", "").replace("−", "-")), {"≤": -1, "≥": 1}[match[1]] || 0, text];
}
function compare(a, b, sign) {
  if (a[0] === 2 || b[0] === 2) return a[0] - b[0] || 0;
  return sign * (a[0] - b[0] || a[1] - b[1] || a[2] - b[2] || a[3].localeCompare(b[3], "en", {numeric: true}));
}
for (const table of document.querySelectorAll("table.sortable")) {
  const heads = [...table.tHead.rows[0].cells], body = table.tBodies[0];
  heads.forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button"; button.title = "sort"; button.append(...head.childNodes); head.append(button);
    button.addEventListener("click", () => {
      const up = head.getAttribute("aria-sort") !== "ascending";
      heads.forEach(other => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", up ? "ascending" : "descending");
      const rows = [...body.rows].map(row => [key(row.cells[column].textContent.trim()), row]);
      body.append(...rows.sort((a, b) => compare(a[0], b[0], up ? 1 : -1)).map(pair => pair[1]));
    });
  });
}
let opened = [];
addEventListener("beforeprint", () => {
  opened = [...document.querySelectorAll("details:not([open])")];
  opened.forEach(fold => fold.open = true);
});
addEventListener("afterprint", () => opened.forEach(fold => fold.open = false));

// Say so if a figure is wider than the window, and let the keyboard scroll it.
const cards = [...document.querySelectorAll(".card")];
const markScrolling = () => cards.forEach(card => {
  const scrolls = card.scrollWidth > card.clientWidth + 1;
  card.classList.toggle("scrolls", scrolls);
  scrolls ? card.setAttribute("tabindex", "0") : card.removeAttribute("tabindex");
});
addEventListener("load", markScrolling);
addEventListener("resize", markScrolling);
document.addEventListener("toggle", markScrolling, true); // figures in folded sections
