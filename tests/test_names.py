"""Names of any characters, as names of files and as keys."""

from __future__ import annotations

from itertools import combinations
from pathlib import Path

import pytest

from sthggep._names import MOST_BYTES, base_name, check_key, file_name, is_file_name, same_on_some_disk

ODD = {
    "a slash": "P1/2",
    "a backslash": "P1\\2",
    "the folder itself": ".",
    "the folder above": "..",
    "a way out of the folder": "../../etc/passwd",
    "nothing": "",
    "blanks alone": "   ",
    "a blank at the end": "slide ",
    "a dot at the end": "slide.",
    "a leading dot": ".slide",
    "a device of Windows": "CON",
    "a device with an ending": "nul.txt",
    "300 characters": "x" * 300,
    "100 characters of three bytes": "\u5207" * 100,
    "a colon": "C:slide",
    "a line break": "a\nb",
    "the character NUL": "a\0b",
    "half of a character": "a\ud800",
    "bytes that are no UTF-8": "a\udcff",
}
PLAIN = ("slide", "P1 (2)", "B4.rep-1", "Tumör", "切片 1", "a_b", "2024-01-01", "console")
odd_names = pytest.mark.parametrize("name", [pytest.param(name, id=words) for words, name in ODD.items()])


@odd_names
@pytest.mark.handles("sthggep names the file by a legal name that ends in a hash of the original.")
def test_odd_names_become_names_of_files(name: str, tmp_path: Path):
    safe = file_name(name)
    assert is_file_name(safe)
    assert file_name(safe) == safe
    file = tmp_path / f"{safe}.h5ad"
    file.write_text("whole")
    assert [path.read_text() for path in tmp_path.iterdir()] == ["whole"]


@pytest.mark.parametrize("name", PLAIN)
def test_plain_names_stay(name: str):
    assert file_name(name) == name


def test_no_two_names_become_one():
    names = [*ODD.values(), *PLAIN, "P1/2 ", "P1-2", "P1:2", "P1\\2/", "x" * 301, "con", "CON "]
    assert len({same_on_some_disk(file_name(name)) for name in names if name != "con"}) == len(names) - 1


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        pytest.param("Slide", "slide", True, id="upper and lower case"),
        pytest.param("Tum\u00f6r", "Tumo\u0308r", True, id="two forms of an accent"),
        pytest.param("STRASSE", "straße", True, id="sharp s"),
        pytest.param("a", "b", False, id="two names"),
    ],
)
def test_names_that_some_disks_confuse(one: str, other: str, same: bool):
    assert (same_on_some_disk(one) == same_on_some_disk(other)) == same


@odd_names
@pytest.mark.handles("sthggep rejects the name as a key of `obsm` before work starts and proposes another.")
def test_odd_keys_are_refused(name: str):
    with pytest.raises(ValueError, match=r"`key_added` names a key that files must be able to hold.*such as '[\w-]+'"):
        check_key(name, "`key_added`")


@pytest.mark.parametrize("key", [None, 3, b"hggep", ("a",)])
def test_keys_are_text(key: object):
    with pytest.raises(TypeError, match="`key_added` must be text"):
        check_key(key, "`key_added`")


@pytest.mark.parametrize("key", ["hggep", "X_shufflenet_he_160", "hggep v2", "x" * MOST_BYTES, "Tumör"])
def test_other_keys_are_not(key: str):
    check_key(key, "`key_added`")


@pytest.mark.parametrize(
    ("file", "name"),
    [("a.h5ad", "a"), ("...h5ad", ".."), ("..h5ad", "."), ("a.b.zarr", "a.b"), ("A.H5AD", "A"), ("a.txt", "a")],
)
def test_names_without_their_ending(file: str, name: str):
    assert base_name(Path(file), (".h5ad", ".zarr")) == name


def test_the_list_of_names_holds_distinct_ones():
    assert all(one != other for one, other in combinations(ODD.values(), 2))
