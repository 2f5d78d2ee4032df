// The page: panels of maps, notes on the chosen genes, and the model.

const $ = id => document.getElementById(id);
function make(tag, text, parent, className) {
    const element = document.createElement(tag);
    if (text !== undefined) element.textContent = text;
    if (parent) parent.append(element);
    if (className) element.className = className;
    return element;
}
const show = v => v === null || v === undefined || Number.isNaN(v) ? "–" : v.toFixed(2).replace("-", "−");
const VERDICTS = {
    "spot": "the map can be read spot by spot", "region": "only means over regions can be read",
    "not predicted": "held-out tissue gives too little reason to believe the map", "cannot be judged": "no verdict is possible",
};
const LEAST_CEILING = 0.316; // a lower one is too uncertain to divide by
const PAGE = { section: 0, genes: [0], order: { column: 1, down: true }, query: "", verdict: "" };

const section = () => DATA.sections[PAGE.section];
const fraction = i => {
    const s = section();
    return s.pearson[i] !== null && s.ceiling[i] > LEAST_CEILING ? s.pearson[i] / s.ceiling[i] : null;
};

// ------------------------------------------------------------------ maps

function layout() {
    const s = section(), two = PAGE.genes.length === 2, kinds = s.observed ? ["observed", "predicted"] : ["predicted"];
    const panels = [["picture", -1], ...kinds.flatMap(kind => PAGE.genes.map(gene => [kind, gene]))];
    $("maps").replaceChildren();
    $("maps").className = two ? (s.observed ? "two" : "two plain") : (s.observed ? "" : "single");
    $("maps").style.setProperty("--columns", panels.length);
    VIEW.panels = panels.map(([kind, gene]) => addPanel(kind, gene));
}
function addPanel(kind, gene) {
    const s = section(), name = gene < 0 ? "H&E" : `${DATA.genes[gene]}, ${kind}`;
    const figure = make("figure", undefined, $("maps"), kind);
    const r = kind === "predicted" ? s.pearson[gene] : null;
    make("figcaption", name + (r === null ? "" : `: PCC ${show(r)}${s.trainedOn ? " (trained on)" : ""}`), figure);
    const stage = make("div", undefined, figure, "stage"), canvas = make("canvas", undefined, stage);
    canvas.style.aspectRatio = clamp(s.width / s.height, 0.7, 1.6);
    canvas.tabIndex = 0;
    canvas.dataset.kind = kind;
    if (gene >= 0) canvas.dataset.gene = DATA.genes[gene];
    canvas.setAttribute("role", "img");
    canvas.setAttribute("aria-label", `${name}. Plus and minus zoom, arrow keys move, 0 shows the whole section.`);
    const bar = make("div", undefined, stage, "scalebar");
    make("span", "", bar);
    make("i", undefined, bar);
    const panel = { kind, gene, canvas, bar, paths: gene < 0 ? [] : pathsOf(kind, gene) };
    if (gene >= 0) addColorBar(figure, kind, gene);
    listen(panel);
    return panel;
}
function addColorBar(figure, kind, gene) {
    const row = make("div", undefined, figure, "colorbar"), all = values(section(), kind, gene), [low, high] = DATA.ends[gene];
    make("span", (all.some(v => v < low - 5e-3) ? "≤ " : "") + show(low), row);
    const bar = make("canvas", undefined, row), pen = bar.getContext("2d");
    bar.width = DATA.colors.length;
    bar.height = 1;
    DATA.colors.forEach((color, i) => { pen.fillStyle = `rgb(${color})`; pen.fillRect(i, 0, 1, 1); });
    make("span", (all.some(v => v > high + 5e-3) ? "≥ " : "") + show(high), row);
}
function readSpot(spot) {
    if (spot < 0) { $("readout").textContent = "Point at a spot, tap it, or press Tab to go to a map, to read values."; return; }
    const s = section(), at = (kind, gene) => show(values(s, kind, gene)[spot]);
    const genes = PAGE.genes.map(gene => `${DATA.genes[gene]}: `
        + (s.observed ? `observed ${at("observed", gene)}, ` : "") + `predicted ${at("predicted", gene)}`
        + (s.lower ? `, ${s.interval} ${at("lower", gene)} to ${at("upper", gene)}` : ""));
    const remarks = [];
    if (s.isUnlike?.[spot]) remarks.push("its image is unlike the training tissue");
    if (s.isUsed?.[spot]) remarks.push("the model was trained on its counts");
    $("readout").textContent = [`Spot ${s.names[spot]}`, ...genes, ...remarks].join(" · ");
}
function note(gene) {
    const s = section(), box = make("div", undefined, $("notes")), word = s.verdict?.[gene], r = s.pearson[gene];
    make("h3", DATA.genes[gene], box);
    if (word) {
        const line = make("p", "", box);
        make("span", `Verdict: ${word}.`, line, "verdict");
        line.append(` ${upper(VERDICTS[word] ?? "")}: ${s.reason[gene]}.`);
        box.classList.toggle("doubtful", word !== "spot");
    }
    const words = scoreWords(gene);
    if (words) make("p", words, box);
}
const upper = text => text.slice(0, 1).toUpperCase() + text.slice(1);
function scoreWords(gene) {
    const s = section(), r = s.pearson[gene], ceiling = s.ceiling[gene], held = DATA.heldOut[gene];
    const part = fraction(gene), words = [];
    if (r !== null) {
        const share = part === null ? "it is too uncertain to divide by" : `this is ${Math.round(100 * part)} % of it`;
        words.push(`PCC on this section: ${show(r)}` + (ceiling === null ? "." : `; noise allows ${show(ceiling)}, and ${share}.`));
        if (part > 1) words.push("More than the ceiling is no mistake: the ceiling is an estimate from noisy counts"
            + (s.trainedOn ? ", and the model has seen the noise of these counts." : ", and chance can lift a score above it."));
    }
    if (held !== null) words.push(`PCC on training tissue that was held out: ${show(held)}.`);
    if (r !== null && held !== null) words.push(s.trainedOn
        ? "The model was trained on this section, so only the second PCC speaks for new tissue. It is of tissue that was held out: it can be higher."
        : "The first PCC holds for this section. The second is of other tissue: it can be higher or lower.");
    return words.join(" ");
}
function showGenes() {
    $("notes").replaceChildren();
    PAGE.genes.forEach(note);
    layout();
    readSpot(VIEW.spot);
    redraw();
    for (const row of $("scores").tBodies[0].rows) mark(row);
}
function chooseGene(gene) { PAGE.genes[0] = gene; showGenes(); }

