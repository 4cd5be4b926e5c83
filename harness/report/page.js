// Sorting and filtering of the tables of class `board`. Without it the page is the same, as plain tables.
(() => {
  const boards = [...document.querySelectorAll("table.board")];
  const heads = (board) => [...board.tHead.rows[0].cells];
  const text = (cell) => cell.textContent.trim();

  // Numbers by their first number, words by the alphabet, and what is missing last in either direction.
  const sort = (board, column, sign) => {
    const numbers = heads(board)[column].classList.contains("number");
    const key = (row) => {
      const shown = text(row.cells[column]);
      if (!numbers) return shown;
      const value = parseFloat(shown.replaceAll(",", ""));
      return Number.isNaN(value) ? null : value;
    };
    const keyed = [...board.tBodies[0].rows].map((row, place) => [key(row), place, row]);
    keyed.sort(([a, i], [b, j]) => {
      if (a === null || b === null) return (a === null) - (b === null) || i - j;
      return sign * (numbers ? a - b : a.localeCompare(b)) || i - j;
    });
    board.tBodies[0].append(...keyed.map(([, , row]) => row));
  };

  for (const board of boards) {
    heads(board).forEach((head, column) => {
      const button = document.createElement("button");
      button.type = "button";
      button.append(...head.childNodes);
      head.append(button);
      button.addEventListener("click", () => {
        const first = head.classList.contains("number") ? "descending" : "ascending";
        const other = first === "descending" ? "ascending" : "descending";
        const order = head.getAttribute("aria-sort") === first ? other : first;
        heads(board).forEach((one) => one.removeAttribute("aria-sort"));
        head.setAttribute("aria-sort", order);
        sort(board, column, order === "ascending" ? 1 : -1);
      });
    });
  }

  const form = document.querySelector("form");
  const filter = () => {
    const wanted = Object.fromEntries([...form.elements].map((field) => [field.name, field.value]));
    let shown = 0, all = 0;
    for (const part of document.querySelectorAll("[data-dataset]"))
      part.hidden = Boolean(wanted.dataset) && part.dataset.dataset !== wanted.dataset;
    for (const board of boards) {
      const away = board.closest("[data-dataset]").hidden;
      const names = heads(board).map((head) => head.dataset.key);
      const hidden = heads(board).map(
        (head) => Boolean(wanted.protocol && head.dataset.protocol) && head.dataset.protocol !== wanted.protocol);
      for (const row of board.tBodies[0].rows) {
        row.hidden = ["encoder", "epochs"].some(
          (key) => wanted[key] && names.includes(key) && text(row.cells[names.indexOf(key)]) !== wanted[key]);
        if (!board.closest("details")) { all += 1; shown += !row.hidden && !away; }
      }
      for (const row of board.rows) [...row.cells].forEach((cell, column) => { cell.hidden = hidden[column]; });
    }
    form.querySelector("output").textContent = shown === all ? "" : `${shown} of ${all} rows`;
  };
  if (form) {
    form.hidden = false;
    form.addEventListener("change", filter);
    form.addEventListener("reset", () => setTimeout(filter));
    filter(); // a browser may have kept what was chosen
  }

  // What a link points to may lie in a folded part.
  const reveal = () => {
    const target = location.hash.length > 1 && document.getElementById(decodeURIComponent(location.hash.slice(1)));
    for (let part = target && target.closest("details"); part; part = part.parentElement.closest("details")) part.open = true;
    if (target) target.scrollIntoView();
  };
  addEventListener("hashchange", reveal);
  reveal();
})();
