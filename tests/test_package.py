"""Rules for the package as a whole: names, signatures, docstrings, imports."""

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

import numpy as np
import pytest

import sthggep

SOURCE = Path(sthggep.__file__).parent

NAMESPACES = ("datasets", "io", "nn", "pl", "pp", "tl")

# Public names on which code of users depends.
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

# Options with the same meaning in all calls: keyword-only, with this default.
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
    "tl": {"data", "predictions", "slides"},
    "pl": {"attribution", "data", "history", "model", "results", "scores", "slides"},
}


@pytest.mark.parametrize("namespace", NAMESPACES)
def test_a_namespace_shows_its_functions_alone(namespace: str):
    module = getattr(sthggep, namespace)
    shown = {name for name in dir(module) if not name.startswith("_")}
    assert shown == set(module.__all__)


# Imports follow the data: a room imports only from earlier rooms of this tuple.
ROOMS = (
    "root",
    "nn",
    "_disk",
    "_image",
    "_slides",
    "_table",
    "_encoders",
    "_inputs",
    "model",
    "_training",
    "io",
    "datasets",
    "pp",
    "tl",
    "pl",
    "_cli",
)
PUBLIC_ROOMS = {"io", "datasets", "pp", "tl", "pl", "_cli"}
# Imports of another public room's private file, each with its reason: five at most.
PRIVATE_IMPORTS = {
    ("datasets._cscc", "io._st_tables"): "the data set's own file formats are tables of legacy ST, too",
    ("datasets._her2st", "io._st_tables"): "likewise",
    ("_cli._files", "tl._slide_files"): "the shell reads slides from files as cohorts do",
}
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


# ---------------------------------------------------------------- public names


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
def test_public_names_exist(name: str):
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
        if name in {"pp.encoders", "pp.register_encoder"}:  # their subject is encoders, not data
            continue
        names = FIRST_PARAMETER.get(name.split(".")[0])
        params = parameters(function)
        first = params[0].name if params else "nothing"
        if names and first not in names:
            faults.append(f"{name}: first parameter is {first!r}, expected one of {sorted(names)}")
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
            if p.default != default and name != "datasets.toy":  # toy tissue has its own resolution
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


def functions_of(path: Path) -> Iterator[tuple[ast.FunctionDef, str]]:
    """Functions of a file, with the class that they stand in."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in tree.body:
        if isinstance(node, ast.ClassDef):
            yield from ((child, node.name) for child in node.body if isinstance(child, ast.FunctionDef))
        elif isinstance(node, ast.FunctionDef):
            yield node, ""


def test_only_public_calls_networks_and_commands_have_many_parameters():
    """Other functions take records of parameters that belong together."""
    faults = []
    for module, path in MODULES.items():
        for node, owner in functions_of(path):
            names = {arg.arg for arg in (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs)}
            public = room_of(module) in {"io", "datasets", "pp", "tl", "pl"} and not node.name.startswith("_")
            exempt = public or module == "_encoders._registry" or room_of(module) in {"nn", "_cli"}
            if len(names - {"self", "cls"}) > 10 and not exempt:
                faults.append(f"{module}:{node.lineno}: {owner}.{node.name} has {len(names)} parameters")
    report(faults)


def test_files_are_short():
    lengths = {module: path.read_text(encoding="utf-8").count("\n") for module, path in MODULES.items()}
    assert {module: length for module, length in lengths.items() if length > 300} == {}


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


def test_docstrings_name_only_existing_parameters():
    faults = []
    for name, function in public_functions():
        absent = documented(section(inspect.getdoc(function) or "", "Parameters") or "")
        absent -= {p.name for p in parameters(function)}
        if absent:
            faults.append(f"{name}: documents {sorted(absent)}, which it does not take")
    report(faults)


def public_objects() -> Iterator[tuple[str, object]]:
    """All objects that can have a public docstring: modules, functions, classes and their methods."""
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
    """A docstring without its code (literals and doctest lines), in which braces are allowed."""
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
        elif placeholders := re.findall(r"\{|%\(", prose(doc)):
            faults.append(f"{name}: {placeholders[0]!r} is left in the docstring")
    report(faults)


# ---------------------------------------------------------------- imports


def module_files() -> dict[str, Path]:
    """Return every file of the package by its dotted name, ``""`` for the package itself."""
    files = {}
    for path in sorted(SOURCE.rglob("*.py")):
        parts = path.relative_to(SOURCE).with_suffix("").parts
        files[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return files


MODULES = module_files()


def room_of(module: str) -> str:
    """The folder that a file stands in; ``"root"`` for files at the root of the package."""
    first = module.split(".")[0]
    return first if (SOURCE / first).is_dir() and first else "root"


def imports_of(path: Path) -> Iterator[tuple[int, str]]:
    """Line and absolute dotted name of everything a file imports, inside functions and for types, too."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: relative import"
            yield from ((node.lineno, f"{node.module}.{alias.name}") for alias in node.names)


