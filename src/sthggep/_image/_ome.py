"""What an OME-TIFF says of its images: sizes, microns per pixel, channels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING
from xml.etree import ElementTree

from sthggep._image._microns import as_number, um_per

if TYPE_CHECKING:
    import tifffile

MOST_PLANES = 1 << 20  # tifffile allocates a place for each


@dataclass(frozen=True)
class OmeImage:
    """One `Image` element."""

    pixels: dict[str, str]
    channels: tuple[dict[str, str], ...]

    @property
    def size(self) -> tuple[int, int]:
        """Height and width; 0 where they are not stated."""
        height, width = (self.pixels.get(f"Size{axis}", "") for axis in "YX")
        return (int(height) if height.isdecimal() else 0, int(width) if width.isdecimal() else 0)

    def n_planes(self) -> int:
        """Number of planes that the element announces."""
        sizes = [self.pixels.get(f"Size{axis}", "1") for axis in "ZCT"]
        z, c, t = (int(size) if size.isdecimal() else 1 for size in sizes)
        return z * c * t

    def mpp(self) -> tuple[float, float] | None:
        """Microns per pixel along x and y; ``None`` if it states none in a unit of length."""
        sides = []
        for axis in "XY":
            per_unit = um_per(self.pixels.get(f"PhysicalSize{axis}Unit", "um"))
            if f"PhysicalSize{axis}" in self.pixels and per_unit is not None:
                sides.append(as_number(self.pixels[f"PhysicalSize{axis}"]) * per_unit)
        return (sides[0], sides[-1]) if sides else None

    def channel_names(self) -> list[str]:
        """Names of the channels; a channel with a dye is that of a fluorescence image."""
        names = []
        for channel in self.channels:
            dye = (
                "Fluor" in channel or "EmissionWavelength" in channel or channel.get("ContrastMethod") == "Fluorescence"
            )
            label = channel.get("Name") or channel.get("Fluor", "")
            names.append(f"{label} (fluorescence)" if dye else label)
        return names

    def significant_bits(self) -> int | None:
        """Bits that hold values, if that is stated."""
        bits = self.pixels.get("SignificantBits", "")
        return int(bits) if bits.isdecimal() else None


def ome_images(tif: tifffile.TiffFile) -> list[OmeImage]:
    """Read the `Image` elements of an OME-TIFF; none if the file is another TIFF, or its XML is broken."""
    try:
        root = ElementTree.fromstring(tif.ome_metadata or "<none/>")
    except (ElementTree.ParseError, ValueError):
        return []
    images = []
    for image in root:
        pixels = next((each for each in image if each.tag.endswith("Pixels")), None)
        if image.tag.endswith("Image") and pixels is not None:
            channels = tuple(dict(each.attrib) for each in pixels if each.tag.endswith("Channel"))
            images.append(OmeImage(dict(pixels.attrib), channels))
    return images


def ome_image_of(tif: tifffile.TiffFile, number: int) -> OmeImage | None:
    """Return the element of a series: the one at its place, else the only one of its size."""
    images, series = ome_images(tif), tif.series
    size = _size(series[number])
    if len(images) == len(series) and images[number].size == size:
        return images[number]
    same = [image for image in images if image.size == size]
    return same[0] if same and all(image.mpp() == same[0].mpp() for image in same) else None


def _size(series: tifffile.TiffPageSeries) -> tuple[int, int]:
    sizes = dict(zip(series.axes, series.shape, strict=True))
    return int(sizes.get("Y", 1)), int(sizes.get("X", 1))
