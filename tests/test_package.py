"""What holds for the package as a whole: names, signatures, docstrings, imports."""

from __future__ import annotations

import ast
import importlib
import inspect
import json
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path

import pytest

import sthggep

SOURCE = Path(sthggep.__file__).parent

NAMESPACES = ("datasets", "io", "nn", "pl", "pp", "tl")

# The names other people's code may count on.
PROMISED = {
    "sthggep": {"HGGEP", "datasets", "io", "pl", "pp", "tl"},
    "sthggep.datasets": {"cscc", "her2st", "mob", "toy"},
    "sthggep.io": {"read_slide", "read_st"},
    "sthggep.pl": {"agreement", "colors", "cross_validation", "gene_map", "history", "patches", "report", "scores"},
    "sthggep.pp": {"encoders", "features", "gene_panel", "hypergraph", "patches", "register_encoder", "tissue_grid"},
    "sthggep.tl": {
        "agreement",
        "cross_validate",
        "evaluate",
        "fit",
        "predict",
        "predict_cohort",
        "summary",
        "to_adata",
        "top_genes",
    },
}

# Options that mean the same wherever they stand: keyword-only, with this default.
SHARED_OPTIONS = {
    "coordinate_system": None,
    "copy": False,
    "device": "auto",
    "image_key": None,
    "layer": None,
    "library_key": None,
    "mpp": None,
    "shapes_key": None,
    "show_progress_bar": True,
    "spatial_key": "spatial",
    "table_key": "table",
}
FIRST_PARAMETER = {
    "pp": {"data", "slides"},
    "tl": {"data", "slides"},
    "pl": {"data", "history", "model", "results", "scores", "slides"},
}

# Import direction is data direction: a module imports from its own row and the rows above.
LAYERS = (
    {
        "_log",
        "_progress",
        "_keys",
        "_checks",
        "_device",
        "_store",
        "_hub",
        "_blocks",
        "_rows",
        "_windows",
        "__version__",
    },
    {"_expression", "_gene_names", "_image", "_image_files", "_image_openslide", "_lattice"},
    {
        "_colors",
        "_containers",
        "_given",
        "_labels",
        "_placement",
        "_prediction",
        "_recolor",
        "_slide",
        "_spatialdata",
        "_stain",
        "_targets",
    },
    {"io"},
    {"datasets"},
    {"nn"},
    {"pp"},
    {"_data", "_neighborhood", "_slide_files", "_windowed"},
    {"_training", "_presets", "_checkpoints"},
    {"model", "HGGEP", "_card", "_describe", "_lazyslide", "_predictor"},
    {"tl"},
    {"pl"},
    {"_cli", "__main__"},
)
RANK = {name: rank for rank, names in enumerate(LAYERS) for name in names}
HEAVY = (
    "distributed",
    "lightning",
    "matplotlib.pyplot",
    "scanpy",
    "spatialdata",
    "squidpy",
    "torch",
    "torch_geometric",
)


# ---------------------------------------------------------------- what is public


def public_modules() -> list[str]:
    """Dotted names of all modules without an underscore."""
    paths = [path.relative_to(SOURCE).with_suffix("") for path in sorted(SOURCE.rglob("*.py"))]
    names = [path.parent if path.name == "__init__" else path for path in paths]
    return [
        ".".join(("sthggep", *name.parts)) for name in names if not any(part.startswith("_") for part in name.parts)
    ]


def public_functions() -> Iterator[tuple[str, Callable[..., object]]]:
    """Every public function of the namespaces, and the public methods of HGGEP, with their names."""
    for namespace in NAMESPACES:
        module = importlib.import_module(f"sthggep.{namespace}")
        for name in module.__all__:
            if inspect.isfunction(member := getattr(module, name, None)):
                yield f"{namespace}.{name}", member
    for name, member in inspect.getmembers(sthggep.HGGEP, lambda m: inspect.isfunction(m) or inspect.ismethod(m)):
        if not name.startswith("_") and member.__module__.startswith("sthggep"):
            yield f"HGGEP.{name}", member


def parameters(function: Callable[..., object]) -> list[inspect.Parameter]:
    return [p for p in inspect.signature(function).parameters.values() if p.name not in {"self", "cls"}]


def report(faults: list[str]) -> None:
    """Fail with all faults at once, one a line."""
    if faults:
        pytest.fail("\n".join(["", *faults]), pytrace=False)


