"""Writes `concepts/odd_inputs.md`: odd inputs and what happens, as the parametrized tests show it.

python docs/odd_inputs.py

A test that has the marker `handles("what happens")` shows this for each of its inputs, which its ids name in words.
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

What sthggep does with inputs that are damaged, ambiguous or not what they seem. Tests show each line, and `python docs/odd_inputs.py` makes this page from them.
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

Row = tuple[str, str]


class Collector:
    """A plugin of pytest that keeps the collected tests."""

    items: list[pytest.Item]

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        """Keep the tests."""
        self.items = session.items


def rows_by_room(items: Iterable[pytest.Item]) -> dict[str, list[Row]]:
    """Inputs and what happens, by the folder of the tests."""
    rows: dict[str, list[Row]] = {}
    for item in items:
        marker = item.get_closest_marker("handles")
        words = _input_in_words(item)
        if marker is not None and words:
            room = item.path.relative_to(ROOT / "tests").parts[0]
            row = (words, " ".join(str(marker.args[0]).split()))
            if row not in rows.setdefault(room, []):
                rows[room].append(row)
    return {room: sorted(listed, key=lambda row: row[::-1]) for room, listed in rows.items()}


def _input_in_words(item: pytest.Item) -> str:
    """The input of a test in words; empty if its id is only values."""
    callspec = getattr(item, "callspec", None)
    if callspec is None:
        return item.name.removeprefix("test_").replace("_", " ")
    words = re.sub(r"^-?\d+-", "", str(callspec.id)).strip("-").encode("ascii", "backslashreplace").decode()
    return words if re.search(r"[A-Za-z]{2}.* .*[A-Za-z]{2}|^[a-z]{3,}$", words) else ""


def make_page(rows: dict[str, list[Row]]) -> str:
    """The page with one table a room and outcome."""
    lines = [INTRODUCTION]
    for room, title in ROOMS.items():
        if room not in rows:
            continue
        lines += [f"## {title}", "", "| input | what happens |", "|---|---|"]
        outcomes: dict[str, list[str]] = {}
        for words, outcome in rows[room]:
            outcomes.setdefault(outcome, []).append(_escape(words))
        lines += [f"| {'; '.join(inputs)} | {_escape(outcome)} |" for outcome, inputs in outcomes.items()]
        lines.append("")
    return "\n".join(lines)


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
