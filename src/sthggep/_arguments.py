"""Arguments of public calls, checked against annotations and ranges before work starts."""

from __future__ import annotations

import functools
import inspect
import math
import os
import re
from collections.abc import Callable, Iterable, Mapping, Sized
from numbers import Integral, Real
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar, cast

import numpy as np

from sthggep._checks import no_slide
from sthggep._names import check_key

if TYPE_CHECKING:
    from types import FunctionType

F = TypeVar("F", bound=Callable[..., object])
C = TypeVar("C", bound=type)

LARGEST_NUMBER = 2**31 - 1
LARGEST_SEED = 2**32 - 1  # of numpy's generators, which scikit-learn uses
AT_LEAST = {
    **dict.fromkeys(("batch_size", "dim", "genes_per_row", "max_epochs", "max_genes", "min_counts", "n"), 1),
    **dict.fromkeys(("n_candidates", "n_pcs", "n_similar", "patch_px", "size_px", "window", "workers"), 1),
    **dict.fromkeys(("context_px", "n_boot", "n_members", "n_spatial", "n_top", "program", "seed", "series"), 0),
}
POSITIVE = (
    "dpi",
    "figsize",
    "learning_rate",
    "mpp",
    "pitch_um",
    "scale_um",
    "size",
    "size_um",
    "spacing_um",
    "spot_size",
)
SHARES = (
    "alpha",
    "alpha_img",
    "ceiling",
    "confidence",
    "detected",
    "fdr",
    "level",
    "min_tissue",
    "region_share",
    "share",
    "unlike",
)
LEVELS = {"interval": (0.5, 0.99)}  # a calibration holds quantiles for these levels and all between
PLACES = ("cache", "checkpoint_dir", "folder", "out", "save")
NOT_EMPTY = ("sections", "spots")
NOT_NEGATIVE = ("min_distance_um", "min_fraction")
WORDS = {
    "str": "text",
    "bool": "True or False",
    "int": "a whole number",
    "float": "a number",
    "Path": "a path",
    "None": "None",
    "HGGEP": "an HGGEP",
    "Sequence[float]": "a list of numbers",
    "tuple[float, float]": "two numbers",
}
RESULTS = {"Attribution": "what `sthggep.tl.attribution` returned"}
PLAIN = (str, bytes, bool, np.bool_, Real, os.PathLike, Mapping, list, tuple, set, type(None))


def checked(function: F) -> F:
    """Refuse arguments of another type than the annotations name, and numbers and keys out of range, before the call.

    Only plain types are compared, by the text of the annotation; what stands for slides or models, the function checks.

    Parameters
    ----------
    function
        A public function or method.

    Returns
    -------
    The function with the checks.
    """
    signature = inspect.signature(function)

    @functools.wraps(function)
    def call(*args: object, **kwargs: object) -> object:
        try:
            arguments = signature.bind(*args, **kwargs).arguments
        except TypeError as error:
            arguments = {}  # Python's own message follows, which names the function
            if "too many positional" in str(error):
                raise TypeError(_by_name(function.__name__, signature)) from None
        for name, value in arguments.items():
            parameter = signature.parameters[name]
            if value is not parameter.default:
                try:
                    _check_type(name, value, str(parameter.annotation))
                except TypeError as error:
                    msg = f"{error}{_order(function.__name__, signature, len(args))}"
                    raise TypeError(msg) from None
                _check_range(name, value)
        return function(*args, **kwargs)

    # Programs read the defaults here, and `wraps` leaves them out
    wrapped = cast("FunctionType", call)
    wrapped.__kwdefaults__ = getattr(function, "__kwdefaults__", None)
    return cast("F", call)


def checked_methods(cls: C) -> C:
    """Apply :func:`checked` to the public methods of a class.

    Parameters
    ----------
    cls
        The class.

    Returns
    -------
    The same class.
    """
    for name, member in list(vars(cls).items()):
        if inspect.isfunction(member) and not name.startswith("_"):
            setattr(cls, name, checked(member))
        elif isinstance(member, classmethod):
            setattr(cls, name, classmethod(checked(member.__func__)))
    return cls