# ---------------------------------------------------------------- names


@pytest.mark.parametrize("name", sorted(PROMISED))
def test_promised_names_are_there(name: str):
    missing = PROMISED[name] - set(importlib.import_module(name).__all__)
    assert not missing


@pytest.mark.parametrize("name", public_modules())
def test_all_is_importable(name: str):
    module = importlib.import_module(name)
    assert module.__all__, f"{name} has no __all__"
    assert [item for item, times in Counter(module.__all__).items() if times > 1] == []
    assert [item for item in module.__all__ if not hasattr(module, item)] == []


def test_version_is_the_installed_one():
    from importlib.metadata import version

    assert sthggep.__version__ == version("sthggep")


def test_types_are_shipped():
    assert (SOURCE / "py.typed").is_file()


# ---------------------------------------------------------------- signatures


def test_few_positional_parameters():
    faults = []
    for name, function in public_functions():
        positional = [p.name for p in parameters(function) if p.kind is not p.KEYWORD_ONLY]
        if not name.startswith("nn.") and len(positional) > 3:
            faults.append(f"{name}: {len(positional)} positional parameters ({', '.join(positional)}), at most 3")
    report(faults)


def test_first_parameter_is_the_data():
    faults = []
    for name, function in public_functions():
        if name in {"pp.encoders", "pp.register_encoder"}:  # about encoders, not about data
            continue
        allowed = FIRST_PARAMETER.get(name.split(".")[0])
        found = parameters(function)
        first = found[0].name if found else "nothing"
        if allowed and first not in allowed:
            faults.append(f"{name}: first parameter is {first!r}, expected one of {sorted(allowed)}")
    report(faults)


def test_shared_options_are_keyword_only_with_one_default():
    faults = []
    for name, function in public_functions():
        for p in parameters(function):
            if name.startswith("nn.") or p.name not in SHARED_OPTIONS:
                continue
            if p.kind is not p.KEYWORD_ONLY:
                faults.append(f"{name}: {p.name!r} can be passed by position")
            default = SHARED_OPTIONS[p.name]
            if p.default != default and name != "datasets.toy":  # toy tissue has a resolution of its own
                faults.append(f"{name}: {p.name}={p.default!r}, elsewhere {default!r}")
    report(faults)


def test_everything_is_annotated():
    faults = []
    for name, function in public_functions():
        bare = [p.name for p in parameters(function) if p.annotation is p.empty]
        if inspect.signature(function).return_annotation is inspect.Signature.empty:
            bare.append("return")
        if bare:
            faults.append(f"{name}: no annotation for {', '.join(bare)}")
    report(faults)


# ---------------------------------------------------------------- docstrings


def section(doc: str, title: str) -> str | None:
    """Body of one numpydoc section."""
    match = re.search(rf"^{title}\n-+\n(.*?)(?=^\S[^\n]*\n-+\n|\Z)", doc, flags=re.MULTILINE | re.DOTALL)
    return match.group(1) if match else None


def documented(body: str) -> set[str]:
    """Parameter names in a Parameters section; several may share a line."""
    names = re.findall(r"^(\*{0,2}\w+(?:, \*{0,2}\w+)*)$", body, flags=re.MULTILINE)
    return {name.strip(" *") for line in names for name in line.split(",")}


def test_docstrings_are_complete():
    faults = []
    for name, function in public_functions():
        doc = inspect.getdoc(function)
        if not doc:
            faults.append(f"{name}: no docstring")
            continue
        body = section(doc, "Parameters") or ""
        faults += [
            f"{name}: {p.name!r} has no line of its own (without a type) under Parameters"
            for p in parameters(function)
            if p.name not in documented(body)
        ]
        returns = inspect.signature(function).return_annotation not in {None, "None"}
        if returns and section(doc, "Returns") is None and section(doc, "Yields") is None:
            faults.append(f"{name}: no Returns section")
    report(faults)


def test_docstrings_name_no_parameter_that_is_gone():
    faults = []
    for name, function in public_functions():
        gone = documented(section(inspect.getdoc(function) or "", "Parameters") or "")
        gone -= {p.name for p in parameters(function)}
        if gone:
            faults.append(f"{name}: documents {sorted(gone)}, which it does not take")
    report(faults)


