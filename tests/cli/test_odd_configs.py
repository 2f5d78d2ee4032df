"""Option files that a stranger wrote, or a slip of the hand."""

from __future__ import annotations

import os
import random
import sys
import time
from pathlib import Path

import pytest

from sthggep._cli._config import MOST_BYTES

# STHGGEP_FUZZ=2000 looks at more mutants; each is made from its own number, so that a fault can be found again
N_MUTANTS = int(os.environ.get("STHGGEP_FUZZ", "120"))
UNEXPECTED = "--debug to see the traceback"


def lists_of_lists() -> str:
    inner, before = "&a [x,x,x,x,x,x,x,x,x,x]", "a"
    for name in "bcdefghi":
        inner, before = f"&{name} [{inner}," + ",".join([f"*{before}"] * 9) + "]", name
    return inner


def merges() -> str:
    lines = ["m0: &m0 {x0: 1}"]
    lines += [f"m{i}: &m{i} {{<<: [{','.join([f'*m{i - 1}'] * 9)}]}}" for i in range(1, 10)]
    return "\n".join(lines)


DEEP = 100_000
ODD = [
    (f"model: {lists_of_lists()}", "model must be one value", "a billion values out of nested aliases"),
    (f"genes: {lists_of_lists()}", "genes must be one value or a list of them", "nested aliases in a list of genes"),
    (f"{lists_of_lists()}: 1", "a name was expected", "nested aliases as a name"),
    (merges(), "unknown option 'm0'", "nested merges"),
    ("<<: {batch_size: 3}", "unknown option '<<'", "a merge"),
    ("model: " + "[" * DEEP, "nested too deeply", "lists nested too deeply"),
    ("model: " + "{a: " * DEEP, "nested too deeply", "mappings nested too deeply"),
    ("- " * DEEP, "nested too deeply", "items nested too deeply"),
    ("model: &x [*x]", "model must be one value", "a list that holds itself"),
    ("model: " + "x" * (MOST_BYTES + 1), "must have at most 1,048,576 bytes", "a value of megabytes"),
    ("batch_size: " + "9" * 5000, "has 5,000 letters, 1,000 at most", "a number of 5000 digits"),
    ("model: 2020-13-45", "", "a date that there is not"),
    ("batch_size: !!int x", "A whole number of 1 or more was expected", "a text that says it is a number"),
    ("latent: !!bool x", "latent must be true or false, found x", "a text that says it is true or false"),
    ("model: !!python/object/apply:os.system [echo]", "model must be one value", "a call of Python"),
    ("batch_size: !!timestamp x", "A whole number of 1 or more was expected", "a text that says it is a time"),
    ("model: !!binary AAAA", "", "bytes"),
    ("model: !!set {a, b}", "model must be one value", "a set"),
    ("model: [1, 2]", "model must be one value, found ['1', '2']", "a list for one value"),
    ("model: {a: 1}", "model must be one value, found lines of `name: value`", "a mapping for one value"),
    ("? [a, b]\n: 1", "a name was expected", "a list for a name"),
    ("? {a: 1}\n: 1", "a name was expected", "a mapping for a name"),
    ("batch_size: 1\nbatch_size: 2", "each option may appear once, found 'batch_size' twice", "an option twice"),
    ("slides: *.h5ad", "Put a value with a * or & into quotes", "a pattern without quotes"),
    ("model: *x", "Put a value with a * or & into quotes", "an alias of nothing"),
    ('slides: ["a\\0*.h5ad"]', "characters that no text can hold", "a null byte in a name"),
    ('model: "\\ud800"', "characters that no text can hold", "half of a surrogate pair"),
    ("model: \x07", "is not YAML", "a bell"),
    ("a: b: c", "is not YAML", "two colons"),
    ("model: 'x", "is not YAML", "a quote without an end"),
    ("\tmodel: x", "is not YAML", "a tab at the start"),
    ("--- \nmodel: x\n---\nmodel: y", "is not YAML", "two documents"),
    ("%YAML 9.9\n---\nmodel: x", "is not YAML", "YAML of the future"),
    ("\n".join(f"x{i}: 1" for i in range(9000)), "(9000 in all)", "thousands of unknown options"),
    ("z" * 500_000 + ": 1", "is not YAML", "a name of half a megabyte"),
    ("[]", "found list", "a list at the top"),
    ("5", "found str", "a number at the top"),
    ("# nothing", "found nothing", "a comment alone"),
]


@pytest.mark.handles("The command runs nothing and ends with exit code 2. A short message names the file.")
@pytest.mark.parametrize(("text", "message"), [pytest.param(text, message, id=name) for text, message, name in ODD])
def test_files_of_no_options(shell, text, message):
    Path("run.yaml").write_text(text, encoding="utf-8")
    start = time.perf_counter()
    result = shell("predict", "x.h5ad", "--out", "y.h5ad", "--config", "run.yaml")
    assert time.perf_counter() - start < 60
    message_text = " ".join(result.stderr.split())
    assert len(message_text) < 3000
    assert UNEXPECTED not in message_text
    assert message in message_text
    # With a value that YAML would read as something else the option is a text, and the slide is looked for
    assert result.exit_code == (2 if message else 1)
    assert message or "x.h5ad does not exist" in message_text
    assert sorted(path.name for path in Path().iterdir()) == ["run.yaml"]


@pytest.mark.handles("The command ends with exit code 2 and says that it cannot read the file.")
@pytest.mark.parametrize(
    "content",
    [
        pytest.param(b"\xff\xff\xff", id="bytes that are no text"),
        pytest.param("model: µ".encode("latin-1"), id="a text in Latin-1"),
        pytest.param(b"\x00" * 100, id="null bytes"),
        pytest.param(b"\x1f\x8b\x08" + b"\0" * 50, id="a compressed file"),
    ],
)
def test_bytes(shell, content):
    Path("run.yaml").write_bytes(content)
    result = shell("predict", "x.h5ad", "--out", "y.h5ad", "--config", "run.yaml")
    assert result.exit_code == 2
    assert "run.yaml is not YAML" in " ".join(result.stderr.split())