def own_imports() -> Iterator[tuple[str, int, str]]:
    """Importing file, line and imported file of the package, all by dotted names."""
    for module, path in MODULES.items():
        for line, name in imports_of(path):
            if name.split(".")[0] != "sthggep":
                continue
            target = name.removeprefix("sthggep").lstrip(".")
            while target not in MODULES:  # a class or function: the file that holds it
                target = target.rpartition(".")[0]
            yield module, line, target


def test_every_folder_is_a_room():
    assert sorted({room_of(module) for module in MODULES} - set(ROOMS)) == [], "add them to ROOMS"


def test_tests_lie_in_folders_named_after_rooms():
    folders = {path.name for path in Path(__file__).parent.iterdir() if any(path.glob("test_*.py"))}
    # tests of `platforms` use several rooms: tables and folders in the layouts of the instruments
    assert sorted(folders - {room.lstrip("_") for room in ROOMS}) == ["platforms"]


def test_the_root_holds_few_files():
    assert len([module for module in MODULES if module.startswith("_") and room_of(module) == "root"]) <= 12


def test_rooms_import_from_earlier_rooms_only():
    faults = []
    for module, line, target in own_imports():
        if module in {"", "__main__"}:
            continue
        if target == "" or ROOMS.index(room_of(target)) > ROOMS.index(room_of(module)):
            faults.append(f"{module}:{line}: must not import {target or 'sthggep itself'}")
    report(faults)


def test_nobody_imports_private_files_of_public_rooms():
    faults = []
    for module, line, target in own_imports():
        foreign = room_of(target) in PUBLIC_ROOMS and room_of(target) != room_of(module) and "." in target
        if foreign and (module, target) not in PRIVATE_IMPORTS:
            faults.append(f"{module}:{line}: imports the private file {target}")
    report(faults)


def test_exceptions_are_few_and_needed():
    assert len(PRIVATE_IMPORTS) <= 5
    assert {(module, target) for module, _, target in own_imports()} >= set(PRIVATE_IMPORTS)


def circles(graph: dict[str, set[str]]) -> list[list[str]]:
    """Groups of two or more files that import each other, directly or by way of others."""
    from scipy.sparse import csr_matrix
    from scipy.sparse.csgraph import connected_components

    names = sorted(graph)
    matrix = np.array([[other in graph[name] for other in names] for name in names])
    n, labels = connected_components(csr_matrix(matrix), connection="strong")
    groups = [[name for name, label in zip(names, labels, strict=True) if label == k] for k in range(n)]
    return [group for group in groups if len(group) > 1]


def test_circles_are_found():
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": {"a"}}) == [["a", "b", "c"]]
    assert circles({"a": {"b"}, "b": set()}) == []


def test_no_file_imports_itself_by_way_of_others():
    graph: dict[str, set[str]] = {module: set() for module in MODULES}
    for module, _, target in own_imports():
        if module not in {"", target}:
            graph[module].add(target)
    assert circles(graph) == []


@pytest.mark.parametrize(
    ("room", "foreign"),
    [
        ("nn", {"anndata", "lightning", "pandas", "scanpy", "spatialdata", "squidpy", "sthggep"}),
        ("_training", {"anndata", "spatialdata"}),
        ("pl", {"lightning", "torch"}),
    ],
)
def test_rooms_know_only_their_own_libraries(room: str, foreign: set[str]):
    faults = []
    for module, path in MODULES.items():
        for line, name in imports_of(path) if room_of(module) == room else ():
            if name.split(".")[0] in foreign and not name.startswith(f"sthggep.{room}."):
                faults.append(f"{module}:{line}: imports {name}")
    report(faults)


def test_only_slides_know_spatialdata():
    """Other rooms import the library for types only; readers and data sets return its objects."""
    rooms = {"_slides", "io", "datasets"}
    faults = []
    for module, path in MODULES.items():
        for line, name in imports_of(path) if room_of(module) not in rooms else ():
            if name.startswith("spatialdata.") and name != "spatialdata.SpatialData":
                faults.append(f"{module}:{line}: imports {name}")
    report(faults)


@pytest.mark.parametrize("namespace", ["", ".datasets", ".io", ".pl", ".pp", ".tl", "._cli"])
def test_import_is_light(namespace: str):
    code = f"import json, sys, sthggep{namespace}; print(json.dumps([m for m in {HEAVY!r} if m in sys.modules]))"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert out.returncode == 0, out.stderr
    assert json.loads(out.stdout) == []


def test_dependencies_are_those_that_are_imported():
    """All declared dependencies are used, and all used ones declared; pyproject.toml holds exceptions with reasons."""
    pytest.importorskip("deptry")
    root = Path(__file__).resolve().parents[1]
    out = subprocess.run(
        [sys.executable, "-m", "deptry", "src", "--no-ansi"], cwd=root, capture_output=True, text=True, check=False
    )
    assert out.returncode == 0, out.stdout + out.stderr


def test_the_package_runs_as_a_module():
    result = subprocess.run([sys.executable, "-m", "sthggep", "--version"], capture_output=True, text=True, check=True)
    assert result.stdout == f"python -m sthggep, version {version('sthggep')}\n"
