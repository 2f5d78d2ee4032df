"""Names of any characters as names of files, and keys that every disk can hold."""

from __future__ import annotations

import re
from collections.abc import Iterable
from hashlib import sha256
from pathlib import Path
from unicodedata import normalize

# What Windows forbids beside the slash: a shared disk may be read there
FORBIDDEN = re.compile(r'[\x00-\x1f\x7f<>:"/\\|?*]')
DEVICES = re.compile(r"(con|prn|aux|nul|conin\$|conout\$|(com|lpt)[0-9¹²³])(\..*)?", re.IGNORECASE)
MOST_BYTES = 150  # of 255: endings follow, such as "_clusters_observed"
EDGES = " .\t\u00a0\u2007\u202f\u3000"


def is_storable(name: str) -> bool:
    """Whether files can hold this text: neither NUL is in it, nor half of a character (of a name that is no UTF-8)."""
    return "\0" not in name and name.encode(errors="replace").decode() == name


def is_file_name(name: str) -> bool:
    """Whether every disk can hold a file or a folder of this name."""
    if not is_storable(name):
        return False
    length = len(name.encode())
    legal = not FORBIDDEN.search(name) and not DEVICES.fullmatch(name)
    return legal and 0 < length <= MOST_BYTES and name == name.strip(EDGES)


def file_name(name: str) -> str:
    """Return a name for a file that is called after something: the name itself if any disk can hold it.

    Other names lose what is forbidden, and end in a hash of the whole name, so that two names never become one.
    """
    if is_file_name(name):
        return name
    code = sha256(name.encode("utf-8", "surrogatepass")).hexdigest()[:8]
    readable = FORBIDDEN.sub("-", name.encode("utf-8", "ignore").decode()).strip(EDGES + "-")
    if DEVICES.fullmatch(readable):  # with any ending
        readable = readable.replace(".", "-")
    short = readable.encode()[: MOST_BYTES - 50].decode("utf-8", "ignore").strip(EDGES)
    return f"{short or 'name'}-{code}"


def base_name(path: Path, endings: Iterable[str]) -> str:
    """Return the name of a file without its ending; ``Path.stem`` makes ``..`` of ``...h5ad``, and differs between Pythons."""
    for ending in endings:
        if path.name.lower().endswith(ending) and len(path.name) > len(ending):
            return path.name[: -len(ending)]
    return path.stem


def same_on_some_disk(name: str) -> str:
    """Return what names have in common that are one file on a disk that ignores case, or the form of accents."""
    return normalize("NFC", normalize("NFC", name).casefold())


def check_key(key: object, what: str) -> None:
    """Refuse a key of ``obsm`` and ``uns`` that a file cannot hold: on disk a key becomes a group or a folder.

    Raises
    ------
    TypeError
        The key is not text.
    ValueError
        Some disk or file format cannot hold it.
    """
    if not isinstance(key, str):
        msg = f"{what} must be text, found {key!r} ({type(key).__name__})."
        raise TypeError(msg)
    if not is_file_name(key) or key.startswith("__"):
        better = re.sub(r"-[0-9a-f]{8}$", "", file_name(key).strip("_"))
        better = better if better != "name" and is_file_name(better) and len(key) <= MOST_BYTES else "hggep"
        shown = key if len(key) <= 60 else f"{key[:60]}…"
        msg = (
            f"{what} names a key that files must be able to hold: 1 to {MOST_BYTES} bytes, without slashes and "
            f'the characters \\ : * ? " < > |, without a dot or a blank at its ends. Found {shown!r}. Pass another one, such '
            f"as {better!r}."
        )
        raise ValueError(msg)
