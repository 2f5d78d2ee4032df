// Maps that zoom and move together. A view is its middle, in full-resolution pixels, and a zoom: 1 shows the whole section.

const VIEW = { section: null, x: 0, y: 0, zoom: 1, panels: [], spot: -1, look: {}, onSpot: () => {}, waiting: false };
const MOST_TILES = 600; // in memory
const EDGED_PX = 6; // larger spots get a white edge, which sets them off from tissue of the same color
const clamp = (v, low, high) => Math.min(Math.max(v, low), high);

// ------------------------------------------------------------------ geometry

function scaleOf(panel) {
    const s = VIEW.section;
    return VIEW.zoom * Math.min(panel.canvas.clientWidth / s.width, panel.canvas.clientHeight / s.height);
}
function toSlide(panel, x, y) {
    const k = scaleOf(panel);
    return [VIEW.x + (x - panel.canvas.clientWidth / 2) / k, VIEW.y + (y - panel.canvas.clientHeight / 2) / k];
}
function placeOf(panel, event) {
    const box = panel.canvas.getBoundingClientRect();
    return [event.clientX - box.left, event.clientY - box.top];
}
function mostZoom() {
    const s = VIEW.section, width = s.tiles ? s.tiles.width : 0;
    // A pixel of the finest tiles as four of the screen, or ten spots side by side
    return Math.max(8, width / 100, Math.max(s.width, s.height) / (20 * s.radius));
}
function moveTo(x, y, zoom) {
    const s = VIEW.section;
    VIEW.zoom = clamp(zoom, 1, mostZoom());
    const halfWidth = s.width / 2 / VIEW.zoom, halfHeight = s.height / 2 / VIEW.zoom;
    VIEW.x = clamp(x, s.left + halfWidth, s.left + s.width - halfWidth);
    VIEW.y = clamp(y, s.top + halfHeight, s.top + s.height - halfHeight);
    redraw();
}
// Zooms around a place of a panel, which stays where it is
function zoomAt(panel, factor, place) {
    const [x, y] = place ?? [panel.canvas.clientWidth / 2, panel.canvas.clientHeight / 2];
    const [fixedX, fixedY] = toSlide(panel, x, y), zoom = clamp(VIEW.zoom * factor, 1, mostZoom());
    const by = VIEW.zoom / zoom;
    moveTo(fixedX + (VIEW.x - fixedX) * by, fixedY + (VIEW.y - fixedY) * by, zoom);
}
const moveBy = (panel, dx, dy) => moveTo(VIEW.x + dx / scaleOf(panel), VIEW.y + dy / scaleOf(panel), VIEW.zoom);
function showWhole() {
    const s = VIEW.section;
    moveTo(s.left + s.width / 2, s.top + s.height / 2, 1);
}

// ------------------------------------------------------------------ spots

function nearestSpot(x, y, within) {
    const s = VIEW.section;
    let best = -1, near = within ** 2;
    for (let i = 0; i < s.n; i++) {
        const distance = (s.xs[i] - x) ** 2 + (s.ys[i] - y) ** 2;
        if (distance < near) { near = distance; best = i; }
    }
    return best;
}
// The next spot in a direction: near, and little to the side
function nextSpot(dx, dy) {
    const s = VIEW.section, from = VIEW.spot;
    if (from < 0) return nearestSpot(VIEW.x, VIEW.y, Infinity);
    let best = from, least = Infinity;
    for (let i = 0; i < s.n; i++) {
        const x = s.xs[i] - s.xs[from], y = s.ys[i] - s.ys[from];
        const ahead = x * dx + y * dy, aside = Math.abs(x * dy - y * dx);
        if (ahead > 0.1 * s.radius && ahead + 3 * aside < least) { least = ahead + 3 * aside; best = i; }
    }
    return best;
}
function choose(spot) {
    if (spot === VIEW.spot) return;
    VIEW.spot = spot;
    VIEW.onSpot(spot);
    redraw();
}
const chooseMiddle = () => choose(nearestSpot(VIEW.x, VIEW.y, Infinity));
function chooseNext(dx, dy) {
    const s = VIEW.section, spot = nextSpot(dx, dy);
    choose(spot);
    const halfWidth = s.width / 2 / VIEW.zoom, halfHeight = s.height / 2 / VIEW.zoom;
    if (Math.abs(s.xs[spot] - VIEW.x) > halfWidth || Math.abs(s.ys[spot] - VIEW.y) > halfHeight)
        moveTo(s.xs[spot], s.ys[spot], VIEW.zoom);
}

// ------------------------------------------------------------------ drawing

