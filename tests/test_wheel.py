"""The wheel holds all that the package needs, and little else."""

from __future__ import annotations

import re
import tomllib
import zipfile
from email.parser import Parser
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src" / "sthggep"
pytestmark = pytest.mark.skipif(not (ROOT / "pyproject.toml").is_file(), reason="The sources are not in this copy.")
LARGEST = 25_000_000  # bytes


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from these sources."""
    builders = pytest.importorskip("hatchling.builders.wheel", reason="Needs hatchling, which builds the wheel")
    (path,) = builders.WheelBuilder(str(ROOT)).build(directory=str(tmp_path_factory.mktemp("dist")))
    return Path(path)


def test_every_file_of_the_package_is_in_the_wheel(wheel: Path):
    with zipfile.ZipFile(wheel) as archive:
        names_in_wheel = {name for name in archive.namelist() if ".dist-info/" not in name}
    source_files = {f"sthggep/{p.relative_to(SOURCE)}" for p in SOURCE.rglob("*") if p.is_file()}
    assert names_in_wheel == {name for name in source_files if "__pycache__" not in name}
    data_files = (
        "_bundled/her2st/model.safetensors",
        "_bundled/her2st/config.json",
        "_bundled/shufflenet_he.safetensors",
    )
    for name in (
        *data_files,
        "datasets/_registry.json",
        "pl/_report.html",
        "pl/_report.css",
        "pl/_report.js",
        "py.typed",
    ):
        assert f"sthggep/{name}" in names_in_wheel


def test_the_wheel_is_small_and_its_weights_are_whole(wheel: Path):
    assert wheel.stat().st_size <= LARGEST
    with zipfile.ZipFile(wheel) as archive:
        for path in SOURCE.rglob("*.safetensors"):
            assert archive.read(f"sthggep/{path.relative_to(SOURCE)}") == path.read_bytes()


def test_the_wheel_names_its_dependencies(wheel: Path):
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    with zipfile.ZipFile(wheel) as archive:
        info = f"sthggep-{project['version']}.dist-info"
        metadata = Parser().parsestr(archive.read(f"{info}/METADATA").decode())
        commands = archive.read(f"{info}/entry_points.txt").decode()
        assert f"{info}/licenses/LICENSE" in archive.namelist()
    assert metadata["Requires-Python"] == ">=3.11"
    assert set(metadata.get_all("Provides-Extra")) == set(project["optional-dependencies"])
    assert dict(line.split(", ") for line in metadata.get_all("Project-URL")) == project["urls"]
    core = [line for line in metadata.get_all("Requires-Dist") if "extra ==" not in line]
    assert len(core) == len(project["dependencies"]) <= 29
    assert [line for line in core if not re.search(r">=\s*\d", line)] == [], "each needs a lower bound"
    assert "sthggep = sthggep._cli:main" in commands
