"""Odd tables of legacy Spatial Transcriptomics."""

from __future__ import annotations

import gzip
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import sthggep
from sthggep.io import read_st

SOURCE = str(Path(sthggep.__file__).parent)

Rng = np.random.Generator
Change = Callable[[pd.DataFrame, Rng], pd.DataFrame]

VALUES = [
    None,
    np.nan,
    np.inf,
    -np.inf,
    -3,
    0.5,
    1e300,
    2**63,
    10**30,
    "",
    " 7 ",
    "seven",
    "7",
    "1e5",
    "0x10",
    True,
    1j,
    b"7",
]
VALUES += [
    [1],
    (1, 2),
    {},
    pd.NA,
    pd.NaT,
    pd.Timestamp("2020-01-01"),
    pd.Timedelta("1D"),
    np.datetime64("NaT"),
    "\u0661",
    "\x00",
]
DTYPES = ["Int64", "Float64", "boolean", "string", "category", "object", "float16", "complex64", "datetime64[ns]"]
DTYPES += ["timedelta64[ns]", "uint8", "int8", "Sparse[float]", "Sparse[int]", "bool", "str"]
NAMES = [
    "",
    " ",
    "10x20",
    "10x20x30",
    "x",
    "X10x20",
    "-1x-2",
    "1e3x2",
    "9" * 400 + "x1",
    "99999999999x5",
    "\u0661x\u0662",
    "10 x 20",
]
NAMES += ["10.49x20.5", "10_20", "\ufeff10x20", "gene", None, np.nan, 5, 5.5, (1, 2), b"10x20", True, pd.NaT]
LABELS = [None, np.nan, "", 0, ("a", "b"), "X", "x", b"x", True, pd.NaT, "pixel_x", "\x00", "n" * 5000]


# --- tables drawn from a seed: a small section with one to three faults ----------------------------------------------


def pick(rng: Rng, things: list[Any]) -> Any:
    return things[int(rng.integers(len(things)))]


def one_value(table: pd.DataFrame, rng: Rng) -> pd.DataFrame:
    table = table.astype(object)
    table.iat[int(rng.integers(len(table))), int(rng.integers(table.shape[1]))] = pick(rng, VALUES)
    return table


def one_column(table: pd.DataFrame, rng: Rng) -> pd.DataFrame:
    place, value = int(rng.integers(table.shape[1])), pick(rng, VALUES)
    names = list(table.columns)
    column = pd.Series([value] * len(table), index=table.index, dtype=object)
    parts = [column if i == place else table.iloc[:, i] for i in range(len(names))]
    return pd.concat(parts, axis=1).set_axis(names, axis=1)


def one_type(table: pd.DataFrame, rng: Rng) -> pd.DataFrame:
    name = pick(rng, list(table.columns))
    return table.astype({name: pick(rng, DTYPES)})


def all_types(table: pd.DataFrame, rng: Rng) -> pd.DataFrame:
    return table.astype(pick(rng, DTYPES))


def one_row_name(table: pd.DataFrame, rng: Rng) -> pd.DataFrame:
    names = list(table.index)
    names[int(rng.integers(len(names)))] = pick(rng, NAMES)
    return table.set_axis(pd.Index(names, dtype=object, tupleize_cols=False), axis=0)


def one_column_name(table: pd.DataFrame, rng: Rng) -> pd.DataFrame:
    names = list(table.columns)
    names[int(rng.integers(len(names)))] = pick(rng, LABELS)
    return table.set_axis(pd.Index(names, dtype=object, tupleize_cols=False), axis=1)


