"""Arguments of another type, or out of range, in every public call."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from types import SimpleNamespace

import numpy as np
import pytest

import sthggep
from sthggep._arguments import AT_LEAST, LEVELS, NOT_NEGATIVE, POSITIVE, SHARES, checked

NAMESPACES = ("datasets", "io", "pl", "pp", "tl")
# One value of each plain type
VALUES = {
    "text": "x",
    "True": True,
    "a number": 2.5,
    "a whole number": 3,
    "None": None,
    "bytes": b"x",
    "a dict": {"a": 1},
}
ACCEPTS = {"str": ("text",), "bool": ("True",), "int": ("a whole number",), "float": ("a number", "a whole number"), "None": ("None",), "Path": ()}  # fmt: skip
ELSEWHERE = {"datasets.toy", "pp.encoders"}  # a generator of test tissue, and a call without arguments


def public_calls() -> Iterator[tuple[str, Callable[..., object]]]:
    for namespace in NAMESPACES:
        module = getattr(sthggep, namespace)
        for name in module.__all__:
            call = getattr(module, name)
            if inspect.isfunction(call) and f"{namespace}.{name}" not in ELSEWHERE:
                yield f"{namespace}.{name}", call
    for name, call in vars(sthggep.HGGEP).items():
        function = call.__func__ if isinstance(call, classmethod) else call
        if inspect.isfunction(function) and not name.startswith("_"):
            yield f"HGGEP.{name}", function


RANGED = {*AT_LEAST, *POSITIVE, *SHARES, *LEVELS, *NOT_NEGATIVE}
CALLS = dict(public_calls())


def parameters() -> Iterator[tuple[str, inspect.Parameter]]:
    for name, call in CALLS.items():
        yield from ((name, p) for p in inspect.signature(call).parameters.values() if p.name not in ("self", "cls"))


def valid_value(annotation: str) -> object:
    """A value of a plain type of the annotation, else an object that is no slide."""
    kinds = annotation.split(" | ")
    if annotation.startswith("Mapping["):
        return {"a": object()}
    if annotation == "Attribution":
        return SimpleNamespace(table=None)
    return "x" if "str" in kinds else 3 if "float" in kinds else ["x"] if "Sequence[str" in annotation else object()


def refusal(name: str, parameter: str, value: object) -> str:
    """The message by which a call refuses one argument; others that it needs are no slides."""
    required = [p for p in inspect.signature(CALLS[name]).parameters.values() if p.default is p.empty]
    needed = {p.name: valid_value(str(p.annotation)) for p in required}
    arguments = needed | {parameter: value}
    first = [arguments.pop(key) for key in ("self", "cls") if key in arguments]
    with pytest.raises((TypeError, ValueError)) as caught:
        CALLS[name](*first, **arguments)
    return str(caught.value)


def other_types() -> Iterator[tuple[str, str, str]]:
    for name, parameter in parameters():
        kinds = str(parameter.annotation).split(" | ")
        if all(kind in ACCEPTS for kind in kinds):
            accepted = {words for kind in kinds for words in ACCEPTS[kind]}
            yield from ((name, parameter.name, words) for words in VALUES if words not in accepted)


def out_of_range() -> Iterator[tuple[str, str, float]]:
    for name, parameter in parameters():
        numbers = {"int", "float", "Sequence[float]"} & set(str(parameter.annotation).split(" | "))
        if not numbers:
            continue
        if parameter.name in AT_LEAST:
            yield from ((name, parameter.name, AT_LEAST[parameter.name] - more) for more in (1, 2))
        if parameter.name in POSITIVE:
            yield from ((name, parameter.name, value) for value in (0.0, -1.0, float("nan"), float("inf")))
        if parameter.name in SHARES:
            yield from ((name, parameter.name, value) for value in (-0.1, 1.1, float("nan")))
        if parameter.name in LEVELS:
            yield from ((name, parameter.name, value) for value in (0.49, 0.991, 90.0, float("nan")))


def test_arguments_of_another_type():
    """Each parameter of plain types refuses each value of another plain type, by its name."""
    cases = list(other_types())
    assert len(cases) > 1000
    faults = [case for case in cases if f"`{case[1]}` must be " not in refusal(case[0], case[1], VALUES[case[2]])]
    assert faults == []


def test_numbers_out_of_range():
    cases = list(out_of_range())
    assert len(cases) > 150
    faults = [case for case in cases if f"`{case[1]}` must be a" not in refusal(*case)]
    assert faults == []


def test_every_number_has_a_range():
    """A new number of a public call says what it may be."""
    free = {
        p.name
        for _, p in parameters()
        if {"int", "float"} & set(str(p.annotation).split(" | ")) and p.name not in RANGED
    }
    assert free == {"vmin", "vmax"}


def test_keys_are_checked_wherever_they_are_added():
    faults = [
        name for name, p in parameters() if p.name == "key_added" and "slashes" not in refusal(name, p.name, "a/b")
    ]
    assert faults == []


@checked
def call(genes: str | list[str] | None = None, *, names: "Sequence[str]" = (), batch_size: int = 64, seed: int = 0, flag: bool = False) -> tuple[object, ...]:  # noqa: F821, UP037  # fmt: skip
    return genes, names, batch_size, seed, flag


@pytest.mark.parametrize(
    "arguments",
    [
        {"batch_size": np.int64(3)},
        {"flag": np.True_},
        {"names": np.array(["a"])},
        {"names": ("a",)},
        {"seed": 2**32 - 1},
    ],
)
def test_numbers_and_lists_of_other_libraries_are_accepted(arguments: dict[str, object]):
    assert call(**arguments)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"names": "GNAS"}, TypeError, r"`names` must be a list of names, found 'GNAS'\. Pass `names=\['GNAS'\]`\."),
        ({"names": [1]}, TypeError, "`names` must be a list of names"),
        ({"seed": 2**32}, ValueError, "`seed` must be a whole number from 0 to 4,294,967,295"),
        ({"genes": "a\0"}, ValueError, "`genes` must be a name, but holds the character NUL"),
        ({"batch_size": np.bool_(1)}, TypeError, "`batch_size` must be a whole number"),
    ],
)  # fmt: skip
def test_messages(arguments: dict[str, object], error: type[Exception], message: str):
    with pytest.raises(error, match=message):
        call(**arguments)


def test_a_missing_argument_is_pythons_own_message():
    with pytest.raises(TypeError, match=r"features\(\) missing 1 required keyword-only argument: 'size_um'"):
        sthggep.pp.features(object())


def test_defaults_of_a_checked_call_can_be_read():
    assert sthggep.pp.features.__kwdefaults__["encoding"] == "patches"
    assert inspect.signature(sthggep.pp.features).parameters["batch_size"].default == 64


@pytest.mark.handles("sthggep rejects the value and states how to write it.")
@pytest.mark.parametrize(
    ("text", "number"),
    [pytest.param("0,5", "0.5", id="a number as text, with a comma"), pytest.param("0.25", "0.25", id="a number as text")],
)  # fmt: skip
@pytest.mark.parametrize(("name", "parameter"), [("tl.predict", "mpp"), ("tl.fit", "mpp"), ("io.read_slide", "mpp"), ("pp.features", "size_um")])  # fmt: skip
def test_numbers_as_text(name: str, parameter: str, text: str, number: str):
    words = f"found {text!r}. Pass `{parameter}={number}`, without quotes."
    assert words in refusal(name, parameter, text)


@pytest.mark.parametrize("text", ["1,000.5", "1,000,5", "half", ""])
def test_text_that_is_no_number_gets_no_number(text: str):
    assert "without quotes" not in refusal("tl.predict", "mpp", text)


def test_swapped_arguments_are_told_their_order(toy):
    model = sthggep.HGGEP.from_pretrained("her2st")
    gene = str(toy.var_names[0])
    swapped = {
        "gene_map(data, genes)": lambda: sthggep.pl.gene_map(gene, toy),
        "colors(data, model)": lambda: sthggep.pl.colors(model, toy),
        "predict(data, model)": lambda: sthggep.tl.predict(model, toy),
        "attribution(data, model, gene)": lambda: sthggep.tl.attribution(toy, gene, model),
        "evaluate(data, key)": lambda: sthggep.tl.evaluate("hggep", toy),
        "report(results, path)": lambda: sthggep.pl.report("page.html", toy),
    }
    for order, call in swapped.items():
        with pytest.raises(TypeError) as caught:
            call()
        assert str(caught.value).endswith(f" The order is `{order}`."), order
        assert "\n" not in str(caught.value)
    with pytest.raises(TypeError, match=r"`data` must be .*, found HGGEP\. That is a model: pass the slide first\.$"):
        sthggep.tl.trust(model)
    with pytest.raises(TypeError, match=r"must be what `sthggep\.tl\.attribution` returned, found AnnData\.$"):
        sthggep.pl.attribution(toy)


def test_arguments_that_need_their_names(toy):
    with pytest.raises(
        TypeError,
        match=r"`fit` takes 1 by position: `fit\(slides\)`\. Pass the others by their names: `genes=`, `absent=`",
    ):
        sthggep.tl.fit(toy, ["FAT1", "STRO1"])