@pytest.mark.handles("The command reads the file as its author means it.")
@pytest.mark.parametrize(
    ("text", "encoding", "name", "value"),
    [
        pytest.param("out: µ.h5ad", "utf-8-sig", "out", "µ.h5ad", id="a byte-order mark"),
        pytest.param("out: µ.h5ad", "utf-16", "out", "µ.h5ad", id="UTF-16"),
        pytest.param("out: 2020-01-02", "utf-8", "out", "2020-01-02", id="a date as a name"),
        pytest.param("out: 010", "utf-8", "out", "010", id="a number that starts with 0 as a name"),
        pytest.param("out: 1e3", "utf-8", "out", "1e3", id="a number with an exponent as a name"),
        pytest.param("batch_size: 1_0", "utf-8", "batch_size", 10, id="a number with an underscore"),
        pytest.param("latent: Yes", "utf-8", "latent", True, id="yes for a switch"),
        pytest.param("latent: OFF", "utf-8", "latent", False, id="off for a switch"),
        pytest.param("key_added: 'on'", "utf-8", "key_added", "on", id="a word in quotes"),
        pytest.param("image_key: ~", "utf-8", "image_key", None, id="an option without a value"),
        pytest.param("genes: &g [A, B]", "utf-8", "genes", ("A", "B"), id="a list with an anchor"),
        pytest.param("model: &m x\nout: *m", "utf-8", "out", "x", id="an alias of one value"),
    ],
)
def test_values_stay_what_they_are(shell, text, encoding, name, value, monkeypatch):
    from sthggep._cli import main

    options_read: dict[str, object] = {}
    monkeypatch.setattr(main.commands["predict"], "callback", lambda **options: options_read.update(options))
    Path("run.yaml").write_text(text, encoding=encoding)
    words = () if "out:" in text else ("--out", "y.h5ad")
    result = shell("predict", "x.h5ad", *words, "--config", "run.yaml")
    assert result.exit_code == 0, result.output
    assert options_read[name] == value


# ---------------------------------------------------------------- mutants

OPTIONS = """\
slides: [x.h5ad, y.zarr]
out: predicted/
model: her2st
genes: [ERBB2, GNAS]
batch_size: 64
window: auto
spacing_um: 55.5
mpp: 0.5
latent: true
overwrite: false
device: cpu
"""
PIECES = [
    "[",
    "]",
    "{",
    "}",
    ":",
    "- ",
    "&a ",
    "*a",
    "!!int ",
    "!!null ",
    "!x ",
    "|",
    ">",
    "'",
    '"',
    "#",
    "%",
    "@",
    "`",
    "?",
    "<<: ",
    "\n",
    "\t",
]
PIECES += [
    "~",
    ".nan",
    ".inf",
    "-1",
    "0",
    "1e999",
    "9" * 400,
    "2020-99-99",
    "0x",
    "\\0",
    "\0",
    "\ud7ff",
    "é",
    "yes",
    "null",
    "[[[[",
    "*.h5ad",
    "../..",
    "---\n",
]


def mutate(chance: random.Random) -> bytes:
    text = OPTIONS
    for _ in range(chance.choice([1, 1, 2, 4, 10])):
        lines, what, start = text.splitlines(keepends=True), chance.randrange(6), chance.randrange(len(text) + 1)
        if what == 0:
            text = text[:start] + chance.choice(PIECES) + text[start:]
        elif what == 1:
            text = text[:start] + text[start + chance.randrange(20) :]
        elif what == 2 and lines:
            name = chance.choice(lines).partition(":")[0]
            text += f"{name}: {chance.choice(PIECES)}{chance.choice(PIECES)}\n"
        elif what == 3 and lines:
            number = chance.randrange(len(lines))
            name, _, _ = lines[number].partition(":")
            lines[number] = f"{name}: {chance.choice(PIECES)}\n"
            text = "".join(lines)
        elif what == 4:
            chance.shuffle(lines)
            text = "".join(lines[: chance.randrange(len(lines) + 1)])
        else:
            text = text[:start]
    content = bytearray(text.encode("utf-8"))
    if chance.random() < 0.3 and content:
        for _ in range(chance.choice([1, 5])):
            content[chance.randrange(len(content))] = chance.randrange(256)
    return bytes(content)


def test_mutants_of_a_file_are_refused_or_read(shell):
    outcomes = []
    for number in range(N_MUTANTS):
        chance = random.Random(number)
        Path("run.yaml").write_bytes(mutate(chance))
        command = chance.choice(["predict", "predict", "fit", "evaluate", "report", "cross-validate"])
        result = shell(command, "--config", "run.yaml", *(["--out", "y.h5ad"] if chance.random() < 0.5 else []))
        fair = (
            result.exit_code in (1, 2) and UNEXPECTED not in result.stderr and isinstance(result.exception, SystemExit)
        )
        outcomes.append(
            result.exit_code if fair else f"{command} {number}: {result.stderr[-300:]} {result.exception!r}"
        )
    sys.stdout.write(f"{ {name: outcomes.count(name) for name in dict.fromkeys(outcomes)} }\n")
    assert [outcome for outcome in outcomes if outcome not in (1, 2)] == []
    assert outcomes.count(1) > 0.02 * N_MUTANTS
    assert outcomes.count(2) > 0.2 * N_MUTANTS
    assert sorted(path.name for path in Path().iterdir()) == ["run.yaml"]
