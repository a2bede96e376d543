"use strict";
(function () {
  const specs = JSON.parse(document.getElementById("specs").textContent);
  const plots = [...document.querySelectorAll(".plot")];
  const root = document.documentElement;
  const PAPER = 640; // pixels across a sheet of A4 or letter paper, margins left out
  const BELOW = { orientation: "h", x: 0.5, xanchor: "center", y: 0, yanchor: "top", len: 1, };
  const role = (name) => getComputedStyle(root).getPropertyValue(name).trim();

  // Colours are written as roles; the theme says what they are.
  function coloured(value, key) {
    if (Array.isArray(value)) return value.map((each) => coloured(each, key));
    if (value && typeof value === "object")
      return Object.fromEntries(Object.entries(value).map(([k, v]) => [k, coloured(v, k)]));
    const named = key === "color" && typeof value === "string" && /^var\((--[\w-]+)\)$/.exec(value);
    return named ? role(named[1]) : value;
  }

  // Long names beside a narrow figure leave little room below it.
  function wrapped(text, most) {
    const lines = [""];
    for (const word of text.split(" ")) {
      const longer = lines.at(-1) ? `${lines.at(-1)} ${word}` : word;
      if (longer.length > most && lines.at(-1)) lines.push(word);
      else lines[lines.length - 1] = longer;
    }
    return lines.join("<br>");
  }

  // A heat map on a phone: names stand upright or in several lines, so that the width is left to the cells.
  function slim(made) {
    const names = made.yaxis.ticktext.map((each) => wrapped(each, 14));
    const lines = Math.max(...names.map((each) => each.split("<br>").length));
    const longest = Math.max(...made.xaxis.ticktext.map((each) => each.length));
    made.yaxis = { ...made.yaxis, ticktext: names, tickfont: { size: 10 }, ticks: "" };
    made.xaxis = { ...made.xaxis, tickangle: -90, ticks: "" };
    made.annotations = made.annotations.map((each) => ({ ...each, font: { ...each.font, size: 9 } }));
    made.margin = { ...made.margin, l: 2, r: 4 };
    made.height = 90 + 7 * longest + Math.max(30, 13 * lines) * names.length;
  }

  function layout(spec, width) {
    const narrow = width < 560;
    const made = coloured(spec.layout);
    made.font = { family: getComputedStyle(document.body).fontFamily, size: narrow ? 11 : 12.5, color: role("--text") };
    made.paper_bgcolor = made.plot_bgcolor = "rgba(0,0,0,0)";
    made.margin = { l: 10, r: 10, t: 24, b: 40, ...made.margin };
    made.legend = { orientation: "h", x: 0, xanchor: "left", y: 1, yanchor: "bottom", bgcolor: "rgba(0,0,0,0)" };
    made.hoverlabel = { bgcolor: role("--page"), bordercolor: role("--muted"), font: { color: role("--text") } };
    made.dragmode = false;
    made.hovermode = "closest";
    if (narrow && made.xaxis.title && made.xaxis.automargin) made.xaxis.title = { ...made.xaxis.title, text: wrapped(made.xaxis.title.text, 20) };
    for (const key of Object.keys(made).filter((each) => /^[xy]axis/.test(each)))
      made[key] = { gridcolor: role("--line"), linecolor: role("--line"), fixedrange: true, ...made[key] };
    made.width = width;
    made.height = spec.height;
    if (spec.heat && narrow) slim(made);
    return made;
  }

  function draw(plot) {
    const spec = specs[plot.dataset.figure];
    const data = coloured(spec.data);
    const width = root.classList.contains("printing") ? PAPER : Math.max(plot.clientWidth || 600, spec.least);
    if (spec.heat && width < 560) data[0].colorbar = { ...data[0].colorbar, ...BELOW, title: { ...data[0].colorbar.title, side: "top" } };
    const options = { displaylogo: false, displayModeBar: false, responsive: false };
    return Plotly.react(plot, data, layout(spec, width), options).then(() => { plot.dataset.drawn = "yes"; });
  }

  const all = () => plots.forEach(draw);
  let waiting = 0;
  window.addEventListener("resize", () => { clearTimeout(waiting); waiting = setTimeout(all, 150); });
  window.matchMedia("(prefers-color-scheme: dark)").addEventListener("change", all);
  const printing = (now) => () => { root.classList.toggle("printing", now); all(); };
  window.addEventListener("beforeprint", printing(true));
  window.addEventListener("afterprint", printing(false));
  all();
})();
