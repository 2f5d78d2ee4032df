"""The schema of a model's record: types and sizes of its entries."""

from __future__ import annotations

from typing import Annotated, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field

from sthggep._inputs._inputs import Inputs
from sthggep._slides._array_places import MOST_PLACES
from sthggep._slides._colors import Colors
from sthggep._slides._picture import MOST_PX as PICTURE_PX
from sthggep.model._record import TrainingRecord

Number = Annotated[int, Field(ge=1, le=1_000_000)]
Few = Annotated[int, Field(ge=1, le=1000)]
Share = Annotated[float, Field(ge=0, lt=1)]
Positive = Annotated[float, Field(gt=0, le=1e6)]
Lab = Annotated[list[float], Field(min_length=3, max_length=3)]
Pair = Annotated[list[float], Field(min_length=2, max_length=2)]
PRESET = r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$"  # a part of the id, which names folders
KINDS = ("patches", "features", "obsm")
MOST_PX, MOST_UM = 4096, 1e5


class Part(BaseModel):
    """A part of the record: no type is converted, and no entry is unknown."""

    model_config = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False)


P = TypeVar("P", bound=Part)


class ClosedFormOptions(Part):
    """Options of a closed form on features."""

    feature_dims: Annotated[list[Number], Field(min_length=1, max_length=32)]
    n_genes: Number
    blocks: Annotated[list[Number], Field(min_length=1, max_length=64)] | None = None
    rank: Number = 8
    penalty: Annotated[float, Field(ge=0)] = 0.5
    damping: Annotated[float, Field(ge=0)] = 0.5
    hypergraph: bool = True
    linear: bool = False
    n_windows: Annotated[int, Field(ge=1, le=16)] = 1
    prior_rank: Annotated[int, Field(ge=0, le=1024)] = 0


class FeatureOptions(ClosedFormOptions):
    """Options of a network on features."""

    dim: Few = 128
    depth: Annotated[int, Field(ge=0, le=32)] = 1
    heads: Few = 4
    n_neighbors: Few = 9
    dropout: Share = 0.2
    input_dropout: Share = 0.1
    count_head: Literal["zinb", "nb"] | None = None


class PatchOptions(Part):
    """Options of a network on patches."""

    n_genes: Number
    reference: bool = False
    count_head: Literal["zinb", "nb"] | None = "zinb"
    dim: Annotated[int, Field(ge=16, le=16384)] = 1024
    depth: Annotated[int, Field(ge=0, le=32)] = 4
    heads: Few = 16
    hypergraph_dim: Annotated[int, Field(ge=1, le=16384)] = 512
    fusion_layers: Annotated[int, Field(ge=1, le=32)] = 4
    dropout: Share = 0.2
    hypergraph_dropout: Share = 0.5
    n_neighbors: Few = 8
    n_selected: Few = 4
    chunk_size: Number = 256
    precision: Literal["auto", "float32", "bfloat16"] = "auto"


class FeatureNetwork(Part):
    """A network on features."""

    name: Literal["FeatureHGGEPNet"] = Field(alias="class")
    config: FeatureOptions


class ClosedForm(Part):
    """A closed form on features."""

    name: Literal["ClosedFormNet"] = Field(alias="class")
    config: ClosedFormOptions


class PatchNetwork(Part):
    """A network on patches."""

    name: Literal["HGGEPNet"] = Field(alias="class")
    config: PatchOptions


class ReinhardRecord(Part):
    """A stain as means and spreads of L*, a* and b*."""

    method: Literal["reinhard"]
    mean: Lab
    spread: Lab


class MacenkoRecord(Part):
    """A stain as two directions of optical density and their strengths."""

    method: Literal["macenko"]
    stains: Annotated[list[Lab], Field(min_length=2, max_length=2)]
    strength: Pair


class TargetsRecord(Part):
    """Location and scale of targets that are not genes."""

    source: Literal["obs", "obsm"] = Field(alias="from")
    key: str | None = None
    mean: list[float]
    std: list[Annotated[float, Field(gt=0)]]


class PictureRecord(Part):
    """A small gray picture of a section."""

    unit: Annotated[float, Field(ge=-1e6, le=1e6)]
    width: Annotated[int, Field(ge=1, le=PICTURE_PX)]
    pixels: Annotated[str, Field(max_length=2 * PICTURE_PX**2)]


class PlacesRecord(Part):
    """Occupied places of an array of spots."""

    width: Annotated[int, Field(ge=1, le=MOST_PLACES)]
    height: Annotated[int, Field(ge=1, le=MOST_PLACES)]
    places: Annotated[str, Field(max_length=MOST_PLACES)]


class FingerprintRecord(Part):
    """Fingerprint of a section that the model was trained on."""

    name: str
    image: str | None = None
    layout: str | None = None
    picture: PictureRecord | None = None
    places: PlacesRecord | None = None
    measured: Annotated[str, Field(pattern=r"^([0-9a-f]{8})*$")] | None = None


class TrainingDetails(Part):
    """Entries of the record of the training whose types its class leaves open."""

    fingerprints: list[FingerprintRecord] = []
    colors: list[Colors] = []
    targets: TargetsRecord | None = None
    stain: Annotated[ReinhardRecord | MacenkoRecord, Field(discriminator="method")] | None = None
    n_spots: list[Annotated[int, Field(ge=0)]] = []
    mpp: list[Positive | None] = []
    pitch_um: list[Positive | None] = []
    image_mpp: list[Positive | None] = []
    scaled_by: Literal["all"] | None = None
    gene_n_sections: list[Annotated[int, Field(ge=0)]] = []
    gene_n_spots: list[Annotated[int, Field(ge=0)]] = []


class ModelRecord(Part):
    """The whole of ``config.json``."""

    format: int
    version: str | None = None
    name: Literal["HGGEP"] = Field(default="HGGEP", alias="class")
    id: str | None
    preset: Annotated[str, Field(pattern=PRESET)]
    genes: Annotated[list[str], Field(min_length=1)]
    units: str
    inputs: Inputs
    networks: Annotated[
        list[Annotated[FeatureNetwork | ClosedForm | PatchNetwork, Field(discriminator="name")]],
        Field(min_length=1, max_length=1000),
    ]
    training: TrainingRecord
    history: dict[str, list[int | float | str | None]]