function redraw() {
    if (VIEW.waiting) return;
    VIEW.waiting = true;
    requestAnimationFrame(() => { VIEW.waiting = false; VIEW.panels.forEach(draw); });
}
function draw(panel) {
    const { canvas } = panel, s = VIEW.section, pen = canvas.getContext("2d"), sharp = Math.min(window.devicePixelRatio || 1, 2);
    const width = Math.round(canvas.clientWidth * sharp), height = Math.round(canvas.clientHeight * sharp);
    if (canvas.width !== width || canvas.height !== height) { canvas.width = width; canvas.height = height; }
    const k = scaleOf(panel) * sharp, left = width / 2 - VIEW.x * k, top = height / 2 - VIEW.y * k;
    pen.setTransform(1, 0, 0, 1, 0, 0);
    pen.globalAlpha = 1;
    pen.fillStyle = "white"; pen.fillRect(0, 0, width, height);
    if (s.tiles) drawTissue(panel, pen, k, left, top);
    if (panel.kind !== "picture") {
        if (VIEW.look.gray) {
            pen.globalCompositeOperation = "saturation"; pen.fillStyle = "gray"; pen.fillRect(0, 0, width, height);
            pen.globalCompositeOperation = "source-over";
        }
        pen.setTransform(k, 0, 0, k, left, top);
        pen.globalAlpha = VIEW.look.opacity;
        for (const [color, path] of panel.paths) { pen.fillStyle = color; pen.fill(path); }
        if (k * s.radius > EDGED_PX * sharp) {
            pen.strokeStyle = "white"; pen.lineWidth = sharp / k;
            for (const [, path] of panel.paths) pen.stroke(path);
        }
        pen.globalAlpha = 1;
        if (VIEW.look.marks && s.isUnlike) drawMarks(pen, k / sharp);
    }
    if (VIEW.spot >= 0) drawRing(pen, k, left, top, sharp);
    canvas.style.touchAction = VIEW.zoom > 1.01 ? "none" : "pan-y";
    drawScaleBar(panel);
}
// Draws the coarsest tiles, and over them those of the resolution that the screen can show
function drawTissue(panel, pen, k, left, top) {
    const s = VIEW.section, t = s.tiles, last = levels(t) - 1, pixel = s.width / t.width;
    const level = clamp(Math.floor(Math.log2(1 / (k * pixel)) + 0.25), 0, last);
    let whole = true;
    pen.imageSmoothingQuality = "high";
    for (const number of last > level ? [last, level] : [level]) {
        const side = t.side * pixel * 2 ** number, [columns, rows] = gridOf(t, number);
        const from = v => Math.max(0, Math.floor(v / side));
        const x0 = from(-left / k - s.left), x1 = Math.min(columns - 1, from((panel.canvas.width - left) / k - s.left));
        const y0 = from(-top / k - s.top), y1 = Math.min(rows - 1, from((panel.canvas.height - top) / k - s.top));
        for (let y = y0; y <= y1; y++) for (let x = x0; x <= x1; x++) {
            const image = tile(s, number, x, y);
            if (!image.complete || !image.naturalWidth) { whole = whole && number !== level; continue; }
            // Whole pixels of the screen, so that no seam is seen between tiles
            const a = Math.round(left + k * (s.left + x * side)), b = Math.round(top + k * (s.top + y * side));
            const scale = k * pixel * 2 ** number;
            const c = Math.round(left + k * (s.left + x * side) + scale * image.naturalWidth);
            const d = Math.round(top + k * (s.top + y * side) + scale * image.naturalHeight);
            pen.drawImage(image, a, b, c - a, d - b);
        }
    }
    panel.canvas.dataset.level = level;
    panel.canvas.dataset.loaded = whole ? "yes" : "no";
}
const levels = t => 1 + Math.max(0, Math.ceil(Math.log2(Math.max(t.width, t.height) / t.side)));
const gridOf = (t, number) => [t.width, t.height].map(v => Math.ceil(Math.ceil(v / 2 ** number) / t.side));
function tile(s, number, x, y) {
    const key = `${number}/${x}_${y}`;
    s.loaded ??= new Map();
    if (!s.loaded.has(key)) {
        if (s.loaded.size >= MOST_TILES) s.loaded.delete(s.loaded.keys().next().value);
        const image = new Image(), t = s.tiles;
        image.onload = redraw;
        image.src = t.folder === null
            ? "data:image/jpeg;base64," + t.images[number][y * gridOf(t, number)[0] + x] : `${t.folder}/${key}.jpg`;
        s.loaded.set(key, image);
    }
    return s.loaded.get(key);
}
// One path a color: drawing them again at another zoom is cheap
function pathsOf(kind, gene) {
    const s = VIEW.section, all = values(s, kind, gene), [low, high] = DATA.ends[gene], paths = new Map();
    const last = DATA.colors.length - 1;
    for (let i = 0; i < s.n; i++) {
        if (Number.isNaN(all[i])) continue;
        const color = Math.round(clamp((all[i] - low) / (high - low), 0, 1) * last);
        if (!paths.has(color)) paths.set(color, new Path2D());
        paths.get(color).moveTo(s.xs[i] + s.radius, s.ys[i]);
        paths.get(color).arc(s.xs[i], s.ys[i], s.radius, 0, 2 * Math.PI);
    }
    return [...paths].map(([color, path]) => [`rgb(${DATA.colors[color]})`, path]);
}
function drawMarks(pen, k) {
    const s = VIEW.section, arm = 0.5 * s.radius, path = new Path2D();
    for (let i = 0; i < s.n; i++) if (s.isUnlike[i]) {
        const x = s.xs[i], y = s.ys[i];
        path.moveTo(x - arm, y - arm); path.lineTo(x + arm, y + arm);
        path.moveTo(x - arm, y + arm); path.lineTo(x + arm, y - arm);
    }
    for (const [color, width] of [["white", 2.5], ["black", 1]]) {
        pen.strokeStyle = color; pen.lineWidth = width / k; pen.stroke(path);
    }
}
function drawRing(pen, k, left, top, sharp) {
    const s = VIEW.section, x = left + k * s.xs[VIEW.spot], y = top + k * s.ys[VIEW.spot];
    pen.setTransform(1, 0, 0, 1, 0, 0);
    for (const [color, width] of [["white", 5], ["black", 2.5]]) {
        pen.strokeStyle = color; pen.lineWidth = width * sharp; pen.beginPath();
        pen.arc(x, y, Math.max(k * s.radius, 4 * sharp) + 2 * sharp, 0, 2 * Math.PI);
        pen.stroke();
    }
}
// A bar of 1, 2, 5, 10, … µm, about a quarter of the width
function drawScaleBar(panel) {
    const { mpp } = VIEW.section;
    panel.bar.hidden = mpp === null;
    if (mpp === null) return;
    const pixel = mpp / scaleOf(panel), longest = 0.3 * panel.canvas.clientWidth * pixel;
    const power = 10 ** Math.floor(Math.log10(longest));
    const length = power * [5, 2, 1].find(step => step * power <= longest);
    panel.bar.lastChild.style.width = `${length / pixel}px`;
    const [number, unit] = length < 1000 ? [length, "µm"] : [length / 1000, "mm"];
    panel.bar.firstChild.textContent = `${+number.toPrecision(1)} ${unit}`;
}

