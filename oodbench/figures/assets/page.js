"use strict";
// What is data becomes text nodes, never markup. Tables are Tabulator's, figures are Observable Plot's.
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const NONE = "–";
  const dialog = document.getElementById("origin");

  // ---- elements -------------------------------------------------------------------------------------

  function make(tag, attributes = {}, ...children) {
    const found = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) {
      if (name.startsWith("on")) found.addEventListener(name.slice(2), value);
      else if (value !== false) found.setAttribute(name, value === true ? "" : value);
    }
    found.append(...children.filter((each) => each !== null));
    return found;
  }

  function list(pairs) {
    const shown = pairs.filter(([, value]) => value !== null && value !== "" && value !== undefined);
    return make("dl", {}, ...shown.flatMap(([name, value]) => [make("dt", {}, name), make("dd", {}, String(value))]));
  }

  // ---- numbers --------------------------------------------------------------------------------------

  /** Return the records of a table whose columns are distinct values and the place of each row's among them. */
  function records(table) {
    const columns = Object.entries(table.columns);
    return Array.from({ length: table.size }, (_, row) => {
      const found = { row };
      for (const [name, { values, codes }] of columns) found[name] = values[codes.length ? codes[row] : 0];
      return found;
    });
  }

  const plain = (value) => (typeof value === "number" ? String(value) : value ?? NONE);
  const tenth = (value) => (typeof value === "number" ? value.toFixed(1) : NONE);

  /** Return the text of one number of the leaderboard: its mean, and the deviation or interval beside it. */
  function spread(record, place, kind) {
    const [mean, deviation, low, high] = ["mean", "deviation", "low", "high"].map((part) => record[`${place} ${part}`]);
    if (mean === null) return NONE;
    const beside = { deviation: deviation === null ? "" : ` ± ${tenth(deviation)}`, interval: low === null ? "" : ` [${tenth(low)}, ${tenth(high)}]` };
    return tenth(mean) + (beside[kind] ?? "") + (record[`${place} unlearned`] ? " †" : "");
  }

  // ---- where a number comes from --------------------------------------------------------------------

  const rows = records(data.rows);
  const method = (record, labels) => labels.map((name) => record[name]).filter((each) => each && each !== NONE).join(" · ");
  const withUnit = (name) => (data.units[name] ? `${name}, ${data.units[name]}` : name);

  function origin(row) {
    const { row: _, train_key, detector, ...rest } = rows[row];
    const title = `${rest.id} · seed ${rest.seed} · ${rest.ood}: AUROC ${tenth(rest.auroc)} %`;
    const trained = data.runs[train_key];
    return make("details", {}, make("summary", {}, title),
      make("p", {}, make("code", {}, `oodbench show ${data.study} ${rest.cell}/${rest.ood}`)),
      list(Object.entries(rest).map(([name, value]) => [withUnit(name), value])),
      make("h4", {}, "Detector"), make("pre", {}, detector ? JSON.stringify(JSON.parse(detector), null, 1) : NONE),
      make("h4", {}, `Training ${train_key}`), make("pre", {}, trained ? JSON.stringify(trained, null, 1) : "its file in runs/ is not there"));
  }

  function showOrigin(title, numbers) {
    const shown = numbers.map(origin);
    if (shown.length === 1) shown[0].open = true;
    const close = make("button", { onclick: () => dialog.close() }, "Close");
    dialog.replaceChildren(close, make("h3", { id: "origin-title" }, title), make("p", {}, `${shown.length} ${shown.length === 1 ? "row" : "rows"} behind it`), ...shown);
    dialog.showModal();
  }

  // ---- tables with filters --------------------------------------------------------------------------

  function choices(title, values, chosen, changed) {
    const box = make("details", {}, make("summary", {}, title));
    const options = make("div", { class: "choices" });
    for (const value of values) {
      const tick = make("input", { type: "checkbox", checked: chosen.has(value), onchange: () => {
        tick.checked ? chosen.add(value) : chosen.delete(value);
        changed();
      } });
      options.append(make("label", {}, tick, String(value)));
    }
    box.append(options);
    box.addEventListener("keydown", (event) => { if (event.key === "Escape") { box.open = false; box.firstChild.focus(); } });
    return box;
  }

  /** A table of `records` with columns {field, title, group?, hidden?, text, number}; labels are what it is filtered by. */
  function table(place, records, labels, columns, open, extra = []) {
    const varied = labels.map((name) => [name, [...new Set(records.map((each) => each[name] ?? NONE))]]).filter(([, values]) => values.length > 1);
    const chosen = Object.fromEntries(varied.map(([name]) => [name, new Set()]));
    const words = make("input", { type: "search", placeholder: "words", "aria-label": "rows with these words", oninput: () => renew() });
    const boxes = varied.map(([name, values]) => choices(name, values, chosen[name], () => renew()));
    const count = make("p", { class: "count", "aria-live": "polite" });
    const holder = make("div");
    const reset = make("button", { type: "reset" }, "All rows");
    const form = make("form", { class: "controls", onsubmit: (event) => event.preventDefault(), onreset: () => {
      Object.values(chosen).forEach((each) => each.clear());
      setTimeout(renew);
    } }, words, ...boxes, reset);
    const picks = make("div", { class: "controls" }, ...extra.map((each) => each.control));
    place.append(form, picks, count, holder);

    const shown = new Tabulator(holder, {
      data: records, index: "row", height: "min(36rem, 80vh)", nestedFieldSeparator: false, layout: "fitData", placeholder: "No row is left by these filters.",
      columnDefaults: { resizable: "header" },
      columns: [{ field: "row", title: "#", titleFormatter: () => document.createTextNode("#"), headerSort: false, frozen: innerWidth > 700, formatter: (cell) => {
        const record = cell.getData();
        return make("button", { "aria-label": `where line ${record.row + 1} comes from`, onclick: () => open(record) }, String(record.row + 1));
      } }, ...columns.map(tableColumn)],
    });
    for (const each of extra) each.listen(shown);

    function renew() {
      const wanted = words.value.toLowerCase().split(/\s+/).filter(Boolean);
      boxes.forEach((box, i) => box.classList.toggle("chosen", chosen[varied[i][0]].size > 0));
      shown.setFilter((record) => varied.every(([name]) => !chosen[name].size || chosen[name].has(record[name] ?? NONE))
        && wanted.every((word) => method(record, labels).toLowerCase().includes(word)));
    }
    shown.on("dataFiltered", (_, left) => { count.textContent = `${left.length} of ${records.length} lines`; });
    document.addEventListener("click", (event) => boxes.concat(...picks.children).forEach((box) => { if (box.tagName === "DETAILS" && !box.contains(event.target)) box.open = false; }));
    return shown;
  }

  function tableColumn({ field, title, text, number, visible }) {
    return {
      field, title: field, visible, sorter: number ? "number" : "alphanum", sorterParams: { alignEmptyValues: "bottom" },
      headerSortStartingDir: number ? "desc" : "asc", hozAlign: number ? "right" : "left", headerHozAlign: number ? "right" : "left", cssClass: number ? "number" : "",
      titleFormatter: () => make("button", { type: "button" }, title), formatter: (cell) => document.createTextNode(text(cell.getData())),
    };
  }

  /** A list of columns to show, in groups of names; a column is shown where all that it needs is ticked. */
  function picker(title, values, chosen, needs) {
    let table = null;
    const control = choices(title, values, chosen, () => {
      for (const [field, needed] of needs) table.getColumn(field)[needed() ? "show" : "hide"]();
      table.redraw();
    });
    return { control, listen: (found) => { table = found; } };
  }

  function board(place) {
    const { labels, titles, rows: behind } = data.board;
    const found = records(data.board);
    const several = labels.filter((name) => new Set(found.map((each) => each[name])).size > 1);
    const groups = ["ID", "near", "far", "ood"];
    const sets = [...new Set(titles.map(([set]) => set))], metrics = [...new Set(titles.map(([, metric]) => metric))];
    const someGroup = sets.some((set) => groups.includes(set) && set !== "ID");
    const ofSets = new Set(someGroup ? sets.filter((set) => groups.includes(set)) : sets);
    const ofMetrics = new Set(metrics.filter((metric) => metric !== "FPR95_ood"));
    const ofLabels = new Set(several.length ? several : labels.slice(0, 1));
    let kind = "interval";
    const columns = [
      ...labels.map((name) => ({ field: name, title: name, visible: ofLabels.has(name), text: (record) => plain(record[name]) })),
      ...titles.map(([set, metric], place) => ({
        field: `${place} mean`, title: `${set} ${metric}, %`, number: true, visible: ofSets.has(set) && ofMetrics.has(metric), text: (record) => spread(record, place, kind),
      })),
      { field: "n", title: "runs", number: true, text: (record) => plain(record.n) },
    ];
    for (const each of found) each.n = Math.min(...titles.map((_, place) => each[`${place} n`]).filter((n) => n > 0));
    const needs = [
      ...labels.map((name) => [name, () => ofLabels.has(name)]),
      ...titles.map(([set, metric], place) => [`${place} mean`, () => ofSets.has(set) && ofMetrics.has(metric)]),
    ];
    const select = make("select", { "aria-label": "beside a mean" }, make("option", { value: "interval" }, "mean [95 % interval]"), make("option", { value: "deviation" }, "mean ± deviation"), make("option", { value: "" }, "mean alone"));
    const shows = { control: select, listen: (table) => select.addEventListener("change", () => {
      kind = select.value;
      table.getRows("active").forEach((row) => row.reformat());
    }) };
    return table(place, found, labels, columns, (record) => showOrigin(method(record, several), behind[record.row]), [
      picker("tested on", sets, ofSets, needs), picker("numbers", metrics, ofMetrics, needs), picker("columns", labels, ofLabels, needs), shows,
    ]);
  }

  function everyRow(place) {
    const { labels, columns } = data.rows;
    const names = [...labels, "status", ...Object.keys(columns).filter((name) => !labels.includes(name) && name !== "status" && name !== "detector")];
    const varied = (name) => columns[name].values.length > 1;
    const usual = ["auroc", "fpr95_id", "fpr95_ood", "accuracy", "id_recall", "ood_recall", "score_seconds"];
    const chosen = new Set(names.filter((name) => (labels.includes(name) && varied(name) && name !== "recipe") || usual.includes(name)));
    const numeric = (name) => columns[name].values.every((each) => each === null || typeof each === "number");
    return table(place, rows, [...labels, "status"], names.map((name) => ({
      field: name, title: withUnit(name), number: numeric(name), visible: chosen.has(name),
      text: (record) => (data.units[name] === "%" ? tenth(record[name]) : plain(record[name])),
    })), (record) => showOrigin(method(record, labels.filter(varied)), [record.row]), [
      picker("columns", names, chosen, names.map((name) => [name, () => chosen.has(name)])),
    ]);
  }

  // ---- the page -------------------------------------------------------------------------------------

  const makers = { board, rows: everyRow };
  const tables = {};
  for (const place of document.querySelectorAll("[data-table]")) tables[place.dataset.table] = makers[place.dataset.table](place);
  window.tables = tables;
  document.querySelector("nav").append(...[...document.querySelectorAll("section")].map((each) => make("a", { href: `#${each.id}` }, each.querySelector("h2").textContent)));
})();
