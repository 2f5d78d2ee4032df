"""On the pages of functions the examples stand above the arguments, and a default that the text explains is not repeated."""

from __future__ import annotations

import re
from typing import Any

EXAMPLES = ".. rubric:: Examples"
FIELD = re.compile(r":(\w+)(?: [^:]*)?:")
TYPE = re.compile(r":type (?P<name>[\w*\\]+):.*?(?P<default> \(default: .*\))$")


def examples_first(lines: list[str]) -> list[str]:
    """Return the lines of a docstring with its examples before the first field."""
    fields = [i for i, line in enumerate(lines) if FIELD.match(line)]
    if EXAMPLES not in lines or not fields or lines.index(EXAMPLES) < fields[0]:
        return lines
    start = lines.index(EXAMPLES)
    after = (i for i in range(start + 1, len(lines)) if FIELD.match(lines[i]) or lines[i].startswith(".. rubric::"))
    end = next(after, len(lines))
    examples, rest = lines[start:end], lines[:start] + lines[end:]
    return [*rest[: fields[0]], *examples, "", *rest[fields[0] :]]


def one_default(lines: list[str]) -> list[str]:
    """Leave out the default beside a type where the text of the argument says what the default is or does."""
    text, name = {}, None
    for line in lines:
        if match := re.match(r":param ([^:]+):", line):
            name = match[1]
        elif FIELD.match(line):
            name = None
        if name is not None:
            text[name] = f"{text.get(name, '')} {line}"
    return [
        line.removesuffix(match["default"]) if (match := TYPE.match(line)) and _explained(match, text) else line
        for line in lines
    ]


def _explained(match: re.Match[str], text: dict[str, str]) -> bool:
    return "Default:" in text.get(match["name"], "") or match["default"] == " (default: ``False``)"


def rearrange(_app: Any, _what: str, _name: str, _obj: Any, _options: Any, lines: list[str]) -> None:
    """Change the lines of a docstring in place, as Sphinx asks."""
    lines[:] = one_default(examples_first(lines))


def setup(app: Any) -> dict[str, bool]:
    """Run after the extensions that make fields of the sections, and types of the annotations."""
    app.connect("autodoc-process-docstring", rearrange, priority=900)
    return {"parallel_read_safe": True}