// ------------------------------------------------------------------ mouse, fingers and keys

const STEPS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

function listen(panel) {
    const { canvas } = panel, fingers = new Map();
    let travelled = 0;
    const pick = (event, reach) => {
        const [x, y] = toSlide(panel, ...placeOf(panel, event));
        choose(nearestSpot(x, y, VIEW.section.radius + reach / scaleOf(panel)));
    };
    canvas.addEventListener("wheel", event => {
        const by = Math.exp(-event.deltaY * (event.deltaMode === 1 ? 24 : 1) * 0.002);
        if (by < 1 && VIEW.zoom <= 1) return; // the page scrolls
        event.preventDefault();
        zoomAt(panel, by, placeOf(panel, event));
    }, { passive: false });
    canvas.addEventListener("pointerdown", event => {
        if (event.button > 0) return;
        if (!fingers.size) travelled = 0;
        fingers.set(event.pointerId, placeOf(panel, event));
        canvas.setPointerCapture(event.pointerId);
    });
    canvas.addEventListener("pointermove", event => {
        if (!fingers.has(event.pointerId)) { pick(event, 4); return; }
        const before = [...fingers.values()];
        fingers.set(event.pointerId, placeOf(panel, event));
        const now = [...fingers.values()];
        travelled += Math.hypot(...[0, 1].map(c => now.reduce((sum, p, i) => sum + Math.abs(p[c] - before[i][c]), 0)));
        const middle = places => [0, 1].map(c => places.reduce((sum, p) => sum + p[c], 0) / places.length);
        const [a, b] = [middle(before), middle(now)];
        moveBy(panel, a[0] - b[0], a[1] - b[1]);
        if (now.length === 2) {
            const apart = places => Math.hypot(places[0][0] - places[1][0], places[0][1] - places[1][1]);
            zoomAt(panel, apart(now) / Math.max(apart(before), 1), b);
        }
    });
    const lift = event => {
        const known = fingers.delete(event.pointerId);
        const tapped = event.type === "pointerup" && event.pointerType !== "mouse" && travelled < 8 && !fingers.size;
        if (known && tapped) pick(event, 14);
    };
    for (const type of ["pointerup", "pointercancel"]) canvas.addEventListener(type, lift);
    canvas.addEventListener("pointerleave", event => { if (event.pointerType === "mouse") choose(-1); });
    canvas.addEventListener("dblclick", event => zoomAt(panel, 2, placeOf(panel, event)));
    canvas.addEventListener("focus", () => { if (canvas.matches(":focus-visible")) chooseMiddle(); });
    canvas.addEventListener("keydown", event => { if (press(panel, event)) event.preventDefault(); });
}
function press(panel, event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return false;
    const step = STEPS[event.key];
    if (step && event.shiftKey) chooseNext(...step);
    else if (step) moveBy(panel, 0.15 * step[0] * panel.canvas.clientWidth, 0.15 * step[1] * panel.canvas.clientHeight);
    else if (event.key === "+" || event.key === "=") zoomAt(panel, 1.5);
    else if (event.key === "-" || event.key === "_") zoomAt(panel, 1 / 1.5);
    else if (event.key === "0") showWhole();
    else if (event.key === "Escape") { choose(-1); return true; }
    else return false;
    if (!(step && event.shiftKey)) chooseMiddle();
    return true;
}
