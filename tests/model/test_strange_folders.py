"""Model folders that a stranger wrote, or a failing disk."""

from __future__ import annotations

import copy
import json
import os
import random
import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from anndata import AnnData
from safetensors.torch import load_file, save_file

import sthggep
from sthggep import HGGEP, tl
from sthggep._inputs._inputs import Inputs
from sthggep.model._record import TrainingRecord
from sthggep.model._store import CONFIG, FORMAT, MOST_BYTES, TENSORS
from sthggep.nn import FeatureHGGEPNet, HGGEPNet

# STHGGEP_FUZZ=2000 looks at more mutants; each is made from its own number, so that a fault can be found again
N_MUTANTS = int(os.environ.get("STHGGEP_FUZZ", "150"))
GENES = ["A", "B", "C", "D"]
WITHOUT_ID = 2  # a format whose id is not compared: what another person seals anew is read like this


def make_model() -> HGGEP:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        members = [FeatureHGGEPNet([3, 2], 4, dim=8, heads=2, rank=2, blocks=[2, 1]) for _ in range(2)]
    record = TrainingRecord(
        sections=["S"],
        n_spots=[25],
        mpp=[0.5],
        pitch_um=[100.0],
        image_mpp=[None],
        fingerprints=[{"name": "S", "image": "abc", "layout": None}],
        colors=[{"name": "S", "mean": [60.0, 20.0, -10.0], "spread": [9.0, 5.0, 4.0]}],
        validation=["S"],
        seed=0,
        ceiling=[0.5, 0.4, 0.3, 0.2],
        held_out_pearson=[0.3, None, 0.1, 0.2],
        obsm_columns={"a": None, "b": ["x", "y"]},
    )
    history = pd.DataFrame({"member": [1, 1, 2], "epoch": [1, 2, 1], "train_loss": [1.0, 0.5, 2.0]})
    inputs = Inputs("obsm", sizes_um=(), obsm=("a", "b"))
    return HGGEP(members, GENES, inputs, preset="default", training=record, history=history)