def public_objects() -> Iterator[tuple[str, object]]:
    """Modules, functions, classes and their methods, whatever can carry a public docstring."""
    for module_name in public_modules():
        module = importlib.import_module(module_name)
        yield module_name, module
        for name in module.__all__:
            member = getattr(module, name, None)
            if inspect.isclass(member):
                for method, value in vars(member).items():
                    if not method.startswith("_"):
                        yield f"{module_name}.{name}.{method}", getattr(value, "__func__", value)
            if inspect.isclass(member) or inspect.isfunction(member):
                yield f"{module_name}.{name}", member


def prose(doc: str) -> str:
    """A docstring without its code (literals and doctest lines), where braces are meant."""
    lines = [line for line in doc.splitlines() if not line.lstrip().startswith((">>>", "..."))]
    return re.sub(r"``.*?``|`[^`]*`", "", "\n".join(lines), flags=re.DOTALL)


def test_docstrings_hold_no_placeholders():
    faults = []
    for name, member in public_objects():
        if not callable(member) and not inspect.ismodule(member):
            continue
        doc = inspect.getdoc(member)
        if not doc:
            faults.append(f"{name}: no docstring")
        elif left := re.findall(r"\{|%\(", prose(doc)):
            faults.append(f"{name}: {left[0]!r} is left in the docstring")
    report(faults)


# ---------------------------------------------------------------- imports


def imported(path: Path) -> Iterator[tuple[int, str]]:
    """Line and absolute dotted name of everything a file imports, inside functions too."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: relative import"
            yield from ((node.lineno, f"{node.module}.{alias.name}") for alias in node.names)


def source_files() -> list[tuple[str, Path]]:
    """Layer name and path of every file but the package's own `__init__`."""
    files = [path for path in sorted(SOURCE.rglob("*.py")) if path != SOURCE / "__init__.py"]
    return [(path.relative_to(SOURCE).with_suffix("").parts[0], path) for path in files]


def test_every_file_has_a_layer():
    assert sorted({layer for layer, _ in source_files()} - set(RANK)) == [], "add them to LAYERS"


def test_imports_go_one_way():
    faults = []
    for layer, path in source_files():
        for line, name in imported(path):
            package, *rest = name.split(".")
            if package != "sthggep" or layer not in RANK:
                continue
            target = rest[0] if rest else "sthggep"
            if RANK.get(target, len(LAYERS)) > RANK[layer]:
                faults.append(f"{path.relative_to(SOURCE)}:{line}: {layer} must not import {name}")
    report(faults)


@pytest.mark.parametrize(
    ("layer", "foreign"),
    [
        ("nn", {"anndata", "lightning", "pandas", "scanpy", "spatialdata", "squidpy", "sthggep"}),
        ("_training", {"anndata", "spatialdata"}),
        ("pl", {"lightning", "torch"}),
    ],
)
def test_layers_know_only_their_own_libraries(layer: str, foreign: set[str]):
    faults = []
    for own, path in source_files():
        for line, name in imported(path) if own == layer else ():
            if name.split(".")[0] in foreign and not name.startswith(f"sthggep.{layer}."):
                faults.append(f"{path.relative_to(SOURCE)}:{line}: imports {name}")
    report(faults)


@pytest.mark.parametrize("namespace", ["", ".datasets", ".io", ".pl", ".pp", ".tl", "._cli"])
def test_import_is_light(namespace: str):
    code = f"import json, sys, sthggep{namespace}; print(json.dumps([m for m in {HEAVY!r} if m in sys.modules]))"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert out.returncode == 0, out.stderr
    assert json.loads(out.stdout) == []


def test_dependencies_are_those_that_are_imported():
    """None declared without use, none used without declaration; exceptions stand in pyproject.toml with their reasons."""
    pytest.importorskip("deptry")
    root = Path(__file__).resolve().parents[1]
    out = subprocess.run(
        [sys.executable, "-m", "deptry", "src", "--no-ansi"], cwd=root, capture_output=True, text=True, check=False
    )
    assert out.returncode == 0, out.stdout + out.stderr


def test_the_package_runs_as_a_module():
    found = subprocess.run([sys.executable, "-m", "sthggep", "--version"], capture_output=True, text=True, check=True)
    assert found.stdout == f"python -m sthggep, version {version('sthggep')}\n"
