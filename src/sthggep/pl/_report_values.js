// Values of the page: arrays are unpacked when their section is shown first, values of a gene when it is chosen.

const MISSING = 255;

async function unpack(text) {
    const bytes = Uint8Array.from(atob(text), c => c.charCodeAt(0));
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
    return new Response(stream).arrayBuffer();
}
const floats = async text => new Float32Array(await unpack(text));
const bytes = async text => text === null ? null : new Uint8Array(await unpack(text));

// For each kind, what to unpack, and how to compute the values of a gene
const KINDS = {
    bytes: {
        open: async m => ({ data: await bytes(m.data) }),
        of: (s, m, gene) => {
            const [low, high] = m.ends[gene], step = (high - low) / 254, start = gene * s.n;
            return i => m.data[start + i] === MISSING ? NaN : low + step * m.data[start + i];
        },
    },
    counts: {
        open: async m => ({ low: await bytes(m.low), high: await bytes(m.high), totals: await floats(m.totals) }),
        of: (s, m, gene) => {
            const start = gene * s.n;
            return i => {
                const count = m.low[start + i] + 256 * (m.high ? m.high[start + i] : 0);
                return Math.log10(1 + count * 1e4 / (m.totals[i] || 1));
            };
        },
    },
    factors: {
        open: async m => ({
            spots: new Int16Array(await unpack(m.spots)), genes: new Int16Array(await unpack(m.genes)),
            means: await floats(m.means), widths: await floats(m.widths),
        }),
        of: (s, m, gene) => {
            const nGenes = m.means.length, loadings = m.weights.map((w, k) => w * m.genes[k * nGenes + gene]);
            return i => {
                let sum = 0;
                for (let k = 0; k < loadings.length; k++) sum += loadings[k] * m.spots[k * s.n + i];
                return m.means[gene] + m.widths[gene] * sum;
            };
        },
    },
    shift: {
        open: async m => ({ by: await floats(m.by), least: await floats(m.least) }),
        of: (s, m, gene) => {
            const predicted = values(s, "predicted", gene);
            return i => Math.max(predicted[i] + m.by[gene], m.least[gene]);
        },
    },
};

// Unpacks a section, once
async function open(s) {
    if (s.opened) return s;
    const maps = ["predicted", "observed", "lower", "upper"].filter(kind => s[kind]);
    for (const kind of maps) Object.assign(s[kind], await KINDS[s[kind].kind].open(s[kind]));
    [s.xs, s.ys, s.isUnlike, s.isUsed] = await Promise.all([floats(s.x), floats(s.y), bytes(s.unlike), bytes(s.used)]);
    s.names = new TextDecoder().decode(await unpack(s.spots)).split("\n");
    s.values = new Map();
    s.opened = true;
    return s;
}

// Values of a map of a section for one gene, a number a spot; NaN where there is none
function values(s, kind, gene) {
    const key = `${kind} ${gene}`;
    if (!s.values.has(key)) {
        if (s.values.size > 40) s.values.clear();
        const of = KINDS[s[kind].kind].of(s, s[kind], gene);
        s.values.set(key, Float32Array.from({ length: s.n }, (_, i) => of(i)));
    }
    return s.values.get(key);
}