@pytest.fixture(scope="module")
def source(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("source") / "model"
    make_model().save(folder)
    return folder


@pytest.fixture
def folder(source, tmp_path) -> Path:
    return Path(shutil.copytree(source, tmp_path / "model"))


@pytest.fixture(scope="module")
def slide() -> AnnData:
    rng = np.random.default_rng(0)
    y, x = np.divmod(np.arange(25), 5)
    adata = AnnData(obs=pd.DataFrame({"array_x": x, "array_y": y}, index=[f"s{i}" for i in range(25)]))
    adata.obsm["spatial"] = 100.0 * np.column_stack([x, y])
    adata.obsm["a"] = rng.random((25, 3), dtype=np.float32)
    adata.obsm["b"] = pd.DataFrame(rng.random((25, 2)), columns=["x", "y"], index=adata.obs_names)
    return adata


def edit(folder: Path, change: Callable[[dict], object], **top: object) -> None:
    """Change the record on disk."""
    config = json.loads((folder / CONFIG).read_text())
    change(config)
    (folder / CONFIG).write_text(json.dumps({**config, **top}))


def at(*keys: str | int) -> Callable[[dict, object], None]:
    """A function that puts a value at a place of a record."""

    def put(config: dict, value: object) -> None:
        for key in keys[:-1]:
            config = config[key]
        config[keys[-1]] = value

    return put


# ---------------------------------------------------------------- what the id covers


@pytest.mark.handles("`load` rejects the model: its content does not match its id.")
@pytest.mark.parametrize(
    ("keys", "value"),
    [
        pytest.param(("inputs", "obsm"), ["b", "a"], id="inputs in another order"),
        pytest.param(("inputs", "flips"), False, id="flips of the patches switched"),
        pytest.param(("networks", 0, "config", "n_neighbors"), 3, id="fewer neighbors"),
        pytest.param(("networks", 1, "config", "damping"), 5.0, id="another damping"),
        pytest.param(("networks", 1, "config", "penalty"), 5.0, id="another penalty"),
        pytest.param(("training", "held_out_pearson"), [0.95] * 4, id="better scores than were measured"),
        pytest.param(("training", "ceiling"), [1.0] * 4, id="another noise ceiling"),
        pytest.param(("training", "fingerprints"), [], id="the fingerprints of its tissue removed"),
        pytest.param(("training", "sections"), ["T"], id="other training sections"),
        pytest.param(("training", "pitch_um"), [55.0], id="another distance of spots"),
        pytest.param(("training", "colors"), [], id="the colors of its tissue removed"),
        pytest.param(("history", "train_loss"), [1.0, 0.1, 0.1], id="better training curves"),
        pytest.param(("genes",), ["A", "B", "D", "C"], id="genes in another order"),
        pytest.param(("preset",), "paper", id="another preset"),
        pytest.param(("id",), "hggep-default-000000000000", id="another id"),
    ],
)
def test_edited_records_are_refused(folder, keys, value):
    edit(folder, lambda config: at(*keys)(config, value))
    with pytest.raises(ValueError, match=r"the id of this record and these weights is hggep-.*the saved id hggep-"):
        HGGEP.load(folder)


def test_the_id_changes_with_every_part_and_with_nothing_else(folder):
    model = HGGEP.load(folder)
    ids = {model.id}
    for change in (
        lambda m: setattr(m, "inputs", Inputs("obsm", sizes_um=(), obsm=("b", "a"))),
        lambda m: m.members[0].config.update(n_neighbors=4),
        lambda m: m.training.sections.append("T"),
        lambda m: setattr(m, "history", m.history.iloc[:2]),
        lambda m: m.genes.reverse(),
        lambda m: m.members[0].blend.fill_(0.5),
    ):
        other = HGGEP.load(folder)
        change(other)
        ids.add(other.id)
    assert len(ids) == 7
    assert HGGEP.load(folder).id == model.id == make_model().id
    assert make_model().id.startswith("hggep-default-")


def test_a_flipped_bit_of_a_weight_is_seen(folder):
    path = folder / TENSORS
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(ValueError, match="the id of this record"):
        HGGEP.load(folder)


@pytest.mark.parametrize("former_format", ["format 3", "format 2"])
def test_models_of_formats_before_the_whole_id_are_read(folder, former_format):
    model = HGGEP.load(folder)
    former = "hggep-default-" + former_digest(folder)
    edit(folder, lambda config: None, format=int(former_format[-1]), id=former)
    assert HGGEP.load(folder).id == model.id
    edit(folder, lambda config: config["genes"].reverse())
    if former_format == "format 3":
        with pytest.raises(ValueError, match="the id of this record"):
            HGGEP.load(folder)
    else:
        assert HGGEP.load(folder).id != model.id


def former_digest(folder: Path) -> str:
    """The id of format 3, from its definition: weights, no encoder, genes."""
    import hashlib

    def digest(tensors: dict[str, torch.Tensor]) -> str:
        sha = hashlib.sha256()
        for name in sorted(tensors):
            sha.update(name.encode() + tensors[name].numpy().tobytes())
        return sha.hexdigest()[:12]

    members = {name.removeprefix("members."): value for name, value in load_file(folder / TENSORS).items()}
    return hashlib.sha256(repr([digest(members), digest({}), *GENES]).encode()).hexdigest()[:12]


# ---------------------------------------------------------------- the schema


HUGE = 3_000_000_000
BROKEN_RECORDS = [
    (("networks", 0, "config", "n_genes"), HUGE, "billions of genes", r"networks\.0.*n_genes.*found 3000000000"),
    (("networks", 0, "config", "rank"), HUGE, "billions of programs", r"rank"),
    (("networks", 0, "config", "dim"), HUGE, "billions of features", r"dim"),
    (("networks", 0, "config", "depth"), HUGE, "billions of blocks", r"depth"),
    (("networks", 0, "config", "feature_dims"), [1] * 99_999, "thousands of stages", r"feature_dims"),
    (("networks", 0, "config", "feature_dims"), [999_999, 999_999], "widths that want gigabytes", r"must have shape"),
    (("networks", 0, "config", "dim"), 1000, "a width that the weights do not have", r"must have shape"),
    (("networks", 0, "config", "heads"), 3, "heads that do not divide the width", r"multiple of heads"),
    (("networks", 0, "config", "heads"), 0, "no heads", r"greater than or equal to 1"),
    (("networks", 0, "config", "dropout"), "0.2", "a number as text", r"valid number, found '0\.2'"),
    (("networks", 0, "config", "damping"), float("nan"), "a number that is NaN", r"damping"),
    (("networks", 0, "config", "hypergraph"), 1, "a number for a switch", r"hypergraph"),
    (("networks", 0, "config", "layers"), 3, "an option that there is not", r"layers: Extra inputs"),
    (("networks", 0, "class"), "Module", "a network that there is not", r"found \{'class': 'Module'"),
    (("networks",), [], "no networks", r"networks: List should have at least 1"),
    (("networks",), {"0": 1}, "networks by name", r"networks: Input should be a valid (list|array)"),
    (("genes",), [], "no genes", r"genes"),
    (("genes",), ["A", "A", "B", "C"], "a gene named twice", r"genes must be unique names"),
    (("genes",), ["A", "B", "C", ""], "a gene without a name", r"genes must be unique names, .*empty"),
    (("genes",), ["A", "B", "C", None], "a gene that is null", r"genes\.3"),
    (("genes",), ["A", "B", "C", "\ud800"], "half of a surrogate pair", r"hex escape|surrogate"),
    (("preset",), "../../elsewhere", "a preset that leaves the folder", r"preset: String should match"),
    (("inputs", "kind"), "audio", "inputs that there are not", r"inputs\.kind must be one of"),
    (("inputs", "kind"), "patches", "inputs of another network", r"inputs \(patches\)"),
    (("inputs", "obsm"), ["a"], "fewer inputs than stages", r"hold 1 stage"),
    (("inputs", "size_px"), 10**9, "patches of a billion pixels", r"size_px must be from 8 to 4096"),
    (("inputs", "sizes_um"), [1e12], "a field of view of a thousand kilometers", r"sizes_um must be from 0"),
    (("inputs", "stain"), "reinhard", "a stain that was not recorded", r"not of one method"),
    (("training", "held_out_pearson"), [0.1], "fewer scores than genes", r"one value for each of 4 genes, found 1"),
    (("training", "fingerprints"), [{"image": "S"}], "a fingerprint without a name", r"fingerprints\.0"),
    (
        ("training", "fingerprints"),
        [{"name": "S", "places": {"width": 9, "height": 9, "places": "AA=="}}],
        "fewer places than stated",
        r"fingerprint of .S. cannot be read",
    ),
    (("training", "fingerprints"), [5], "a number for a fingerprint", r"fingerprints\.0"),
    (("training", "colors"), [{"name": "S", "mean": [1.0], "spread": []}], "a color of one channel", r"colors\.0"),
    (("training", "pitch_um"), [-5.0], "a negative distance of spots", r"pitch_um"),
    (("training", "mpp"), [1e300], "pixels larger than the Earth", r"mpp"),
    (("training", "targets"), {"from": "obs"}, "targets without a scale", r"targets"),
    (("training", "stain"), {"method": "reinhard", "mean": [1]}, "a stain of one channel", r"stain"),
    (("training", "surprise"), 1, "an entry that there is not", r"training\.surprise"),
    (("training",), 5, "a number for the training", r"training"),
    (("history", "epoch"), [1], "columns of several lengths", r"columns of one length"),
    (("history", "epoch"), ["1", "2", "3"], "words for the epochs", r"history\.epoch"),
    (("history",), [1], "a list for the curves", r"history"),
    (("surprise",), 1, "an entry at the top that there is not", r"surprise"),
    (("id",), None, "no id", r"id"),
    (("class",), "Other", "another class of model", r"class"),
]


@pytest.mark.handles("sthggep rejects the model before it allocates memory for a network. The message names the entry.")
@pytest.mark.parametrize(
    ("keys", "value", "message"),
    [pytest.param(keys, value, text, id=name) for keys, value, name, text in BROKEN_RECORDS],
)
def test_records_that_no_model_has(folder, keys, value, message, monkeypatch):
    monkeypatch.setattr("sthggep.model._hggep.build_network", lambda entry: pytest.fail("a network was built"))
    edit(folder, lambda config: at(*keys)(config, value))
    with pytest.raises(ValueError, match=rf"(?s)model.*(do not belong together|not a model's record) \(.*{message}"):
        HGGEP.load(folder)


@pytest.mark.handles("sthggep rejects the model and names the file.")
@pytest.mark.parametrize(
    "text",
    [
        pytest.param("[" * 100_000, id="lists nested too deeply"),
        pytest.param('{"a":' * 100_000, id="objects nested too deeply"),
        pytest.param('{"format": 1e999}', id="an infinite format"),
        pytest.param('{"format": true}', id="a format that is true"),
        pytest.param('{"format": ' + "9" * 5000 + "}", id="a format of 5000 digits"),
        pytest.param('{"format": 2, "training": 5}', id="an old format without a training"),
        pytest.param('{"format": 0}', id="format 0"),
        pytest.param("", id="an empty file"),
        pytest.param("null", id="null"),
        pytest.param('"format"', id="a text"),
        pytest.param("\x00\x01\x02", id="bytes"),
        pytest.param('{"format": 4,}', id="JSON with a comma too many"),
        pytest.param(" " * (MOST_BYTES + 1), id="a file that is too large"),
        pytest.param('{"format": 4, "x": [' + "0," * 1_000_001 + "0]}", id="more than a million entries"),
    ],
)
def test_files_that_are_no_record(folder, text):
    (folder / CONFIG).write_text(text)
    with pytest.raises(ValueError, match=rf"{CONFIG}' is not a model's record \("):
        HGGEP.load(folder)


@pytest.mark.handles("sthggep rejects the record by its encoding.")
@pytest.mark.parametrize("encoding", ["utf-16", "utf-32"], ids=["a record in UTF-16", "a record in UTF-32"])
def test_records_in_another_encoding(folder, encoding):
    (folder / CONFIG).write_text((folder / CONFIG).read_text(), encoding=encoding)
    with pytest.raises(ValueError, match="is not a model's record"):
        HGGEP.load(folder)


# ---------------------------------------------------------------- the weights


def change_weights(folder: Path, change: Callable[[dict[str, torch.Tensor]], object]) -> None:
    tensors = load_file(folder / TENSORS)
    change(tensors)
    save_file(tensors, folder / TENSORS)


FIRST = "members.0.blend"


@pytest.mark.handles("`load` rejects the model and names the weights.")
@pytest.mark.parametrize(
    ("change", "message"),
    [
        pytest.param(
            lambda t: t[FIRST].fill_(np.nan), f"NaN or infinity, in 1 of .*{FIRST}", id="one weight that is NaN"
        ),
        pytest.param(lambda t: t[FIRST].fill_(-np.inf), "NaN or infinity", id="one weight that is infinite"),
        pytest.param(lambda t: t.pop(FIRST), "'0.blend' are missing", id="weights that are missing"),
        pytest.param(
            lambda t: t.update({FIRST: torch.ones(3)}), r"shape \(\).*found \(3,\)", id="weights of another shape"
        ),
        pytest.param(
            lambda t: t.update({FIRST: torch.ones((), dtype=torch.float64)}), "float64", id="weights of another type"
        ),
        pytest.param(
            lambda t: t.update({FIRST: torch.ones((), dtype=torch.complex64)}), "complex64", id="complex weights"
        ),
        pytest.param(
            lambda t: t.update({"members.9.blend": torch.ones(())}), "does not know", id="weights of one network more"
        ),
        pytest.param(lambda t: t.update({"x": torch.ones(())}), "does not know", id="weights of something else"),
    ],
)
def test_weights_that_are_not_the_model_s(folder, change, message):
    change_weights(folder, change)
    edit(folder, lambda config: None, format=WITHOUT_ID)
    with pytest.raises(ValueError, match=message):
        HGGEP.load(folder)


@pytest.mark.handles("`save` raises an error and writes nothing.")
@pytest.mark.parametrize("value", [np.nan, np.inf], ids=["a weight or ceiling that is NaN", "one that is infinite"])
def test_a_diverged_model_is_not_saved(tmp_path, value):
    model = make_model()
    model.members[1].blend.fill_(value)
    with pytest.raises(
        ValueError, match=r"cannot be saved: the weights hold NaN or infinity, in 1 of \d+ tensors: 'members\.1\.blend'"
    ):
        model.save(tmp_path / "m")
    model = make_model()
    model.training.ceiling[0] = value
    with pytest.raises(ValueError, match=r"cannot be saved: training\.ceiling\.0"):
        model.save(tmp_path / "m")
    assert list(tmp_path.iterdir()) == []


def test_weights_of_half_precision_have_an_id(tmp_path):
    model = make_model()
    model.encoder_state = {"w": torch.ones(3, dtype=torch.bfloat16), "n": torch.tensor(3)}
    model.save(tmp_path / "m")
    assert HGGEP.load(tmp_path / "m").id == model.id != make_model().id


# ---------------------------------------------------------------- other arguments


@pytest.mark.handles("sthggep rejects the argument by its type or as unknown. The error is its own, not one of Python.")
@pytest.mark.parametrize(
    ("call", "value", "error"),
    [
        pytest.param(HGGEP.load, None, TypeError, id="no folder"),
        pytest.param(HGGEP.load, 5, TypeError, id="a number for a folder"),
        pytest.param(HGGEP.load, "\0", ValueError, id="a folder of a null byte"),
        pytest.param(HGGEP.from_pretrained, None, TypeError, id="no name"),
        pytest.param(HGGEP.from_pretrained, "x" * 300, FileNotFoundError, id="a name of 300 letters"),
        pytest.param(HGGEP.from_pretrained, "", FileNotFoundError, id="an empty name"),
        pytest.param(HGGEP.from_pretrained, "\0", ValueError, id="a name of a null byte"),
        pytest.param(
            lambda value: HGGEP.from_reference_checkpoint(value, ["A"]), 5, TypeError, id="a number for a checkpoint"
        ),
        pytest.param(
            lambda value: HGGEP.from_reference_checkpoint({}, value), "GNAS", TypeError, id="one gene as text"
        ),
        pytest.param(
            lambda value: HGGEP.from_reference_checkpoint({}, value), 5, TypeError, id="a number for the genes"
        ),
    ],
)
def test_arguments_that_name_nothing(call, value, error):
    with pytest.raises(error) as refused:
        call(value)
    assert is_ours(refused.value)


@pytest.mark.handles("sthggep rejects the file before it allocates memory for a network.")
@pytest.mark.parametrize(
    ("state", "message"),
    [
        pytest.param(
            {"gene_head.1.weight": torch.zeros(1).expand(3_000_000, 1024)},
            "3000000 genes, found 1 name",
            id="millions of genes",
        ),
        pytest.param({"gene_head.1.weight": torch.zeros(())}, "a matrix", id="a number for a matrix"),
        pytest.param({"gene_head.1.weight": torch.zeros(1, 2).to_sparse()}, "dense tensors", id="a sparse matrix"),
        pytest.param(
            {"gene_head.1.weight": torch.zeros(1, 2, device="meta")}, "dense tensors", id="a matrix without values"
        ),
        pytest.param(
            {"gene_head.1.weight": torch.zeros(1, 2, dtype=torch.complex64)}, "real numbers", id="a complex matrix"
        ),
        pytest.param({"gene_head.1.weight": 5}, "found 0 tensors", id="a number for a tensor"),
        pytest.param({"state_dict": 5}, "found 0 tensors", id="a number for a state dict"),
        pytest.param({}, "found 0 tensors", id="nothing"),
    ],
)
def test_checkpoints_of_something_else(state, message, monkeypatch):
    monkeypatch.setattr("sthggep.nn._reference.HGGEPNet", lambda *_, **__: pytest.fail("a network was built"))
    with pytest.raises(ValueError, match=message):
        HGGEP.from_reference_checkpoint(state, ["A"])


def test_nan_in_a_checkpoint_is_refused(monkeypatch):
    net = HGGEPNet(1, reference=True, dim=16, depth=1, heads=1, hypergraph_dim=8, fusion_layers=1)
    net.heads.expression[1].weight.data.fill_(np.nan)
    monkeypatch.setattr("sthggep.model._hggep.nets.reference_sizes", lambda state: (1, None))
    monkeypatch.setattr("sthggep.model._hggep.nets.from_reference_state_dict", lambda state: net)
    with pytest.raises(ValueError, match="NaN or infinity"):
        HGGEP.from_reference_checkpoint({}, ["A"])


# ---------------------------------------------------------------- mutants


ODD = [
    None,
    True,
    -1,
    0,
    1,
    3,
    2**31,
    10**30,
    0.5,
    1e308,
    float("nan"),
    float("-inf"),
    "",
    "x" * 999,
    "\ud800",
    "../x",
    [],
    {},
]
ODD += [[[]], [None], {"a": None}, [0] * 50, [[[[[[]]]]]]]


def places(value: Any, keys: tuple = ()) -> list[tuple]:
    """Every place of a record; of long lists the first two."""
    items = value.items() if isinstance(value, dict) else enumerate(value[:2]) if isinstance(value, list) else ()
    return [*([keys] if keys else []), *(place for key, item in items for place in places(item, (*keys, key)))]


def mutate_record(folder: Path, chance: random.Random) -> None:
    config = json.loads((folder / CONFIG).read_text())
    for _ in range(chance.choice([1, 1, 1, 2, 5])):
        keys = chance.choice(places(config))
        holder = config
        for key in keys[:-1]:
            holder = holder[key]
        old, what = holder[keys[-1]], chance.randrange(5)
        if what == 0:
            del holder[keys[-1]]
        elif what == 1 and isinstance(holder, dict):
            holder[chance.choice(["new", "from", "class", "key"])] = chance.choice(ODD)
        elif what == 2 and isinstance(old, list):
            holder[keys[-1]] = chance.choice([old * 2, old[::-1], old[:-1], [old]])
        elif what == 3 and isinstance(old, int | float) and not isinstance(old, bool):
            holder[keys[-1]] = chance.choice([-old, old + 1, old * 1000, old / 3, str(old)])
        else:
            holder[keys[-1]] = copy.deepcopy(chance.choice(ODD))
    if chance.random() < 0.7 and isinstance(config, dict):
        config["format"] = WITHOUT_ID
    (folder / CONFIG).write_text(json.dumps(config))


def mutate_bytes(folder: Path, chance: random.Random) -> None:
    path = folder / chance.choice([CONFIG, TENSORS])
    content = bytearray(path.read_bytes())
    what, start = chance.randrange(5), chance.choice([0, 8, chance.randrange(len(content))])
    if what < 2:
        for _ in range(chance.choice([1, 3, 30])):
            content[min(start + chance.randrange(200), len(content) - 1)] = chance.randrange(256)
    elif what == 2:
        content = content[: chance.randrange(len(content))]
    elif what == 3:
        content[start:start] = chance.randbytes(chance.choice([1, 8, 1000]))
    else:
        content[start : start + 50] = b""
    path.write_bytes(content)


def mutate_weights(folder: Path, chance: random.Random) -> None:
    def change(tensors: dict[str, torch.Tensor]) -> None:
        name = chance.choice(sorted(tensors))
        value = tensors.pop(name)
        new = chance.choice(
            [value[None], value.double(), value.half(), torch.zeros(0), torch.full_like(value, np.nan), value * 1e30]
        )
        if chance.random() < 0.8:
            tensors[chance.choice([name, name, name, "x", "encoder.x", "members.x"])] = new.contiguous()

    change_weights(folder, change)
    if chance.random() < 0.7:
        edit(folder, lambda config: None, format=WITHOUT_ID)


def mutate_files(folder: Path, chance: random.Random) -> None:
    one, other = chance.sample([CONFIG, TENSORS], 2)
    what = chance.randrange(5)
    if what == 0:
        (folder / one).unlink()
    elif what == 1:
        (folder / one).unlink()
        (folder / one).mkdir()
    elif what == 2:
        shutil.copy(folder / other, folder / one)
    elif what == 3:
        (folder / "more.bin").write_bytes(b"x")
    else:
        shutil.rmtree(folder)


MUTATIONS = [mutate_record] * 6 + [mutate_bytes] * 2 + [mutate_weights] * 2 + [mutate_files]
LIBRARIES = re.compile(
    r"max\(\) arg|object has no attribute|object is not|takes \d+ positional|unpack|\bstruct\.error|Traceback"
)


def is_ours(error: BaseException) -> bool:
    """Whether sthggep raised the error on purpose, for people: also when the innermost cause was a library's."""
    frame = error.__traceback__
    while frame is not None and frame.tb_next is not None:
        frame = frame.tb_next
    here = frame is not None and str(frame.tb_frame.f_globals["__name__"]).startswith("sthggep")
    kind = type(error) in (ValueError, TypeError, KeyError, FileNotFoundError)
    return here and kind and not LIBRARIES.search(str(error)) and len(str(error)) < 2000


def look_at(number: int, source: Path, scratch: Path, slide: AnnData) -> str:
    """Make a mutant and use it; return what became of it."""
    chance = random.Random(number)
    folder = Path(shutil.copytree(source, scratch / "m"))
    try:
        chance.choice(MUTATIONS)(folder, chance)
        model = HGGEP.load(folder)
        tl.predict(slide, model, show_progress_bar=False, device="cpu")
        repr(model), model._repr_html_()
        return "predicted" if np.isfinite(slide.obsm["hggep"]).all() else "predicted NaN"
    except Exception as error:  # noqa: BLE001  # whatever reaches the user is judged
        return "refused" if is_ours(error) else f"{type(error).__name__}: {str(error)[:200]} ({number})"
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_mutants_of_a_model_are_refused_or_predict(source, slide, tmp_path):
    outcomes = [look_at(number, source, tmp_path, slide) for number in range(N_MUTANTS)]
    sys.stdout.write(f"{ {name: outcomes.count(name) for name in dict.fromkeys(outcomes)} }\n")
    assert sorted(set(outcomes) - {"refused", "predicted"}) == []
    assert outcomes.count("refused") > 0.5 * N_MUTANTS
    assert outcomes.count("predicted") > 0.02 * N_MUTANTS
    assert sthggep.HGGEP.load(source).id == make_model().id
    assert json.loads((source / CONFIG).read_text())["format"] == FORMAT
