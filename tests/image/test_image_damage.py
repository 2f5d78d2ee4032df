"""Image files that are damaged, empty, hostile, or huge by their header."""

from __future__ import annotations

import gzip
import os
import struct
import sys
import threading
import tracemalloc
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from sthggep._image import _handles
from sthggep._image._level import open_levels, read_mpp

NOISE = np.random.default_rng(0).integers(0, 255, (192, 256, 3), dtype=np.uint8)
TILED = {"photometric": "rgb", "tile": (64, 64), "compression": "zlib"}


def tiff_header(path: Path) -> None:
    path.write_bytes(struct.pack("<2sHI", b"II", 42, 99999))


def tiff_of_no_page(path: Path) -> None:
    path.write_bytes(struct.pack("<2sHI", b"II", 42, 0))


def changed(tag: str, value: object) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        tifffile.imwrite(path, NOISE, **TILED)
        with tifffile.TiffFile(path, mode="r+b") as tif:
            tif.pages.first.tags[tag].overwrite(value)

    return write


def ome_of_planes(path: Path) -> None:
    tifffile.imwrite(path, NOISE, photometric="rgb", metadata={"axes": "YXS"}, ome=True)
    with tifffile.TiffFile(path, mode="r+b") as tif:
        text = tif.pages.first.description.replace('SizeT="1"', 'SizeT="9999999999"')
        tif.pages.first.tags["ImageDescription"].overwrite(text)


def png_header(width: int, height: int) -> Callable[[Path], None]:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    content = b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")
    return lambda path: path.write_bytes(content)


def zipped(write: Callable[[Path], None]) -> Callable[[Path], None]:
    def write_zipped(path: Path) -> None:
        write(path)
        path.write_bytes(gzip.compress(path.read_bytes()))

    return write_zipped


def text(content: bytes) -> Callable[[Path], None]:
    return lambda path: path.write_bytes(content)


@pytest.mark.handles("sthggep rejects the file before it allocates memory. The message names the file.")
@pytest.mark.parametrize(
    "write",
    [
        pytest.param(tiff_header, id="TIFF cut off before its first page"),
        pytest.param(tiff_of_no_page, id="TIFF without pages"),
        pytest.param(text(b"II*\0"), id="TIFF of four bytes"),
        pytest.param(changed("ImageWidth", 0), id="TIFF of no width"),
        pytest.param(changed("ImageLength", 0), id="TIFF of no height"),
        pytest.param(changed("ImageWidth", 2**31), id="TIFF of two billion columns"),
        pytest.param(changed("TileWidth", 2**28), id="TIFF of huge tiles"),
        pytest.param(changed("TileByteCounts", (0,) * 12), id="TIFF whose tiles are all empty"),
        pytest.param(changed("BitsPerSample", (5, 6, 5)), id="TIFF of 5, 6 and 5 bits"),
        pytest.param(changed("Compression", 65123), id="TIFF of an unknown compression"),
        pytest.param(ome_of_planes, id="OME-TIFF that announces ten billion planes"),
        pytest.param(png_header(60000, 60000), id="PNG of 3.6 billion pixels"),
        pytest.param(png_header(30000, 30000), id="PNG of 900 million pixels in 100 bytes"),
        pytest.param(png_header(0, 10), id="PNG of no width"),
        pytest.param(zipped(png_header(60000, 60000)), id="gzipped PNG of 3.6 billion pixels"),
        pytest.param(zipped(tiff_header), id="gzipped TIFF without pages"),
        pytest.param(text(b"GIF89a" + bytes(20)), id="GIF"),
        pytest.param(text(b""), id="empty file"),
    ],
)
def test_damage_and_bombs(tmp_path: Path, write):
    path = tmp_path / "slide.tif"
    write(path)
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match=r"slide\.tif"):
            open_levels(path)[0].read([[0, 0, 20, 20]])
        assert tracemalloc.get_traced_memory()[1] < 100e6
    finally:
        tracemalloc.stop()


def test_gzip_that_unpacks_without_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("sthggep._image._plain.UNSUSPICIOUS", 1 << 16)
    path = tmp_path / "slide.png.gz"
    path.write_bytes(gzip.compress(bytes(10_000_000)))
    with pytest.raises(ValueError, match=r"slide\.png\.gz unpacks to more than"):
        open_levels(path)


