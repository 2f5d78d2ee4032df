// Tables of the page: scores of genes, what they mean, and gene sets.

const FRACTION = "fraction of ceiling";
const hasCeiling = () => section().ceiling.some(v => v !== null);

function columns() {
    const s = section(), out = [[DATA.noun, i => DATA.genes[i]]], here = s.trainedOn ? " (trained on)" : "";
    if (s.observed) {
        out.push([`PCC here${here}`, i => s.pearson[i]]);
        if (hasCeiling()) out.push(["noise ceiling here", i => s.ceiling[i]], [FRACTION, fraction]);
    }
    if (s.verdict) out.push(["verdict", i => s.verdict[i]]);
    if (DATA.heldOut.some(v => v !== null)) out.push(["PCC on held-out tissue", i => DATA.heldOut[i]]);
    return out;
}
function listed() {
    const s = section(), all = columns();
    if (PAGE.order.column >= all.length) PAGE.order = { column: 0, down: false };
    const [, by] = all[PAGE.order.column];
    const isNamed = i => DATA.genes[i].toUpperCase().includes(PAGE.query);
    const isJudged = i => !PAGE.verdict || !s.verdict || s.verdict[i] === PAGE.verdict;
    return DATA.genes.map((_, i) => i).filter(i => isNamed(i) && isJudged(i)).sort((a, b) => {
        const u = by(a), v = by(b);
        if (u === null || v === null) return (u === null) - (v === null);
        return (u < v ? -1 : u > v ? 1 : 0) * (PAGE.order.down ? -1 : 1);
    });
}
function table() {
    const all = columns(), body = $("scores").tBodies[0];
    const list = listed();
    heading(all);
    body.replaceChildren();
    for (const i of list) {
        const row = make("tr", undefined, body);
        row.dataset.gene = DATA.genes[i];
        for (const [name, get] of all) {
            const value = get(i), words = typeof value === "string";
            const text = words ? value : show(value) + (name === FRACTION && value > 1 ? "*" : "");
            make("td", text, row, words ? "words" : "");
        }
        row.onclick = () => chooseGene(i);
        mark(row);
    }
    if (!list.length) {
        const cell = make("td", `No ${DATA.noun} of this page has such a name and verdict.`, make("tr", undefined, body), "empty");
        cell.colSpan = all.length;
    }
    tabStop();
    return list;
}
function heading(all) {
    const head = $("scores").tHead;
    head.replaceChildren();
    const row = make("tr", undefined, head);
    all.forEach(([name], column) => {
        const chosen = column === PAGE.order.column, cell = make("th", undefined, row, name === "verdict" ? "words" : "");
        cell.scope = "col";
        if (chosen) cell.ariaSort = PAGE.order.down ? "descending" : "ascending";
        const button = make("button", name + (chosen ? (PAGE.order.down ? " ▾" : " ▴") : ""), cell);
        button.type = "button";
        button.onclick = () => {
            PAGE.order = { column, down: chosen ? !PAGE.order.down : column > 0 };
            table();
            head.rows[0].cells[column].firstChild.focus();
        };
    });
}
function mark(row) {
    const chosen = PAGE.genes.some(gene => DATA.genes[gene] === row.dataset.gene);
    row.classList.toggle("chosen", chosen);
    row.ariaCurrent = chosen ? "true" : null;
}
// One row can be reached by Tab, and the others from it by arrow keys
function tabStop(to) {
    const rows = [...$("scores").tBodies[0].rows].filter(row => row.dataset.gene !== undefined);
    const row = to ?? rows.find(each => each.classList.contains("chosen")) ?? rows[0];
    rows.forEach(each => { each.tabIndex = each === row ? 0 : -1; });
}
function pressInTable(event) {
    const row = event.target.closest("tr");
    const step = { ArrowDown: "nextElementSibling", ArrowUp: "previousElementSibling" }[event.key];
    if (event.key === "Enter" || event.key === " ") row.click();
    else if (step && row[step]) { tabStop(row[step]); row[step].focus(); }
    else return;
    event.preventDefault();
}
function explain() {
    const s = section(), box = $("tablenote"), list = make("dl");
    box.replaceChildren();
    make("p", `Choose a ${DATA.noun} to see its maps, and a heading to sort.`, box);
    box.append(list);
    const terms = [];
    if (s.observed) {
        terms.push(["PCC here", "Pearson correlation of the predicted and the measured map over the spots of this section"
            + (s.used ? " that the model was not trained on." : ".")
            + (s.trainedOn ? " The model was trained on this section: the number does not show how well it predicts new tissue." : "")]);
    }
    if (s.observed && hasCeiling()) {
        terms.push(["Noise ceiling here", "the correlation that a perfect prediction would reach, since counts are noisy; "
            + "estimated from the counts of these spots."]);
        terms.push(["Fraction of ceiling", "PCC divided by the ceiling. * Above 1: the ceiling is an estimate, so a gene can "
            + `exceed it by chance${s.trainedOn ? ", and more so on tissue that the model was trained on, whose noise it has seen" : ""}.`]);
    }
    if (DATA.heldOut.some(v => v !== null)) terms.push(["PCC on held-out tissue", "the same correlation on training tissue that "
        + "the predicting model had not seen. It is of other tissue than the PCC here; either can be higher."]);
    if (s.verdict) terms.push(["Verdict", "judged by held-out tissue, and by how much this slide resembles it. "
        + Object.entries(VERDICTS).map(([word, text]) => `${word}: ${text}`).join("; ") + "."]);
    for (const [term, text] of terms) { make("dt", term, list); make("dd", text, list); }
}
function sets() {
    const s = section(), box = $("setsection");
    box.replaceChildren();
    if (!s.sets.length) return;
    const kinds = [...new Set(s.sets.map(each => each.kind))];
    make("h2", kinds.length > 1 ? "Gene sets and programs" : kinds[0] === "program" ? "Gene programs" : "Gene sets", box);
    const rows = s.sets.map(each => [
        each.name, each.kind, each.verdict, show(each.heldOut), each.reliableAt === null ? "–" : `${each.reliableAt} µm`,
    ]);
    plainTable(box, ["name", "kind", "verdict", "PCC on held-out tissue", "reliable at"], rows, 3);
    const words = ["Verdicts as for genes. Reliable at: side of the smallest squares over whose means prediction and measurement agree."];
    if (kinds.includes("gene set")) words.unshift("The score of a set is the mean predicted expression of its genes.");
    make("p", words.join(" "), box, "note");
}
function plainTable(parent, names, rows, nWords) {
    const all = make("table", undefined, make("div", undefined, parent, "tablebox"));
    const head = make("tr", undefined, make("thead", undefined, all)), body = make("tbody", undefined, all);
    names.forEach((name, i) => { make("th", name, head, i < nWords ? "words" : "").scope = "col"; });
    for (const cells of rows) {
        const row = make("tr", undefined, body);
        cells.forEach((text, i) => make("td", text, row, i < nWords ? "words" : ""));
    }
}