SHAPES: list[Change] = [
    lambda t, _: t.iloc[:0],
    lambda t, _: t.iloc[:, :0],
    lambda _, __: pd.DataFrame(),
    lambda t, _: t.iloc[:1],
    lambda t, _: t.iloc[:, :1],
    lambda t, _: t.T,
    lambda t, _: pd.concat([t, t]),
    lambda t, _: pd.concat([t, t], axis=1),
    lambda t, _: t.set_axis(pd.MultiIndex.from_arrays([t.columns, t.columns]), axis=1),
    lambda t, _: t.set_axis(pd.MultiIndex.from_arrays([t.index, t.index]), axis=0),
    lambda t, _: t.reset_index(),
    lambda t, _: t.reset_index(drop=True),
    lambda t, rng: t.drop(columns=[pick(rng, list(t.columns))]),
    lambda t, _: t.set_axis(pd.date_range("2020", periods=len(t)), axis=0),
    lambda t, _: t.set_axis(pd.CategoricalIndex(map(str, t.index)), axis=0),
    lambda t, _: t * -1,
    lambda t, _: t * 1e12,
    lambda t, _: t / 3,
    lambda t, _: t * 0,
    lambda t, rng: t.sample(frac=1, random_state=int(rng.integers(99))),
]
CHANGES: list[Change] = [one_value, one_column, one_type, all_types, one_row_name, one_column_name]
CHANGES += [lambda t, rng: pick(rng, SHAPES)(t, rng)] * 2


def odd_frame(table: pd.DataFrame, rng: Rng) -> pd.DataFrame:
    """A table with one to three changes, of which those that pandas itself refuses are left out."""
    for _ in range(int(rng.integers(1, 4))):
        try:
            table = pick(rng, CHANGES)(table, rng)
        except (ValueError, TypeError, IndexError, KeyError, OverflowError, ArithmeticError, AttributeError):
            continue
    return table