def refusal(call: Callable[[], object]) -> str:
    """Message of an error for people; any other error passes through."""
    try:
        call()
    except (ValueError, ImportError) as error:
        return str(error)
    return ""


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("kind", ["tif", "ome.tif", "png", "jpg"])
def test_flipped_bytes_raise_no_odd_errors(tmp_path: Path, kind: str, seed: int):
    """A damaged file is read, or refused by an error that names it."""
    rng = np.random.default_rng([seed, len(kind)])
    path = tmp_path / f"slide.{kind}"
    if kind.endswith("tif"):
        tifffile.imwrite(path, NOISE, **TILED)
    else:
        Image.fromarray(NOISE[:64, :64]).save(path)
    content = np.frombuffer(path.read_bytes(), np.uint8)
    with tifffile.TiffFile(path) if kind.endswith("tif") else path.open("rb") as file:
        start = int(file.pages.first.offset) if kind.endswith("tif") else 0
    for _ in range(40):
        damaged = content.copy()
        # The header and the directory, where the odd errors come from
        places = (
            rng.integers(start, min(start + 300, len(content)), 3) if rng.random() < 0.8 else rng.integers(0, 16, 2)
        )
        damaged[places] = rng.integers(0, 256, len(places))
        path.write_bytes(damaged.tobytes())
        for call in (lambda: open_levels(path)[-1].read([[0, 0, 8, 8]]), lambda: read_mpp(path)):
            assert not (message := refusal(call)) or "slide." in message or "Expected" in message


def test_postscript_is_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Pillow knows a file by its content, and would start Ghostscript for one of PostScript."""
    mark, tool = tmp_path / "started", tmp_path / "gs"
    tool.write_text(f"#!{sys.executable}\nopen({str(mark)!r}, 'w')\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    path = tmp_path / "slide.png"
    path.write_text("%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\nshowpage\n%%EOF\n")
    with pytest.raises(ValueError, match=r"slide\.png is not an image"):
        open_levels(path)
    assert not mark.exists()


def test_animations_are_refused(tmp_path: Path):
    frames = [Image.fromarray(NOISE), Image.fromarray(255 - NOISE)]
    frames[0].save(tmp_path / "slide.png", save_all=True, append_images=frames[1:])
    with pytest.raises(ValueError, match="animation of 2 pictures"):
        open_levels(tmp_path / "slide.png")


def test_a_pipe_is_refused(tmp_path: Path):
    os.mkfifo(tmp_path / "slide.tif")
    with pytest.raises(ValueError, match="no regular file"):
        open_levels(tmp_path / "slide.tif")


# --- open files ---------------------------------------------------------------------------------------------------


def pyramid(path: Path, pixels: np.ndarray = NOISE) -> Path:
    with tifffile.TiffWriter(path) as tif:
        tif.write(pixels, subifds=3, **TILED)
        for step in (2, 4, 8):
            tif.write(pixels[::step, ::step].copy(), subfiletype=1, **TILED)
    return path


def n_open() -> int:
    return len(os.listdir("/proc/self/fd"))


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="Counts open files where the system lists them")
def test_open_files_are_few(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(_handles, "MOST_OPEN", 4)
    paths = [pyramid(tmp_path / f"{number}.tif") for number in range(8)]
    tifffile.imwrite(tmp_path / "plain.tif", NOISE, photometric="rgb")
    # Close what other tests have left open
    for path in paths:
        open_levels(path)[0].read([[0, 0, 4, 4]])
    before = n_open()
    slides = [open_levels(path) for path in paths for _ in range(2)]
    slides += [open_levels(tmp_path / "plain.tif") for _ in range(20)]
    for levels in slides:
        for level in levels:
            level.read([[0, 0, 16, 16]])
    assert n_open() <= before
    # A file that was closed in between is opened again
    np.testing.assert_array_equal(slides[0][0].read([[3, 4, 40, 50]])[0], NOISE[4:50, 3:40])


def test_reading_in_threads_while_files_are_closed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(_handles, "MOST_OPEN", 2)
    slides = [open_levels(pyramid(tmp_path / f"{n}.tif", np.roll(NOISE, n, axis=0)))[0] for n in range(6)]
    wrong: list[object] = []

    def read(start: int) -> None:
        for turn in range(24):
            number = (start + turn) % len(slides)
            slides[number].blocks.forget()
            pixels = slides[number].read([[10, 20, 60, 80]])[0]
            if not np.array_equal(pixels, np.roll(NOISE, number, axis=0)[20:80, 10:60]):
                wrong.append((start, turn))

    threads = [threading.Thread(target=read, args=(start,)) for start in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


@pytest.mark.parametrize("compression", ["zlib", None])
def test_a_file_that_changes_after_it_was_opened(tmp_path: Path, compression):
    path = tmp_path / "slide.tif"
    tifffile.imwrite(path, NOISE, photometric="rgb", compression=compression)
    level = open_levels(path)[0]
    tifffile.imwrite(path, NOISE[:100], photometric="rgb", compression=compression)
    with pytest.raises(ValueError, match="has changed since it was opened"):
        level.read([[0, 0, 5, 5]])
    path.unlink()
    with pytest.raises(FileNotFoundError, match="is gone"):
        level.read([[0, 0, 5, 5]])
