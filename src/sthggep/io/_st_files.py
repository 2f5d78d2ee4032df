"""Table files of legacy Spatial Transcriptomics, read whatever their separator, encoding and compression."""

from __future__ import annotations

import csv
import gzip
import os
import zlib
from collections.abc import Iterable
from io import BytesIO
from lzma import LZMAError
from pathlib import Path
from tarfile import TarError
from zipfile import BadZipFile

import pandas as pd

from sthggep._checks import unique

_GZIP_START = b"\x1f\x8b"
_UTF16_STARTS = (b"\xff\xfe", b"\xfe\xff")
_PACKED = (".zip", ".bz2", ".xz", ".zst", ".tar")  # pandas unpacks these by their endings
_FAULTS = (ValueError, TypeError, KeyError, IndexError, OverflowError, OSError, EOFError, ImportError, csv.Error)
_FAULTS_OF_PACKING = (zlib.error, LZMAError, BadZipFile, TarError)


def read_table(source: object, what: str, *, named_rows: bool = False) -> pd.DataFrame:
    """Read a table file (separated by tabs, commas or semicolons, plain or compressed), or return the DataFrame itself.

    With ``named_rows`` the first column of a file holds the names of the rows.
    """
    if isinstance(source, pd.DataFrame):
        return _checked(source, what)
    if not isinstance(source, str | os.PathLike):
        msg = f"The {what} must be a table file or a DataFrame, found {type(source).__name__}."
        raise TypeError(msg)
    path = Path(source)
    if not os.path.isfile(path):
        msg = f"There is no {what} file {path}. Check the path."
        raise FileNotFoundError(msg)
    try:
        names, table = _parsed(path, named_rows=named_rows)
    except (*_FAULTS, *_FAULTS_OF_PACKING) as error:
        msg = f"The {what} file {path} cannot be read ({error}). Fetch it again."
        raise ValueError(msg) from error
    # pandas renames repeated columns of a file in silence
    _refuse_repeated(names, what)
    return _checked(table, what)


def _parsed(path: Path, *, named_rows: bool) -> tuple[list[str], pd.DataFrame]:
    """Parse a file; return the names in its first line, and its table."""
    index_col = 0 if named_rows else None
    if path.suffix.lower() in _PACKED:
        separator = "," if ".csv" in path.suffixes[-2:] else "\t"
        return [], pd.read_csv(path, sep=separator, engine="c", index_col=index_col)
    content = path.read_bytes()
    if content.startswith(_GZIP_START):
        content = gzip.decompress(content)
    encoding = "utf-16" if content.startswith(_UTF16_STARTS) else "utf-8-sig"
    head = content[: 1 << 20].decode(encoding, errors="ignore").lstrip("\r\n").splitlines()[:1] or [""]
    separator = _separator(head[0], path)
    names = [name for name in next(csv.reader(head, delimiter=separator), []) if name]
    table = pd.read_csv(BytesIO(content), sep=separator, encoding=encoding, engine="c", index_col=index_col)
    return names, table


def _separator(line: str, path: Path) -> str:
    """Return the separator that the first line has most often; without any, that of the file's ending."""
    usual = "," if ".csv" in path.suffixes[-2:] else "\t"
    return max([usual, "\t", ";", ","], key=line.count)


def _checked(table: pd.DataFrame, what: str) -> pd.DataFrame:
    """Refuse names in several levels and repeated columns."""
    if table.columns.nlevels > 1 or table.index.nlevels > 1:
        msg = f"The {what} must have one name a row and a column, found names in several levels. Flatten them first."
        raise ValueError(msg)
    _refuse_repeated(table.columns, what)
    return table


def _refuse_repeated(names: Iterable[object], what: str) -> None:
    of = "Gene names of the counts" if what == "counts" else f"Column names of the {what} table"
    unique(names, of, "Sum, rename or drop the repeated columns.")
