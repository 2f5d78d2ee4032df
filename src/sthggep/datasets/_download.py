"""Files of a data set, in a folder of the user or in the download cache."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path

from sthggep._checks import one_of
from sthggep._log import log
from sthggep._progress import can_draw


@dataclass(frozen=True)
class Source:
    """A public data set: its name, the addresses of its files, and how to get all of them by hand."""

    name: str
    url: Callable[[str], str]
    by_hand: str
    listing: Callable[[str], str] | None = None


@dataclass(frozen=True)
class Folder:
    """A data set's files below `path`; missing ones are fetched where `remote`."""

    source: Source
    path: Path
    remote: bool

    def find(self, below: str, pattern: str) -> Path | None:
        """The first file in folder `below` whose whole name matches the regular expression, without fetching."""
        names = self.names(below, pattern)
        return self.path / below / names[0] if names else None

    def names(self, below: str, pattern: str) -> list[str]:
        """Names of the files in folder `below` that match, without fetching."""
        folder = self.path / below
        file_names = sorted(file.name for file in folder.iterdir()) if folder.is_dir() else []
        return [name for name in file_names if re.fullmatch(pattern, name)]

    def choose(self, name: str, available: list[str], what: str) -> None:
        """Check that a section is available; the error lists those that are."""
        one_of(name, available, f"{self.source.name} {what}", where="" if self.remote else self.path, limit=40)

    def get(self, relative: str) -> Path:
        """A file, fetched if need be."""
        path = self.path / relative
        if self.remote:
            return fetch(self.source, relative, path)
        if not path.is_file():
            msg = (
                f"{self.source.name}: {relative} is not in {self.path}. Pass the folder of the data set as root= "
                f"(its layout: {self.source.by_hand}), or neither root nor $STHGGEP_DATA to download it."
            )
            raise FileNotFoundError(msg)
        return path

    def remote_names(self, below: str, pattern: str) -> list[str]:
        """Names of the files in a folder of the public copy."""
        override = os.environ.get(_variable(self.source))
        if override:
            url = f"{override.rstrip('/')}/{below}/index.json"
        elif self.source.listing is None:
            return []
        else:
            url = self.source.listing(below)
        listed = json.loads(_retrieve(self.source, url, self.path / below / "index.json", None).read_text())
        return [entry["name"] for entry in listed if re.fullmatch(pattern, entry["name"])]


def locate(source: Source, root: str | Path | None) -> Folder:
    """`root`, else `$STHGGEP_DATA/<name>`, else the download cache."""
    if root is not None:
        path = Path(root).expanduser()
        if not path.is_dir():
            msg = f"{source.name}: there is no folder {path}. root= is the data set's own folder ({source.by_hand})."
            raise FileNotFoundError(msg)
        return Folder(source, path, remote=False)
    shared = os.environ.get("STHGGEP_DATA")
    if shared and (Path(shared).expanduser() / source.name).is_dir():
        return Folder(source, Path(shared).expanduser() / source.name, remote=False)
    if shared:
        log.warning(
            "%s: $STHGGEP_DATA is %s, where there is no folder %s/: downloading.", source.name, shared, source.name
        )
    import pooch

    return Folder(source, Path(pooch.os_cache("sthggep")) / source.name, remote=True)


def fetch(source: Source, relative: str, path: Path) -> Path:
    """Download one file into the cache unless it is there; its checksum is compared where it is known."""
    override = os.environ.get(_variable(source))
    url = f"{override.rstrip('/')}/{relative}" if override else source.url(relative)
    checksum = checksums().get(source.name, {}).get(relative)
    if checksum is None and not path.exists():
        log.warning("%s: no checksum is known for %s; what arrives is not verified", source.name, relative)
    return _retrieve(source, url, path, checksum)


@cache
def checksums() -> dict[str, dict[str, str]]:
    """SHA-256 of the files that are known, by data set and path."""
    registry: dict[str, dict[str, str]] = json.loads(files("sthggep.datasets").joinpath("_registry.json").read_text())
    return registry


def _retrieve(source: Source, url: str, path: Path, checksum: str | None) -> Path:
    import pooch
    from requests.exceptions import RequestException

    try:
        pooch.retrieve(
            url,
            known_hash=None if checksum is None else f"sha256:{checksum}",
            fname=path.name,
            path=path.parent,
            downloader=pooch.HTTPDownloader(progressbar=can_draw()),
        )
    except RequestException as error:
        msg = (
            f"{source.name}: {path.name} could not be fetched from {url} ({error}). Where there is no network, get the "
            f"data set elsewhere ({source.by_hand}) and pass its folder as root=, or set $STHGGEP_DATA to the folder "
            f"that holds it as {source.name}/."
        )
        raise ConnectionError(msg) from error
    except ValueError as error:
        msg = (
            f"{source.name}: {path.name} from {url} is not the file this version knows: its checksum differs. It was "
            f"not kept. Try again; if that does not help, get the data set yourself ({source.by_hand}) and pass root=."
        )
        raise ValueError(msg) from error
    return path


def _variable(source: Source) -> str:
    """Environment variable that names a mirror of the data set (same relative paths)."""
    return f"STHGGEP_{source.name.upper()}_URL"


def numbered(letters: Iterable[tuple[str, int]]) -> list[str]:
    """`A1 ... An` for every letter and its number of sections."""
    return [f"{letter}{number}" for letter, count in letters for number in range(1, count + 1)]