// ------------------------------------------------------------------ start

// The page opens with a gene whose map can be read, if there is one
function firstGene() {
    const list = listed(), verdict = section().verdict;
    const judged = word => list.find(i => verdict?.[i] === word);
    return judged("spot") ?? judged("region") ?? list[0] ?? 0;
}

async function showSection(number) {
    PAGE.section = number;
    VIEW.section = await open(section());
    VIEW.spot = -1;
    $("marking").hidden = !VIEW.section.isUnlike;
    explain();
    sets();
    table();
    showGenes();
    showWhole();
}
const findGene = text => DATA.genes.findIndex(gene => gene.toUpperCase() === text.trim().toUpperCase());

function listenToControls() {
    $("section").onchange = event => showSection(+event.target.value);
    $("search").oninput = event => {
        PAGE.query = event.target.value.trim().toUpperCase();
        const list = table(), same = findGene(event.target.value);
        if (same >= 0) chooseGene(same);
        else if (list.length === 1) chooseGene(list[0]);
    };
    $("second").oninput = event => {
        const gene = findGene(event.target.value), before = PAGE.genes[1];
        PAGE.genes = gene < 0 || gene === PAGE.genes[0] ? [PAGE.genes[0]] : [PAGE.genes[0], gene];
        if (PAGE.genes[1] !== before) showGenes();
    };
    $("filter").onchange = event => {
        PAGE.verdict = event.target.value;
        const list = table();
        if (list.length && !list.includes(PAGE.genes[0])) chooseGene(list[0]);
    };
    const look = () => {
        VIEW.look = { opacity: $("opacity").value / 100, gray: $("gray").checked, marks: $("marks").checked };
        redraw();
    };
    for (const id of ["opacity", "gray", "marks"]) $(id).oninput = look;
    look();
    $("in").onclick = () => zoomAt(VIEW.panels[0], 1.5);
    $("out").onclick = () => zoomAt(VIEW.panels[0], 1 / 1.5);
    $("whole").onclick = showWhole;
    $("scores").tBodies[0].onkeydown = pressInTable;
    new ResizeObserver(redraw).observe($("maps"));
}
async function startMaps() {
    if (!DATA.sections.length) { $("mapsection").remove(); return; }
    if (!("DecompressionStream" in window)) {
        const text = "This browser is too old for the page: Chrome 80, Firefox 113, Safari 16.4 or newer is needed.";
        make("p", text, $("warn"), "warning");
        return;
    }
    $("sections").hidden = DATA.sections.length === 1;
    DATA.sections.forEach((s, i) => { make("option", `${s.name} (${s.n} spots)`, $("section")).value = i; });
    DATA.genes.forEach(name => { make("option", undefined, $("names")).value = name; });
    $("filtering").hidden = !DATA.sections.some(s => s.verdict);
    for (const word of Object.keys(VERDICTS)) make("option", word, $("filter")).value = word;
    $("units").textContent = `Colors: ${DATA.units}. The observed and the predicted map of a ${DATA.noun} have one color scale.`;
    VIEW.onSpot = readSpot;
    VIEW.section = await open(section());
    // Scores on tissue that the model was trained on rank nothing
    const byHeldOut = section().trainedOn && DATA.heldOut.some(v => v !== null);
    PAGE.order.column = byHeldOut ? columns().length - 1 : 1;
    PAGE.genes = [firstGene()];
    listenToControls();
    await showSection(0);
}
function startModel() {
    const m = DATA.model, box = $("modelsection");
    if (!m) { box.remove(); return; }
    make("h2", "The model", box);
    const body = make("tbody", undefined, make("table", undefined, box, "card"));
    for (const [name, text] of m.rows) { const row = make("tr", undefined, body); make("td", name, row); make("td", text, row); }
    if (m.curves) {
        make("h2", "Training of the networks", box);
        const image = make("img", undefined, box, "curves");
        image.src = m.curves;
        image.alt = "Training curves: the loss, and the correlation on held-out tissue, by epoch.";
        make("p", `These curves are of the networks. What predicts: ${m.architecture}.`, box, "note");
    }
    if (!DATA.sections.length && m.heldOut.some(v => v !== null)) {
        make("h2", "Genes on held-out training tissue", box);
        const order = m.genes.map((_, i) => i).sort((a, b) => (m.heldOut[b] ?? -2) - (m.heldOut[a] ?? -2));
        const rows = order.map(i => [m.genes[i], show(m.heldOut[i]), show(m.ceiling[i])]);
        plainTable(box, ["gene", "PCC", "noise ceiling"], rows, 1);
    }
}
function startHeader() {
    const n = DATA.sections.length, all = n === 1 ? `one section of ${DATA.sections[0].n} spots` : `${n} sections`;
    const maps = n ? `${DATA.genes.length} ${DATA.noun}${DATA.genes.length === 1 ? "" : "s"} in ${all}` : "";
    const by = DATA.predictedBy ? `predicted by ${DATA.predictedBy}` : "";
    $("sub").textContent = [maps, by, DATA.made].filter(Boolean).join(" · ");
    for (const element of document.querySelectorAll(".noun")) {
        element.textContent = upper(element.textContent.toLowerCase().replace("gene", DATA.noun));
    }
    if (!DATA.learnedFrom.length) return;
    const text = `The model was trained on this tissue (${DATA.learnedFrom.join(", ")}): its scores here do not show how well `
        + "it predicts new tissue.";
    make("p", text, $("warn"), "warning");
}
startHeader();
startModel();
startMaps().then(() => {
    $("loading")?.remove();
    requestAnimationFrame(() => { document.body.dataset.ready = "yes"; });
});
