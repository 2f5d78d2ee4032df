"""What `speed.py` found, as tables and plots in the documentation."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

NAMES = {"sthggep": "sthggep", "plain": "plain float32", "floor": "floor"}
# What was aimed at: case, size, name, the figure that was asked for, and how it is read
AIMS = (
    ("forward", 4000, "× faster than the plain version", 8.0, "at least"),
    ("forward", 4000, "× the floor", 3.0, "at most"),
    ("forward", 4000, "GB above the input", 1.5, "at most"),
    ("training", 180, "× faster than six float32 passes", 3.0, "at least"),
    ("training", 180, "GB in all", 5.0, "at most"),
)


def tables(found: dict[str, Any]) -> dict[str, str]:
    """Tables in Markdown, by the name of their place in the page."""
    out = {"machine": _machine(found)}
    if found["cases"]:
        out["times"] = _times(found)
        out["memory"] = _memory(found)
    if any(row["n"] in (180, 4000) for case in found["cases"].values() for row in case["rows"]):
        out["aims"] = _aims(found)
    return out


def write(found: dict[str, Any], docs: Path) -> None:
    """Put tables between the marks of the page, and the plot beside it; cases that were not run keep theirs."""
    page = docs / "performance_speed.md"
    text = page.read_text()
    for name, table in tables(found).items():
        pattern = rf"(<!-- {name} -->\n).*?(<!-- /{name} -->)"
        text, times = re.subn(pattern, lambda m, t=table: f"{m[1]}\n{t}\n\n{m[2]}", text, flags=re.DOTALL)
        if times != 1:
            msg = f"Expected one place '<!-- {name} -->' in {page.name}, found {times}."
            raise ValueError(msg)
    page.write_text(text)
    plot(found, docs)


def _table(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _seconds(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:.3g} s" if value >= 1 else f"{1000 * value:.3g} ms"


def _times(found: dict[str, Any]) -> str:
    rows = []
    for case in found["cases"].values():
        for row in case["rows"]:
            ours, plain, floor = (row.get(key) for key in NAMES)
            rows.append(
                [
                    case["title"],
                    f"{row['n']:,}",
                    f"**{_seconds(ours)}**",
                    _seconds(plain),
                    f"{plain / ours:.1f} ×" if plain else "",
                    _seconds(floor),
                    f"{ours / floor:.1f} ×" if floor else "",
                ]
            )
    return _table(["", "spots", "sthggep", "plain float32", "plain / sthggep", "floor", "sthggep / floor"], rows)


def _memory(found: dict[str, Any]) -> str:
    rows = [
        [case["title"], f"{row['n']:,}", NAMES[row["call"]], f"{row['above']:.2f} GB", f"{row['peak']:.2f} GB"]
        for case in found["cases"].values()
        for row in case["memory"]
    ]
    return _table(["", "spots", "", "peak above weights and input", "peak of the process"], rows)


def _machine(found: dict[str, Any]) -> str:
    machine, rates = found["machine"], found["rates"]
    cores = f"{machine['cores']} cores, {machine['threads']} threads"
    lines = [
        f"{machine['cpu']}, {cores}, torch {machine['torch']}; load when the run began: {machine['load']:.1f}.",
        f"Matrix products: {rates['float32']:.0f} GFLOP/s in float32, {rates['bfloat16']:.0f} in bfloat16 "
        f"({rates['bfloat16'] / rates['float32']:.1f} ×); {found['precision']} was taken. "
        f"Decoding: {rates['decode']:.0f} MB of pixels a second.",
    ]
    if "correlation" in found:
        lines.append(
            f"Lowest correlation of a gene between prediction as it comes and in float32: {found['correlation']:.5f}."
        )
    if "import" in found:
        times = found["import"]
        more = max(times["sthggep"] - times["anndata"], 0.0)
        lines.append(f"`import sthggep` takes {more:.2f} s on top of `import anndata` ({times['anndata']:.2f} s).")
    return "\n".join(f"- {line}" for line in lines)


def _reached(found: dict[str, Any], case: str, n: int, what: str) -> float | None:
    """The figure of one aim; ``None`` where it was not measured."""
    held = found["cases"].get(case, {"rows": [], "memory": []})
    row = next((row for row in held["rows"] if row["n"] == n), None)
    memory = next((row for row in held["memory"] if row["n"] == n and row["call"] == "sthggep"), None)
    if what.startswith("GB"):
        return None if memory is None else memory["above" if "above" in what else "peak"]
    if row is None:
        return None
    if what == "plain at the floor":
        return row["plain"] / row["floor"] if "plain" in row else None
    other = row.get("floor" if "floor" in what else "plain")
    if other is None:
        return None
    return row["sthggep"] / other if "floor" in what else other / row["sthggep"]


def _aims(found: dict[str, Any]) -> str:
    rows = []
    for case, n, what, aim, sense in AIMS:
        value = _reached(found, case, n, what)
        if value is not None:
            met = value >= aim if sense == "at least" else value <= aim
            title = found["cases"][case]["title"]
            best = _reached(found, case, n, "plain at the floor") if "faster" in what else None
            limit = "" if best is None else f" (the floor itself: {best:.1f})"
            figures = [f"{sense} {aim:g}", f"{value:.2g}{limit}", "yes" if met else "no"]
            rows.append([f"{title}, {n:,} spots: {what}", *figures])
    if "import" in found:
        more = max(found["import"]["sthggep"] - found["import"]["anndata"], 0.0)
        rows.append(["Import, s on top of anndata's", "at most 0.3", f"{more:.2f}", "yes" if more <= 0.3 else "no"])
    return _table(["", "aim", "found", "met"], rows)


def plot(found: dict[str, Any], docs: Path) -> None:
    """Time against spots, a panel a case."""
    sys.path.insert(0, str(docs / "drawings"))
    import _style as style
    from matplotlib import pyplot as plt

    cases = {name: case for name, case in found["cases"].items() if len(case["rows"]) > 1}
    if not cases:
        return
    looks = {
        "sthggep": {"color": style.BLUE, "marker": "o"},
        "plain": {"color": style.ORANGE, "marker": "s"},
        "floor": {"color": style.GRAY, "linestyle": "--"},
    }
    fig, axes = plt.subplots(1, len(cases), figsize=(3 * len(cases), 2.9), squeeze=False, layout="constrained")
    for ax, case in zip(axes[0], cases.values(), strict=True):
        for key, look in looks.items():
            points = [(row["n"], row[key]) for row in case["rows"] if row.get(key)]
            if points:
                ax.plot(*zip(*points, strict=True), label=NAMES[key], markersize=4, **look)
        ax.set(xscale="log", yscale="log", title=case["title"].replace(", ", ",\n", 1), xlabel="spots")
        ax.set_xticks([row["n"] for row in case["rows"]], [f"{row['n']:,}" for row in case["rows"]])
        ax.minorticks_off()
        ax.yaxis.set_major_formatter("{x:g}")
    axes[0][0].set_ylabel("seconds")
    axes[0][0].legend()
    folder = docs / "_static" / "performance"
    folder.mkdir(parents=True, exist_ok=True)
    fig.savefig(folder / "speed.svg", metadata={"Date": None})
    plt.close(fig)
