"""Lists of genes out of spreadsheets and editors."""

from __future__ import annotations

from pathlib import Path

import pytest

from sthggep._cli._files import read_gene_list
from sthggep._table._gene_list import read_gene_file

GENES = ["ERBB2", "HLA-DRA", "MT-CO1", "IDS", "C1orf56", "ENSG00000141736.14", "NAME1", "X"]
LINES = "\n".join(GENES)


def saved(content: str | bytes, name: str) -> object:
    return pytest.param(content.encode() if isinstance(content, str) else content, id=name)


def table(*columns: list[str], head: list[str] | None = None, mark: str = ";") -> str:
    rows = [*([head] if head else []), *zip(*columns, strict=True)]
    return "\r\n".join(mark.join(row) for row in rows)


NUMBERS = [str(i) for i in range(len(GENES))]
SCORES = [f"{i},5" for i in range(len(GENES))]
WORDS = [f"protein {i}" for i in range(len(GENES))]


@pytest.mark.handles("sthggep reads the genes in their order.")
@pytest.mark.parametrize(
    "content",
    [
        saved(LINES, "one gene a line"),
        saved(LINES + "\n\n\n", "empty lines at the end"),
        saved(LINES.replace("\n", "\n\n"), "empty lines between"),
        saved(LINES.replace("\n", "\r\n"), "Windows line ends"),
        saved(LINES.replace("\n", "\r"), "line ends of old Macs"),
        saved(LINES.replace("\n", "  \n\t"), "spaces around the names"),
        saved(LINES.replace("\n", "\xa0\n"), "non-breaking spaces"),
        saved(LINES.encode("utf-8-sig"), "a byte-order mark"),
        saved(LINES.encode("utf-16"), "UTF-16"),
        saved(LINES.encode("utf-16-le"), "UTF-16 without a byte-order mark"),
        saved(LINES.encode("utf-16-be"), "UTF-16 of the other byte order"),
        saved(LINES.encode("utf-32"), "UTF-32"),
        saved(("# gène\r\n" + LINES).encode("cp1252"), "the code page of Windows"),
        saved("gene\n" + LINES, "a header: gene"),
        saved("Gene Symbol\n" + LINES, "a header: Gene Symbol"),
        saved("GeneID\n" + LINES, "a header: GeneID"),
        saved('\ufeff"gene_name"\n' + LINES, "a header in quotes after a byte-order mark"),
        saved("# my panel\n" + LINES, "a comment"),
        saved("\n".join(f'"{gene}"' for gene in GENES), "double quotes"),
        saved("\n".join(f"'{gene}'" for gene in GENES), "single quotes"),
        saved("\n".join(f"\u201c{gene}\u201d" for gene in GENES), "quotes of word processors"),
        saved(";".join(GENES), "semicolons in one line"),
        saved("\t".join(GENES), "tabs in one line"),
        saved(", ".join(GENES) + ",\n", "commas in one line"),
        saved(LINES.replace("\n", ";\n") + ";", "a semicolon behind each gene"),
        saved(LINES.replace("\n", ";;\n"), "empty columns"),
        saved(table(GENES, SCORES), "a column of numbers beside"),
        saved(table(NUMBERS, GENES, mark="\t"), "a column of numbers before"),
        saved(table(NUMBERS, GENES, head=['""', '"x"'], mark=","), "a list that R wrote"),
        saved(table(NUMBERS, GENES, head=["", "0"], mark=","), "a list that pandas wrote"),
        saved(table(GENES, SCORES, head=["gene", "score"]), "a table with a header"),
        saved(table(WORDS, GENES, head=["description", "symbol"]), "a table with descriptions"),
        saved(table(NUMBERS, GENES, WORDS, head=["gene_id", "gene_symbol", "note"]), "a table with ids and symbols"),
        saved(table([f'"{w}; {w}"' for w in WORDS], GENES, head=["text", "gene"]), "separators within quotes"),
    ],
)
def test_lists_that_are_read(tmp_path: Path, content: bytes):
    path = tmp_path / "panel.csv"
    path.write_bytes(content)
    assert read_gene_list([str(path)]) == GENES


@pytest.mark.handles("sthggep rejects the file and names the fault.")
@pytest.mark.parametrize(
    ("content", "words"),
    [
        pytest.param(b"", "found no gene in", id="an empty file"),
        pytest.param(b"gene\n", "found no gene in", id="a header alone"),
        pytest.param(b"\xff\xfe", "found no gene in", id="a byte-order mark alone"),
        pytest.param(
            b"A;one\nB;two\n",
            "found 2 columns of text, such as 'B', 'two'",
            id="two columns of words without a header",
        ),
        pytest.param(b"PK\x03\x04" + b"\0" * 50, "is a spreadsheet or an archive", id="an .xlsx"),
        pytest.param(b"\xd0\xcf\x11\xe0" + b"\0" * 50, "is a spreadsheet", id="an .xls"),
        pytest.param(b"\x1f\x8b" + b"\0" * 50, "is compressed", id="a gzip"),
        pytest.param(b"\x89PNG\r\n\x1a\n\0\0\0\0\xd8\xd8", "is no text", id="a picture"),
        pytest.param(
            b"GNAS\n2-Sep\nMar-01\n", "'2-Sep', 'Mar-01'.*into dates", id="genes that a spreadsheet made dates of"
        ),
        pytest.param(b'GNAS\n"FASN\nSCD\n', "quote that does not close", id="a quote that does not close"),
        pytest.param(
            b"x," + b"y" * 200_000 + b"\nA,B\n",
            "is no table of genes|columns of text",
            id="a cell of 200,000 characters",
        ),
    ],
)
def test_lists_that_are_refused(tmp_path: Path, content: bytes, words: str):
    path = tmp_path / "panel.txt"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=words):
        read_gene_list([str(path)])


@pytest.mark.parametrize("name", ["absent.txt", "absent.CSV", "folder/absent", "."])
def test_no_such_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"There is no gene list .*one gene a line"):
        read_gene_file(Path(name))


@pytest.mark.parametrize(
    ("text", "genes"),
    [
        ("FASN,GNAS", ["FASN", "GNAS"]),
        ("FASN; GNAS;", ["FASN", "GNAS"]),
        (" \"FASN\" , 'GNAS' ", ["FASN", "GNAS"]),
        (",".join(f"G{i}" for i in range(2000)), [f"G{i}" for i in range(2000)]),  # longer than a path may be
    ],
)
def test_names_in_the_shell(text: str, genes: list[str]):
    assert read_gene_list([text]) == genes
