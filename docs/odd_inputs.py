"""Write `concepts/odd_inputs.md`: odd inputs and what happens, as the parametrized tests show it.

python docs/odd_inputs.py

The marker `handles("What happens.")` of a test holds for each of its inputs; the ids of the test name the inputs in words.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "concepts" / "odd_inputs.md"
INTRODUCTION = """# Odd inputs

This page lists damaged, ambiguous and misleading inputs, and what sthggep does with them. The tests check each row, and `python docs/odd_inputs.py` writes the page from them.
"""
ROOMS = {
    "image": "Images",
    "slides": "Sections, spots and containers",
    "table": "Counts and genes",
    "encoders": "Features",
    "model": "Models",
    "training": "Training",
    "disk": "Files and folders",
    "io": "Readers",
    "pp": "Preparation",
    "tl": "Predictions and scores",
    "pl": "Figures and pages",
    "cli": "The shell",
}

Ids = dict[str, list[tuple[str, ...]]]


class Collector:
    """A plugin of pytest that keeps the collected tests."""

    items: list[pytest.Item]

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        """Keep the tests."""
        self.items = session.items


def rows_by_room(items: Iterable[pytest.Item]) -> dict[str, dict[str, Ids]]:
    """Ids of the inputs, by the folder of the tests, by what happens, and by the test."""
    rows: dict[str, dict[str, Ids]] = {}
    for item in items:
        marker = item.get_closest_marker("handles")
        parts = _id_in_words(item)
        if marker is not None and parts:
            room = item.path.relative_to(ROOT / "tests").parts[0]
            outcome = " ".join(str(marker.args[0]).split())
            test = item.nodeid.partition("[")[0]
            ids = rows.setdefault(room, {}).setdefault(outcome, {}).setdefault(test, [])
            if parts not in ids:
                ids.append(parts)
    return rows


def _id_in_words(item: pytest.Item) -> tuple[str, ...]:
    """The id of each parameter of a test; empty if the ids are only values."""
    callspec = getattr(item, "callspec", None)
    if callspec is None:
        return (item.name.removeprefix("test_").replace("_", " "),)
    ids = [part for part in getattr(callspec, "_idlist", [callspec.id]) if not re.fullmatch(r"-?\d+", part)]
    # Pytest writes letters beyond ASCII as escapes
    ids = [re.sub(r"\\x([0-9a-f]{2})", lambda match: chr(int(match[1], 16)), part) for part in ids]
    words = [part for part in ids if part]
    in_words = any(re.search(r"[A-Za-z].* .*[A-Za-z]{2}", part) for part in words)
    return tuple(ids) if in_words or (len(words) == 1 and re.fullmatch(r"[a-z]{3,}", words[0])) else ()


def make_page(rows: dict[str, dict[str, Ids]]) -> str:
    """The page with one table a room, and one row an outcome."""
    lines = [INTRODUCTION]
    for room, title in ROOMS.items():
        if room not in rows:
            continue
        lines += [f"## {title}", "", "| input | what happens |", "|---|---|"]
        for outcome, tests in sorted(rows[room].items()):
            inputs = sorted({phrase for ids in tests.values() for phrase in _phrases(ids)})
            lines.append(f"| {'; '.join(map(_escape, inputs))} | {_escape(outcome)} |")
        lines.append("")
    return "\n".join(lines)


def _phrases(ids: list[tuple[str, ...]]) -> list[str]:
    """The inputs of a test in words; if the test takes all pairs of two lists, each entry of the lists once."""
    first, second = ({parts[i] for parts in ids if len(parts) == 2} for i in (0, 1))
    if min(len(first), len(second)) < 2 or len(ids) != len(first) * len(second):
        return [", ".join(filter(None, parts)) for parts in ids]
    many, few = (first, second) if len(first) > len(second) else (second, first)
    each = "each also " if "" in few else "each: "
    return [f"{'; '.join(sorted(many))} ({each}{', '.join(sorted(filter(None, few)))})"]


def _escape(text: str) -> str:
    # Outcomes hold code between backticks, in which only the border of a cell needs a backslash
    parts = text.split("`")
    parts[::2] = [re.sub(r"([|<>*_\[\]\\$])", r"\\\1", part) for part in parts[::2]]
    parts[1::2] = [part.replace("|", "\\|") for part in parts[1::2]]
    return "`".join(parts)


def main() -> int:
    """Collect the tests and write the page."""
    collector = Collector()
    status = pytest.main(["--collect-only", "-q", "-m", "handles", str(ROOT / "tests")], plugins=[collector])
    if status == pytest.ExitCode.OK:
        PAGE.write_text(make_page(rows_by_room(collector.items)))
    return int(status)


if __name__ == "__main__":
    sys.exit(main())