def _by_name(function: str, signature: inspect.Signature) -> str:
    """Say which arguments are passed by position, and that the others need their names."""
    ordered = _positional(signature)
    others = [f"`{each}=`" for each in signature.parameters if each not in (*ordered, "self")]
    by_name = f"{', '.join(others[:4])}{', …' if len(others) > 4 else ''}"
    rest = f" Pass the others by their names: {by_name}." if others else ""
    return f"`{function}` takes {len(ordered)} by position: `{function}({', '.join(ordered)})`.{rest}"


def _order(function: str, signature: inspect.Signature, n_passed: int) -> str:
    """The order of arguments in words, if several were passed by their position."""
    ordered = _positional(signature)
    return f" The order is `{function}({', '.join(ordered)})`." if n_passed > 1 and len(ordered) > 1 else ""


def _positional(signature: inspect.Signature) -> list[str]:
    """Names of the arguments that may be passed by their position."""
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return [name for name, each in signature.parameters.items() if each.kind in kinds and name != "self"]


def _check_type(name: str, value: object, annotation: str) -> None:
    kinds = [kind.strip().strip("'\"") for kind in re.split(r"\|(?![^\[]*\])", annotation)]
    if "AnnData" in annotation:
        is_model = type(value).__name__ == "HGGEP" and "HGGEP" not in annotation
        takes_text = re.search(r"\b(str|Path)\b", annotation.replace("Mapping[str", ""))
        is_text = isinstance(value, str | os.PathLike) and not takes_text
        if is_model or is_text:
            raise no_slide(value, name)
        return
    if any(_is_kind(value, kind) for kind in kinds):
        return
    words = list(dict.fromkeys(_describe(kind, name) for kind in kinds if kind != "None" or len(kinds) == 1))
    hint = f" Pass `{name}=[{value!r}]`." if isinstance(value, str) and "Sequence[str]" in kinds else ""
    if {"float", "int"} & set(kinds) and isinstance(value, str) and (decimal := as_decimal(value)) is not None:
        hint = f" Pass `{name}={decimal:g}`, without quotes."
    text = repr(value)
    shown = text if len(text) <= 60 else f"{text[:60]}…"
    found = shown if isinstance(value, str) else f"{shown} ({type(value).__name__})"
    # The repr of a slide or a model has lines of its own
    found = found if isinstance(value, PLAIN) or "\n" not in text else type(value).__name__
    msg = f"`{name}` must be {' or '.join(words)}, found {found}.{hint}"
    raise TypeError(msg)


def as_decimal(text: str) -> float | None:
    """Read a text as a number, with a decimal point or a decimal comma; ``None`` if it is none."""
    try:
        return float(text if text.count(",") != 1 or "." in text else text.replace(",", "."))
    except ValueError:
        return None


def _describe(kind: str, name: str) -> str:
    """An annotated kind in words."""
    if kind == "Sequence[str]":
        return "a list of genes" if name in ("genes", "include") else "a list of names"
    if kind.startswith(("Mapping", "dict")):
        return "a dict"
    return (WORDS | RESULTS).get(kind, "a list" if "[" in kind else kind.split(".")[-1])


def _is_kind(value: object, kind: str) -> bool:
    """Whether a value is of an annotated kind; what is not plain is left to the function."""
    number = isinstance(value, Real) and not isinstance(value, bool | np.bool_)
    plain: dict[str, Callable[[], bool]] = {
        "str": lambda: isinstance(value, str),
        "bool": lambda: isinstance(value, bool | np.bool_),
        "int": lambda: number and isinstance(value, Integral),
        "float": lambda: number,
        "Path": lambda: isinstance(value, os.PathLike),
        "None": lambda: value is None,
    }
    if kind in plain:
        return plain[kind]()
    if kind in ("inspect._empty", "ArrayLike", "object") or kind.startswith("Literal"):
        return True
    if kind.startswith(("Mapping", "dict")):
        return isinstance(value, Mapping)
    if kind.startswith(("Sequence", "tuple")):
        return _is_list(value, kind[kind.index("[") + 1 : -1].split(",")[0])
    if kind in RESULTS:
        return hasattr(value, "table")
    return not isinstance(value, PLAIN)


