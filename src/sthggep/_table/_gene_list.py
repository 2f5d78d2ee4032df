"""Lists of genes in text files, as people write them and as spreadsheets save them."""

from __future__ import annotations

import csv
import re
from collections.abc import Sequence
from io import StringIO
from pathlib import Path

from sthggep._checks import listing

BOMS = {
    b"\xef\xbb\xbf": "utf-8-sig",
    b"\xff\xfe\0\0": "utf-32",
    b"\0\0\xfe\xff": "utf-32",
    b"\xff\xfe": "utf-16",
    b"\xfe\xff": "utf-16",
}
BINARY = {
    b"PK\x03\x04": "a spreadsheet or an archive",
    b"\xd0\xcf\x11\xe0": "a spreadsheet",
    b"\x1f\x8b": "compressed",
    b"%PDF": "a PDF",
}
SEPARATORS = "\t;,"
# Spaces that `strip` does not know, the mark of byte order within a text, and the quotes of word processors
AROUND = " \t\r\n\xa0\u200b\u2060\ufeff\"'\u201c\u201d\u201e\u2018\u2019\u00ab\u00bb"
# Words of which the head of a column of genes consists; none is the symbol of a gene
HEAD_WORDS = frozenset(
    [
        "gene",
        "genes",
        "symbol",
        "symbols",
        "name",
        "names",
        "id",
        "identifier",
        "ensembl",
        "hgnc",
        "feature",
        "features",
        "official",
        "approved",
        "marker",
        "markers",
        "var",
        "index",
        "geneid",
        "genename",
        "genesymbol",
        "ensemblid",
        "list",
        "of",
        "panel",
        "selected",
    ]
)
BEST_HEADS = ("symbol", "name", "gene", "id")  # of several columns of names, this order
DATE = re.compile(r"\d{1,2}[-.](sep|sept|mar|dec|märz|dez)[a-z]*\.?|(sep|mar|dec)[a-z]*[-.]\d{1,2}", re.IGNORECASE)


def read_gene_file(path: Path) -> list[str]:
    """Read the genes of a text file: one a line, or the column of genes of a table.

    The file may be UTF-8 or UTF-16, with or without mark of byte order, quotes, a head, comments (``#``) and empty
    lines; separators are tabs, semicolons or commas.

    Raises
    ------
    FileNotFoundError
        There is no such file.
    ValueError
        The file is no text, or it has several columns of which none is headed ``gene``.
    """
    if not path.is_file():
        msg = f"There is no gene list {path}: a text file with one gene a line was expected. Check the path."
        raise FileNotFoundError(msg)
    rows = _rows(decode_text(path), path)
    genes = _genes(rows, path)
    _refuse_dates(genes, path)
    return genes


def split_names(text: str) -> list[str]:
    """Split names that stand in one line, such as an argument of the shell."""
    return [name for name in (_bare(part) for part in re.split(f"[{SEPARATORS}]", text)) if name]


def decode_text(path: Path, what: str = "gene") -> str:
    """Decode a text file by its mark of byte order, else by its zeros, else as UTF-8 or the code page of Windows.

    Raises
    ------
    ValueError
        The file is no text with one ``what`` a line.
    """
    content = path.read_bytes()
    for start, kind in BINARY.items():
        if content.startswith(start):
            msg = f"{path} is {kind}, not a text with one {what} a line. Export the list as CSV or text."
            raise ValueError(msg)
    encodings = [encoding for start, encoding in BOMS.items() if content.startswith(start)][:1]
    if not encodings and b"\0" in content:
        encodings = ["utf-16-le" if content[1:2] == b"\0" else "utf-16-be"]
    for encoding in encodings or ["utf-8", "cp1252", "latin-1"]:
        try:
            text = content.decode(encoding)
        except UnicodeDecodeError:
            continue
        if "\0" not in text:
            return text
    msg = f"{path} is no text with one {what} a line: it is not in {listing(encodings or ['utf-8'])}. Save it as UTF-8."
    raise ValueError(msg)


