"use strict";
// What is data becomes text nodes, never markup. Tables are Tabulator's, figures are Observable Plot's.
(async () => {
  const data = await unpacked(document.getElementById("data").textContent);
  const NONE = "–";
  const dialog = document.getElementById("origin");

  /** Return what JSON in base64 of gzip says. */
  async function unpacked(text) {
    const bytes = Uint8Array.from(atob(text), (sign) => sign.charCodeAt(0));
    return new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"))).json();
  }

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

  /** Return the records of a table whose columns are distinct values and the place of each row's among them, or a value a row. */
  function records(table) {
    const columns = Object.entries(table.columns);
    return Array.from({ length: table.size }, (_, row) => {
      const found = { row };
      for (const [name, { values, codes }] of columns) found[name] = values[!codes ? row : codes.length ? codes[row] : 0];
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
  const method = (record, labels) => labels.map((name) => (typeof record[name] === "number" ? `${name} ${record[name]}` : record[name]))
    .filter((each) => each && each !== NONE).join(" · ");
  const withUnit = (name) => (data.units[name] ? `${name}, ${data.units[name]}` : name);

  function origin(row) {
    const { row: _, train_key, detector, ...rest } = rows[row];
    const title = `${rest.id} · seed ${rest.seed} · ${rest.ood}: AUROC ${tenth(rest.auroc)} %`;
    const trained = data.runs[train_key];
    return make("details", {}, make("summary", {}, title),
      data.study ? make("p", {}, make("code", {}, `oodbench show ${data.study} ${rest.cell}/${rest.ood}`)) : "",
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
      data: records, index: "row", [records.length > 15 ? "height" : "maxHeight"]: "min(36rem, 80vh)", nestedFieldSeparator: false, layout: "fitData", placeholder: "No row is left by these filters.",
      columnDefaults: { resizable: "header", maxInitialWidth: 210 },
      columns: [...(open ? [{ field: "row", title: "#", titleFormatter: () => document.createTextNode("#"), headerSort: false, frozen: innerWidth > 700, formatter: (cell) => {
        const record = cell.getData();
        return make("button", { "aria-label": `where line ${record.row + 1} comes from`, onclick: () => open(record) }, String(record.row + 1));
      } }] : []), ...columns.map(tableColumn)],
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

  function tableColumn({ field, title, text, number, visible, mark }) {
    return {
      field, title: field, visible, sorter: number ? "number" : "alphanum", sorterParams: { alignEmptyValues: "bottom" },
      headerSortStartingDir: number ? "desc" : "asc", variableHeight: !number, hozAlign: number ? "right" : "left", headerHozAlign: number ? "right" : "left", cssClass: number ? "number" : "",
      titleFormatter: () => make("button", { type: "button" }, title), formatter: (cell) => {
        const shown = text(cell.getData());
        return make(["span", "strong", "em"][mark?.(cell.getData()) ?? 0], { title: shown }, shown);
      },
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
    const named = labels.map((name) => ({ field: name, title: name, visible: ofLabels.has(name), text: (record) => plain(record[name]) }));
    const first = innerWidth > 700 ? named.length : 1; // on a narrow screen numbers stand beside the first label
    const columns = [
      ...named.slice(0, first),
      ...titles.map(([set, metric], place) => ({
        field: `${place} mean`, title: `${set} ${metric}, %`, number: true, visible: ofSets.has(set) && ofMetrics.has(metric), text: (record) => spread(record, place, kind), mark: (record) => record[`${place} mark`],
      })),
      { field: "n", title: "runs", number: true, text: (record) => plain(record.n) },
      ...named.slice(first),
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

  function against(place) {
    const { columns } = data.figures.against;
    const found = records(data.figures.against);
    const names = Object.keys(columns);
    return table(place, found, ["ID", "OOD", "metric", "state", "source"], names.map((name) => ({
      field: name, title: { difference: "difference, points", published: "published, %", ours: "ours, %" }[name] ?? name, number: name === "difference", visible: name !== "state",
      text: (record) => (name === "difference" && record[name] !== null ? (record[name] > 0 ? "+" : "") + record[name].toFixed(2) : plain(record[name])),
    })), null);
  }

  // ---- figures --------------------------------------------------------------------------------------

  const dark = matchMedia("(prefers-color-scheme: dark)");
  let onPaper = false; // where figures are as wide as a page, and in light colours
  const isDark = () => dark.matches && !onPaper;
  const colours = () => (isDark() // each at least 3:1 against the paper, and told apart by the colour-blind
    ? ["#56b4e9", "#e69f00", "#2fc59b", "#e59ac4", "#a79bff", "#f0e442", "#ff8a70", "#bbbbbb"]
    : ["#0072b2", "#b35900", "#007a5e", "#a8487f", "#5b4fc4", "#8a6d00", "#c0392b", "#555555"]);
  const look = { style: { background: "none", fontSize: "12px", fontFamily: "inherit" } };
  const unique = (records, name) => [...new Set(records.map((each) => each[name]))];

  const SHAPES = ["circle", "square", "triangle", "diamond", "star", "cross", "wye", "times"];
  const shapes = (values) => ({ domain: values, range: values.map((_, i) => SHAPES[(i + Math.floor(i / 8)) % 8]) }); // of one colour no two alike
  const deeper = (colour) => d3.color(colour)[isDark() ? "brighter" : "darker"](1.2).formatHex(); // still further from the paper
  const hues = (values) => ({ domain: values, range: values.map((_, i) => (i % 16 < 8 ? colours()[i % 8] : deeper(colours()[i % 8]))) });

  /** Return dots with a shape and a colour for each value of a label, a tip, and what a click opens. */
  function dots(records, { x, y, fx, by, say, marks = [] }, options, opened) {
    const values = data.rows.columns[by].values.map((each) => each ?? NONE);
    const drawn = Plot.plot({
      ...look, height: 440, grid: true, inset: 8, marginTop: 30, marginBottom: 44, ...options,
      color: hues(values), symbol: { ...shapes(values), legend: true },
      marks: [...marks, Plot.dot(records, { x, y, fx, stroke: by, symbol: by, r: 3.5 }),
        Plot.tip(records, Plot.pointer({ x, y, fx, title: say, fill: "var(--paper)", maxRadius: 20 }))],
    });
    if (opened) {
      drawn.classList.add("pointed");
      drawn.addEventListener("click", () => drawn.value && opened(drawn.value));
    }
    return drawn;
  }

  const place = (set) => data.board.titles.findIndex(([each, metric]) => each === set && metric === "AUROC");
  const several = () => data.board.labels.filter((name) => data.board.columns[name].values.length > 1);
  const openLine = (record) => showOrigin(method(record, several()) || NONE, data.board.rows[record.row]);
  const numbered = (records, ...fields) => records.filter((each) => fields.every((field) => typeof each[field] === "number"));

  /** Return a function that returns what is chosen of values, each with its text. */
  function select(controls, says, values, changed) {
    const box = make("select", { "aria-label": says, onchange: changed });
    const fill = (given) => box.replaceChildren(...given.map(([value, text]) => make("option", { value }, text)));
    fill(values);
    controls.append(make("label", {}, `${says} `, box));
    return Object.assign(() => box.value, { fill, set: (value) => { box.value = value; }, text: () => box.selectedOptions[0].textContent });
  }

  // Each takes where its controls go and what redraws it, and returns what draws it at a width.
  const drawings = {
    heat() {
      const family = data.board.columns.family.values.length > 1;
      const found = records(data.figures.heat).map((each) => ({ ...each, on: `${family ? `${each.family}: ` : ""}${each.ood} (${each.group})` }));
      const trainings = unique(found, "training"), sets = unique(found, "on"), distances = unique(found, "scorer");
      const low = Math.min(...found.map((each) => each.auroc)), high = Math.max(...found.map((each) => each.auroc));
      const at = { x: "training", y: "scorer", fx: "on" };
      const say = (each) => `${each.training}\n${each.scorer}\n${each.on}\n${tenth(each.auroc)} %`;
      const longest = (names, most) => Math.min(most, Math.max(...names.map((each) => String(each).length))); // letters, of 7 pixels
      const [across, down] = [longest(distances, innerWidth > 700 ? 46 : 22), longest(trainings, 30)];
      const [marginLeft, marginBottom] = [20 + 7 * across, 30 + 6 * down];
      const wide = Math.max(trainings.length * 42 + 24, 7 * longest(sets, 24) + 16); // of a set, whose name is above its cells
      return () => Plot.plot({
        ...look, width: 20 + marginLeft + sets.length * wide, height: 70 + marginBottom + distances.length * 24, marginLeft, marginBottom, marginTop: 50,
        padding: 0.04, color: { scheme: "cividis", domain: [low, high], legend: true, label: "AUROC, %" },
        x: { label: null, domain: trainings }, y: { label: null, domain: distances }, fx: { label: null, domain: sets, padding: 0.06 },
        marks: [
          Plot.axisX({ tickRotate: -60, textOverflow: "ellipsis", lineWidth: down * 0.6 }), Plot.axisY({ textOverflow: "ellipsis", lineWidth: across * 0.6 }),
          Plot.axisFx({ anchor: "top", textOverflow: "ellipsis", lineWidth: (wide - 16) / 11 }),
          Plot.cell(found, { ...at, fill: "auroc" }),
          Plot.text(found, { ...at, text: (each) => tenth(each.auroc), fontSize: 11, fill: (each) => (each.auroc - low < 0.46 * (high - low) ? "white" : "black") }),
          Plot.tip(found, Plot.pointer({ ...at, fill: "var(--paper)", title: say })),
        ],
      });
    },

    near_far() {
      const [near, far] = [place("near"), place("far")];
      const say = (each) => `${method(each, several())}\nnear ${spread(each, near, "interval")} %\nfar ${spread(each, far, "interval")} %`;
      return (width) => dots(numbered(left, `${near} mean`, `${far} mean`), { x: `${far} mean`, y: `${near} mean`, by: "training", say },
        { width, x: { label: "far AUROC, %" }, y: { label: "near AUROC, %" } }, openLine);
    },

    pareto(controls, redraw) {
      const all = records(data.figures.pareto);
      const group = select(controls, "AUROC on", unique(all, "group").map((each) => [each, each]), redraw);
      const lines = new Map(tables.board.options.data.map((each) => [each.row, each]));
      const say = (each) => `${method(lines.get(each.line), several())}\n${tenth(each.auroc)} %\n${each.seconds} s`;
      return (width) => {
        const kept = new Set(left.map((each) => each.row));
        const found = all.filter((each) => each.group === group() && each.seconds > 0).map((each) => ({ ...each, training: lines.get(each.line).training }));
        const front = found.filter((each) => each.front).sort((a, b) => a.seconds - b.seconds);
        return dots(found.filter((each) => kept.has(each.line)), { x: "seconds", y: "auroc", by: "training", say, marks: [Plot.line(front, { x: "seconds", y: "auroc", curve: "step-after" })] },
          { width, x: { type: "log", label: "seconds", tickFormat: "~g" }, y: { label: `${group()} AUROC, %` } }, (each) => openLine(lines.get(each.line)));
      };
    },

    quality(controls, redraw) {
      const found = records(data.figures.quality), { columns } = data.figures.quality;
      const labels = ["train_key", "training", "space", "clustering", "distance", "group", "auroc"];
      const measures = Object.keys(columns).filter((name) => !labels.includes(name) && columns[name].values.length > 1);
      const measure = select(controls, "measure", measures.map((each) => [each, each]), redraw);
      const distance = select(controls, "distance", columns.distance.values.map((each) => [each, each]), redraw);
      const say = (each) => `${method(each, labels.slice(1, 6))}\n${measure()} ${each[measure()]}\nAUROC ${tenth(each.auroc)} %`;
      return (width) => dots(numbered(found, measure()).filter((each) => each.distance === distance()), { x: measure(), y: "auroc", fx: "group", by: "training", say },
        { width, x: { label: measure() }, y: { label: "AUROC, %" }, fx: { label: null, domain: ["near", "far"].filter((each) => columns.group.values.includes(each)) } });
    },

    course(controls, redraw) {
      const { columns } = data.figures.course, all = records(data.figures.course);
      const by = Object.keys(columns).filter((name) => !["epoch", "kind", "number", "mean", "std", "n"].includes(name));
      const scorer = by.includes("distance") ? "distance" : by[by.length - 1], trainings = data.rows.columns.training.values;
      const numbers = unique(all, "number").map((each) => [each, `${all.find((one) => one.number === each).kind} ${each}`]);
      const number = select(controls, "number", numbers, redraw);
      number.set(all.find((each) => each.kind === "AUROC")?.number ?? numbers[0][0]);
      const say = (each) => `${method(each, by)}\nepoch ${each.epoch}: ${tenth(each.mean)}${each.std === null ? "" : ` ± ${tenth(each.std)}`}, ${each.n} runs`;
      return (width) => {
        const found = all.filter((each) => each.number === number()), at = { x: "epoch", y: "mean", fx: scorer };
        return Plot.plot({
          ...look, width: Math.max(width, 220 * unique(found, scorer).length), height: 380, grid: true, inset: 8, marginTop: 40, marginBottom: 44,
          color: { ...hues(trainings), legend: true },
          x: { label: "epoch" }, y: { label: `${number.text()}, ${found[0].kind === "clusters" ? "times 100" : "%"}` }, fx: { label: null },
          marks: [Plot.lineY(found, { ...at, stroke: "training", z: (each) => method(each, by), strokeWidth: 2, marker: "dot" }), Plot.tip(found, Plot.pointer({ ...at, fill: "var(--paper)", title: say }))],
        });
      };
    },

    ranks() {
      const found = records(data.figures.ranks), best = found[0].rank, { difference } = found[0];
      return (width) => Plot.plot({
        ...look, width, height: 80 + 18 * found.length, marginLeft: 260, grid: true, x: { label: "mean rank" }, y: { label: null, domain: found.map((each) => each.detector) },
        marks: [Plot.rectX([0], { x1: best, x2: best + difference, fill: "currentColor", fillOpacity: 0.12 }), Plot.axisY({ textOverflow: "ellipsis", lineWidth: 20 }),
          Plot.dot(found, { x: "rank", y: "detector", fill: colours()[0] })],
      });
    },

    bank(controls, redraw) {
      const varied = (labels, given) => labels.filter((name) => new Set(given.map((row) => rows[row][name])).size > 1);
      const told = (labels) => new Set(data.maps.map(({ row }) => method(rows[row], labels))).size; // apart by labels
      const called = ["id", "encoder", "outliers", "precision", "reference", "recipe"].reduce((before, name) => (told([...before, name]) > told(before) ? [...before, name] : before), ["training"]);
      const name = ({ row, space }) => `${method(rows[row], called)}, seed ${rows[row].seed}: ${space}`;
      const colourings = ({ scored }) => [["set", "set"], ["class", "ID class"], ...scored.map((row) => [`score ${row}`,
        `score: ${method(rows[row], varied(data.rows.labels, scored)) || method(rows[row], ["distance", "posthoc"])}`])];
      const training = select(controls, "training", data.maps.map((each, i) => [i, name(each)]), () => { colour.fill(colourings(data.maps[training()])); redraw(); });
      const plane = select(controls, "plane", [["pca", "PCA"], ["tsne", "t-SNE"]], redraw);
      const colour = select(controls, "colour", colourings(data.maps[0]), redraw);
      return (width) => {
        const shown = data.maps[training()], points = records(shown.points), by = colour(), scored = by.startsWith("score");
        const at = { x: `${plane()}_x`, y: `${plane()}_y` }, sets = Object.keys(shown.images);
        const counted = new Map(sets.map((set) => [set, points.filter((each) => each.set === set)]));
        const legend = (set) => `${set} (${counted.get(set)[0].group}), ${counted.get(set).length} of ${shown.images[set]}`;
        const classes = d3.groups(points.filter((each) => each.class), (each) => each.class).sort(([one], [other]) => d3.ascending(one, other));
        const centres = classes.length > 20 ? [] : classes.map(([text, of]) => ({ text, x: d3.mean(of, (each) => each[at.x]), y: d3.mean(of, (each) => each[at.y]) }));
        const numbers = points.map((each) => each[by]).filter((each) => typeof each === "number").sort(d3.ascending);
        const shade = (t) => d3.interpolateCividis(isDark() ? 0.25 + 0.75 * t : 0.9 * t); // never as dark, or light, as the paper
        const color = scored ? { type: "linear", domain: [0.02, 0.98].map((q) => d3.quantile(numbers, q)), clamp: true, interpolate: shade, legend: true, label: "score, larger is more OOD" }
          : by === "set" ? hues(sets.map(legend)) : { ...hues(classes.map(([each]) => each)), legend: classes.length <= 20 };
        const value = (each) => (by === "set" ? legend(each.set) : each[by] || null);
        const say = (each) => [each.set, each.class, `image ${each.position}`, ...(scored ? [`score ${plain(each[by])}`] : [])].filter(Boolean).join("\n");
        const axis = (i) => (plane() === "pca" ? { label: `PCA ${i + 1}, ${tenth(shown.explained[i])} % of the variance`, tickSpacing: 70 } : { label: null, ticks: [] });
        return Plot.plot({
          ...look, width: Math.min(width, 760), aspectRatio: 1, grid: true, inset: 8, marginBottom: 44, x: axis(0), y: axis(1),
          color: { unknown: "gray", ...color }, symbol: { ...shapes(sets.map(legend)), legend: true },
          marks: [Plot.dot(points, { ...at, [scored ? "fill" : "stroke"]: value, symbol: (each) => legend(each.set), r: 3, strokeWidth: 1.2 }),
            Plot.text(centres, { x: "x", y: "y", text: "text", fill: "currentColor", stroke: "var(--paper)", strokeWidth: 5, fontWeight: "bold", fontSize: 13 }),
            Plot.tip(points, Plot.pointer({ ...at, title: say, fill: "var(--paper)", maxRadius: 20 }))],
        });
      };
    },

    images(controls, redraw) {
      const detector = ["training", "distance", "posthoc"]; // named, whether or not they differ
      const labels = data.rows.labels.filter((name) => detector.includes(name) || new Set(data.images.map((each) => rows[each.row][name])).size > 1);
      const chosen = select(controls, "row", data.images.map((each, i) => [i, method(rows[each.row], labels) || NONE]), redraw);
      return (width) => {
        const shown = data.images[chosen()], { id_rejected: x, ood_found: y } = shown.roc, { low, high } = shown.histogram, size = width < 600 ? width : Math.min(480, width / 2 - 8);
        const bars = ["id", "ood"].flatMap((of) => shown.histogram[of].map((share, i) => ({ of: of.toUpperCase(), share, from: low[i], to: high[i] })));
        const colour = { domain: ["ID", "OOD"], range: colours().slice(0, 2), legend: true };
        const wrong = ([side, images]) => make("div", {}, make("h4", {}, side), make("div", { class: "wrong" }, ...images.map(({ position, src }) =>
          make("figure", {}, make("img", { src, alt: `${side}, image ${position} of its set` }), make("figcaption", {}, `image ${position}`)))));
        return make("div", {}, make("div", { class: "pair" },
          Plot.plot({ ...look, width: size, height: 400, grid: true, marginBottom: 44, x: { label: "ID taken for OOD, %" }, y: { label: "OOD found, %" },
            marks: [Plot.line([[0, 0], [100, 100]], { strokeDasharray: "3 3", strokeOpacity: 0.5 }), Plot.line(x, { x, y, stroke: colours()[0], strokeWidth: 2 })] }),
          Plot.plot({ ...look, width: size, height: 400, marginBottom: 44, color: colour, x: { label: "score, larger is more OOD" }, y: { label: "share of images, %" }, marks: [
            Plot.rect(bars, { x1: "from", x2: "to", y1: () => 0, y2: "share", fill: "of", fillOpacity: 0.5 }), Plot.ruleX([shown.cut], { strokeDasharray: "4 3" }), Plot.ruleY([0])] })),
        ...Object.entries(shown.wrong).map(wrong), make("button", { onclick: () => showOrigin(method(rows[shown.row], labels), [shown.row]) }, "Where these come from"));
      };
    },
  };

  let left = []; // the lines of the leaderboard that its filters leave
  const redraws = [];
  function figure(place) {
    const [controls, drawing] = [".controls", ".drawing"].map((each) => place.querySelector(each));
    const redraw = () => {
      const width = onPaper ? 660 : Math.max(320, Math.min(drawing.clientWidth, 1000));
      const wide = drawing.scrollLeft;
      drawing.replaceChildren(draw(width));
      drawing.scrollLeft = wide;
    };
    const draw = drawings[place.dataset.figure](controls, redraw);
    redraws.push(redraw);
    redraw();
  }

  // ---- the page -------------------------------------------------------------------------------------

  const makers = { board, rows: everyRow, against };
  const tables = {};
  for (const place of document.querySelectorAll("[data-table]")) tables[place.dataset.table] = makers[place.dataset.table](place);
  if (tables.board) {
    left = tables.board.options.data;
    for (const place of document.querySelectorAll("[data-figure]")) figure(place);
    tables.board.on("dataFiltered", (_, found) => {
      left = found.map((each) => each.getData());
      renewAll();
    });
  }
  let waiting = 0;
  function renewAll() {
    cancelAnimationFrame(waiting);
    waiting = requestAnimationFrame(() => redraws.forEach((each) => each()));
  }
  dark.addEventListener("change", renewAll);
  for (const [event, is] of [["beforeprint", true], ["afterprint", false]]) {
    addEventListener(event, () => {
      onPaper = is;
      redraws.forEach((each) => each());
    });
  }
  let before = innerWidth;
  addEventListener("resize", () => { if (innerWidth !== before) { before = innerWidth; renewAll(); } });
  document.querySelector("nav").append(...[...document.querySelectorAll("section")].map((each) => make("a", { href: `#${each.id}` }, each.querySelector("h2").textContent)));
})();