def _is_list(value: object, of: str) -> bool:
    if not isinstance(value, Iterable) or isinstance(value, str | bytes | Mapping):
        return False
    # An iterator can be read only once
    kinds = of.split(" | ")
    return not isinstance(value, Sized) or all(any(_is_kind(item, kind) for kind in kinds) for item in value)


def _check_range(name: str, value: object) -> None:
    if name == "key_added" and value is not None:
        check_key(value, f"`{name}`")
    if isinstance(value, str) and "\0" in value:
        msg = f"`{name}` must be a name, but holds the character NUL: {value!r}."
        raise ValueError(msg)
    if name in NOT_EMPTY and isinstance(value, Sized) and not hasattr(value, "columns") and not len(value):
        msg = f"`{name}` is empty. Name one or several, or leave it out."
        raise ValueError(msg)
    if name == "figsize" and isinstance(value, Sized) and len(value) != 2:
        msg = f"`figsize` must be two numbers, width and height in inches, found {value!r}."
        raise ValueError(msg)
    if name in PLACES and value == "":
        msg = f"`{name}` must be the name of a file or a folder, but is empty."
        raise ValueError(msg)
    if name == "save" and value is not None:
        _check_figure_file(Path(cast("str", value)))
    for number in value if isinstance(value, list | tuple | np.ndarray) else (value,):
        if isinstance(number, Real):
            _check_number(name, float(number))


def _check_figure_file(path: Path) -> None:
    """Refuse a file that a figure cannot be written to, before it is drawn."""
    from matplotlib.backend_bases import FigureCanvasBase

    ending = path.suffix.lstrip(".").lower()
    endings = FigureCanvasBase.get_supported_filetypes()
    if ending and ending not in endings:
        msg = f"`save` must end in one of {', '.join(f'.{name}' for name in sorted(endings))}, found {path.name!r}."
        raise ValueError(msg)
    if path.is_dir():
        msg = f"`save` must be a file, found the folder {str(path)!r}."
        raise IsADirectoryError(msg)
    if not path.absolute().parent.is_dir():
        msg = f"`save` must be in a folder that exists, but there is no folder {str(path.absolute().parent)!r}. Make it first."
        raise FileNotFoundError(msg)
    if not os.access(path.absolute().parent, os.W_OK):
        msg = f"`save`: you may not write to {str(path.absolute().parent)!r}. Pass another file."
        raise PermissionError(msg)


def _check_number(name: str, number: float) -> None:
    least = AT_LEAST.get(name, -math.inf)
    expected = "a positive whole number" if least == 1 else f"a whole number of {least} or more"
    valid = least <= number <= LARGEST_NUMBER or name not in AT_LEAST
    if name == "seed":
        expected, valid = f"a whole number from 0 to {LARGEST_SEED:,}", 0 <= number <= LARGEST_SEED
    elif name in POSITIVE:
        expected, valid = "a positive number", 0 < number < math.inf
    elif name in SHARES:
        expected, valid = "a share from 0 to 1", 0 <= number <= 1
    elif name in LEVELS:
        low, high = LEVELS[name]
        expected, valid = f"a share such as 0.9, from {low:g} to {high:g}", low <= number <= high
    elif name in NOT_NEGATIVE:
        expected, valid = "a number of 0 or more", 0 <= number < math.inf
    if not valid:
        msg = f"`{name}` must be {expected}, found {number:g}."
        raise ValueError(msg)