BYTES: list[Callable[[bytes, Rng], bytes]] = [
    lambda _, __: b"",
    lambda _, __: b"\n\n\n",
    lambda b, _: b[: len(b) // 2],
    lambda b, _: b.split(b"\n")[0],
    lambda b, rng: rng.bytes(len(b)),
    lambda b, _: b"\xff\xfe" + b,
    lambda b, _: b.decode("utf-8").encode("utf-16"),
    lambda b, _: b.decode("utf-8").encode("utf-32"),
    lambda b, _: b"\xef\xbb\xbf" + b,
    lambda b, _: b.replace(b"\n", b"\r\n"),
    lambda b, _: b.replace(b"\n", b"\r"),
    lambda b, _: b.replace(b"\t", b";"),
    lambda b, _: b.replace(b"\t", b","),
    lambda b, _: b.replace(b"\t", b" "),
    lambda b, _: b.replace(b"\t", b"\t\t", 3),
    lambda b, _: b.replace(b"1", b'"1', 1),
    lambda b, _: b.replace(b"1", b"\0", 1),
    lambda b, _: b.replace(b"1", b"\xe9", 1),
    lambda b, _: b.replace(b"1", b"1," + b"0" * 400, 1),
    lambda b, _: b + b"9" * 100_000,
    lambda b, _: gzip.compress(b)[:-9],
    lambda b, _: gzip.compress(b)[:20] + b"\0" * 40,
    lambda b, _: gzip.compress(gzip.compress(b)),
    lambda b, _: b"PK\x03\x04" + b,
    lambda b, _: b"# comment\n" + b,
    lambda b, _: b.split(b"\n", 1)[-1],
]
ENDINGS = [".tsv", ".csv", ".tsv.gz", ".csv.gz", ".txt", "", ".zip", ".bz2", ".xz", ".zst", ".tar", ".TSV"]


def odd_file(table: pd.DataFrame, rng: Rng, path: Path, *, named_rows: bool) -> Path:
    """A table file with odd bytes, or an odd ending, or both."""
    content = table.to_csv(sep="\t", index=named_rows).encode()
    for _ in range(int(rng.integers(0, 3))):
        try:
            content = pick(rng, BYTES)(content, rng)
        except UnicodeDecodeError:
            continue
    path = path.with_name(path.name + pick(rng, ENDINGS))
    path.write_bytes(content)
    return path


OTHERS: dict[str, list[Any]] = {
    "pitch_um": [0, -1, np.nan, np.inf, "200", None, 1e-310, 10**400, [200], np.array([200.0]), True, 1j],
    "patient": [None, 3, "", "a/b", ["x"], np.nan, {}],
    "section": [None, 3, "", "a/b", ["x"], np.nan],
    "counts": [None, 5, "", "\x00", "no.tsv", "n" * 5000, b"x.tsv", [1, 2], {}, np.ones((3, 3)), Path()],
    "spots": [None, 5, "", "\x00", "no.tsv", "n" * 5000, b"x.tsv", [1, 2], {}, np.ones((3, 3)), Path()],
    "labels": [5, "", "\x00", "no.tsv", "n" * 5000, b"x.tsv", [1, 2], {}, np.ones((3, 3)), Path()],
}


def odd_call(rng: Rng, folder: Path) -> dict[str, Any]:
    """Arguments of `read_st` of which one to three are odd."""
    x, y = (axis.ravel() for axis in np.meshgrid([10, 11, 12], [20, 21, 22]))
    spots = pd.DataFrame({"x": x, "y": y, "new_x": x + 0.1, "new_y": y - 0.1, "pixel_x": x * 50.0, "pixel_y": y * 50.0})
    spots["selected"] = 1
    counts = pd.DataFrame({"X": x, "Y": y, "zero": 0}, index=[f"{a}x{b}" for a, b in zip(x, y, strict=True)])
    tables = {"counts": counts, "spots": spots, "labels": pd.DataFrame({"x": x, "y": y, "label": list("aabbccddd")})}
    call: dict[str, Any] = {"image": None, "counts": counts, "spots": spots}
    for name in rng.permutation(list(tables))[: int(rng.integers(1, 3))]:
        odd = odd_frame(tables[name], rng) if rng.random() < 0.8 else tables[name]
        call[name] = odd
        if rng.random() < 0.4:
            call[name] = odd_file(odd, rng, folder / str(name), named_rows=name == "counts")
    if rng.random() < 0.15:
        name = pick(rng, list(OTHERS))
        call[name] = pick(rng, OTHERS[name])
    return call


def raised_by_us(error: Exception) -> bool:
    """Whether a line of the package raised the error, and not a library that it calls."""
    last = traceback.extract_tb(error.__traceback__)[-1]
    return last.filename.startswith(SOURCE) and str(last.line).startswith("raise")


@pytest.mark.handles("`read_st` reads the table correctly, or raises its own error that names what it expected.")
@pytest.mark.parametrize("block", [pytest.param(i, id=f"random tables {40 * i} to {40 * i + 39}") for i in range(4)])
def test_drawn_tables(block: int, tmp_path: Path):
    faults, n_read = [], 0
    for seed in range(40 * block, 40 * block + 40):
        folder = tmp_path / str(seed)
        folder.mkdir()
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                adata = read_st(**odd_call(np.random.default_rng(seed), folder))
        except (ValueError, TypeError, FileNotFoundError) as error:
            faults += [] if raised_by_us(error) else [f"{seed}: {error!r}"]
            continue
        n_read += 1
        counts = adata.X.toarray()
        assert np.isfinite(counts).all(), seed
        assert ((counts >= 0) & (counts == np.rint(counts))).all(), seed
        assert np.isfinite(adata.obsm["spatial"]).all(), seed
        assert (adata.var_names.is_unique, adata.obs_names.is_unique) == (True, True), seed
    assert faults == []
    assert n_read > 0


# --- files as people save them ------------------------------------------------------------------------------------


def as_saved(change: Callable[[str], bytes], name: str) -> Any:
    return pytest.param(change, id=name)


@pytest.mark.handles("`read_st` reads the same values as from the plain table.")
@pytest.mark.parametrize(
    "save",
    [
        as_saved(lambda text: text.encode("utf-8-sig"), "a byte-order mark"),
        as_saved(lambda text: text.encode("utf-16"), "UTF-16"),
        as_saved(lambda text: text.replace("\t", ",").encode(), "commas in a .tsv"),
        as_saved(lambda text: text.replace("\t", ";").encode(), "semicolons"),
        as_saved(lambda text: text.replace("\n", "\r\n").encode(), "Windows line ends"),
        as_saved(lambda text: text.replace("\n", "\r").encode(), "line ends of old Macs"),
        as_saved(lambda text: gzip.compress(text.encode()), "gzip without .gz"),
        as_saved(lambda text: ("\n\n" + text).encode(), "empty lines first"),
        as_saved(lambda text: text.lstrip("\t").encode(), "no corner, as R writes it"),
    ],
)
def test_tables_as_people_save_them(section, save):
    path = section.folder / "S.tsv"
    path.write_bytes(save(section.counts.to_csv(sep="\t")))
    adata, plain = read_st(path, None, section.spots), read_st(section.counts, None, section.spots)
    np.testing.assert_array_equal(adata.X.toarray(), plain.X.toarray())
    assert list(adata.var_names) == ["X", "Y", "zero"]
    assert list(adata.obs_names) == list(plain.obs_names)


@pytest.mark.handles("`read_st` rejects the input and names the fault.")
@pytest.mark.parametrize(
    ("change", "words"),
    [
        pytest.param(
            lambda s: {"counts": s.counts.rename(columns={"Y": "X"})},
            "Gene names of the counts.*'X'",
            id="a gene twice",
        ),
        pytest.param(
            lambda s: {"spots": pd.concat([s.spots, s.spots[["x"]]], axis=1)},
            "Column names of the spots.*'x'",
            id="a column of the spots twice",
        ),
        pytest.param(lambda s: {"counts": pd.concat({"a": s.counts}, axis=1)}, "several levels", id="names in levels"),
        pytest.param(lambda s: {"counts": s.counts * 10**10}, "larger than counts can be", id="counts of billions"),
        pytest.param(
            lambda s: {"counts": s.counts.rename(index={"10x20": "1" * 30 + "x2"})},
            "1 of 9 row names",
            id="an array place of thirty digits",
        ),
        pytest.param(
            lambda s: {"spots": s.spots.assign(pixel_x=1e300)}, "'pixel_x' .* 9 values", id="a pixel beyond all images"
        ),
        pytest.param(
            lambda s: {"spots": s.spots.assign(x=pd.Timestamp("2020"))}, "'x' .* not a number", id="dates as places"
        ),
        pytest.param(lambda s: {"spots": s.spots.iloc[:0]}, "spots table is empty", id="no spots"),
        pytest.param(
            lambda s: {"labels": pd.DataFrame({"x": ["ten"], "y": [1], "label": ["a"]})},
            "'x' of the labels",
            id="a word as the place of a label",
        ),
        pytest.param(lambda _: {"pitch_um": "200"}, "`pitch_um` must be a number, found '200'", id="a pitch as text"),
        pytest.param(
            lambda _: {"counts": 5},
            "`counts` must be text or a path or DataFrame, found 5",
            id="a number instead of a table",
        ),
        pytest.param(
            lambda _: {"image": 5}, "`image` must be text or a path, found 5", id="a number instead of an image"
        ),
        pytest.param(lambda _: {"spots": "n" * 5000}, "no spots file", id="a path of 5000 characters"),
    ],
)
def test_refused_tables(section, change, words):
    call = {"counts": section.counts, "image": None, "spots": section.spots} | change(section)
    with pytest.raises((ValueError, TypeError, FileNotFoundError), match=words):
        read_st(**call)


@pytest.mark.handles("`read_st` rejects the table, because pandas would rename the second gene silently.")
@pytest.mark.parametrize(
    "ending",
    [pytest.param(".tsv", id="a gene twice in a file"), pytest.param(".csv", id="a gene twice in a file with commas")],
)
def test_repeated_columns_of_a_file(section, ending):
    path = section.folder / f"twice{ending}"
    section.counts.rename(columns={"Y": "X"}).to_csv(path, sep="," if ending == ".csv" else "\t")
    with pytest.raises(ValueError, match=r"Gene names of the counts must be unique.*'X'"):
        read_st(path, None, section.spots)