def _rows(text: str, path: Path) -> list[list[str]]:
    """Split a text into rows of cells without comments and empty rows."""
    lines = [
        line
        for line in text.splitlines()
        if line.strip(AROUND + SEPARATORS) and not line.lstrip(AROUND).startswith("#")
    ]
    counts = {mark: sum(mark in line.strip(AROUND) for line in lines) for mark in SEPARATORS}
    separator = max(counts, key=lambda mark: counts[mark]) if any(counts.values()) else ","
    try:
        rows = [
            [_bare(cell) for cell in cells] for cells in csv.reader(StringIO("\n".join(lines)), delimiter=separator)
        ]
    except csv.Error as error:
        msg = f"{path} is no table of genes: {error}. Save it as text with one gene a line."
        raise ValueError(msg) from error
    return [row for row in rows if any(row)]


def _bare(cell: str) -> str:
    return cell.strip(AROUND)


def _genes(rows: Sequence[Sequence[str]], path: Path) -> list[str]:
    """Take the genes out of rows: all cells of a single row, else the column of genes."""
    if len(rows) < 2:
        return [cell for row in rows for cell in row if cell and not _is_head(cell)]
    headed = [i for i, cell in enumerate(rows[0]) if _is_head(cell)]
    body = rows[1:] if headed else rows
    columns = [i for i in _columns_of_text(body) if not headed or i in headed]
    if headed and len(columns) > 1:
        columns = sorted(columns, key=lambda i: _rank(rows[0][i]))[:1]
    if len(columns) != 1:
        msg = (
            f"{path} must hold one gene a line, found {len(columns)} columns of text, such as {listing(rows[-1], 4)}. Leave "
            "the column of genes alone, or head it 'gene'."
        )
        raise ValueError(msg)
    genes = [row[columns[0]] for row in body if len(row) > columns[0] and row[columns[0]]]
    # pandas heads a column without a name by its number
    genes = genes[1:] if _is_number(genes[0]) and not any(map(_is_number, genes[1:])) else genes
    if broken := [gene for gene in genes if "\n" in gene]:
        msg = f"{path} has a quote that does not close, at {broken[0][:20]!r}. Save it as text with one gene a line."
        raise ValueError(msg)
    return genes


def _is_head(cell: str) -> bool:
    """Whether a cell is the head of a column of genes, and no gene; R heads a column without a name by ``x``."""
    words = re.findall(r"[A-Z]?[a-z]+|[A-Z]+", cell)
    is_text = bool(re.fullmatch(r"[A-Za-z .:_-]*[A-Za-z][A-Za-z .:_-]*", cell))
    return cell == "x" or (is_text and {word.casefold() for word in words} <= HEAD_WORDS)


def _rank(head: str) -> int:
    """Rank a column of names by its head; the least is the best."""
    return next((rank for rank, word in enumerate(BEST_HEADS) if word in head.casefold()), len(BEST_HEADS))


def _columns_of_text(rows: Sequence[Sequence[str]]) -> list[int]:
    """Return the columns with cells that are no numbers; of a single column it does not matter."""
    width = max((len(row) for row in rows), default=0)
    if width == 1:
        return [0]
    cells = [[row[i] for row in rows if len(row) > i and row[i]] for i in range(width)]
    return [i for i, column in enumerate(cells) if not all(_is_number(cell) for cell in column)]


def _is_number(cell: str) -> bool:
    try:
        float(cell.replace(",", "."))
    except ValueError:
        return False
    return True


def _refuse_dates(genes: Sequence[str], path: Path) -> None:
    """Refuse genes that a spreadsheet turned into dates: SEPT2, MARCH1, DEC1."""
    dates = [gene for gene in genes if DATE.fullmatch(gene)]
    if dates:
        msg = (
            f"{path} holds {listing(dates, 4)}: a spreadsheet has turned names of genes (SEPTIN2, MARCHF1, DELEC1) into "
            "dates. Write the names anew, into cells of the type text."
        )
        raise ValueError(msg)
