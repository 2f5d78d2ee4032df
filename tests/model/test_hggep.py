"""Models on disk, and checkpoints of the authors' code."""

from __future__ import annotations

import json
import pickle
import zlib
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from anndata import AnnData

import sthggep
from sthggep import HGGEP, nn, tl
from sthggep._inputs._inputs import Inputs
from sthggep.model._record import TrainingRecord

QUIET = {"show_progress_bar": False}


def edit_config(folder: Path, **changes):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **changes}))


@pytest.fixture
def model_folder(model, tmp_path):
    model.save(tmp_path / "model")
    return tmp_path / "model"


def test_a_loaded_model_equals_the_saved_one(model, model_folder, slides, monkeypatch):
    monkeypatch.delenv("STHGGEP_WEIGHTS", raising=False)
    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", None)  # the test fails if something is downloaded
    back = HGGEP.load(model_folder, genes=model.genes[:3])
    assert back.id == model.id
    assert back.genes == model.genes
    assert back.inputs == model.inputs
    pd.testing.assert_frame_equal(back.history, model.history, check_dtype=False)
    tl.predict(slides[2], model, **QUIET)
    tl.predict(slides[2], back, key_added="back", **QUIET)
    np.testing.assert_array_equal(slides[2].obsm["back"], slides[2].obsm["hggep"])


def test_folder_holds_plain_files(model_folder):
    def refuse(token):
        raise AssertionError(token)

    assert sorted(p.name for p in model_folder.iterdir()) == ["config.json", "model.safetensors"]
    config = json.loads((model_folder / "config.json").read_text(), parse_constant=refuse)
    assert config["version"] == sthggep.__version__
    assert config["units"].startswith("log10")
    assert [p.name for p in model_folder.parent.iterdir()] == ["model"]


def test_saving_over_an_existing_folder(model, model_folder):
    with pytest.raises(FileExistsError, match="overwrite=True"):
        model.save(model_folder)
    model.save(model_folder, overwrite=True)
    assert HGGEP.load(model_folder).id == model.id
    other_folder = model_folder.parent / "mine"
    other_folder.mkdir()
    (other_folder / "thesis.txt").write_text("years of work")
    with pytest.raises(FileExistsError, match="not a model"):
        model.save(other_folder, overwrite=True)
    assert (other_folder / "thesis.txt").exists()


def test_broken_folders_are_named(model_folder):
    with pytest.raises(FileNotFoundError, match=r"nowhere.*model"):
        HGGEP.load(model_folder.parent / "nowhere")
    with pytest.raises(KeyError, match="ACTB"):
        HGGEP.load(model_folder, genes=["ACTB"])
    edit_config(model_folder, format=99)
    with pytest.raises(ValueError, match=r"format 99.*[Uu]pgrade"):
        HGGEP.load(model_folder)
    edit_config(model_folder, format=1, genes=["A", "B"])
    with pytest.raises(ValueError, match="do not belong together"):
        HGGEP.load(model_folder)


def test_half_written_folders(model_folder):
    weights = model_folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(ValueError, match="half-written"):
        HGGEP.load(model_folder)
    weights.unlink()
    with pytest.raises(FileNotFoundError, match=r"not a whole model.*safetensors"):
        HGGEP.load(model_folder)


# ---------------------------------------------------------------- the authors' checkpoints


def reference_state(root: Path) -> dict[str, torch.Tensor]:
    """Make the weights by the rule of the golden arrays."""
    state = {}
    for name, (shape, _) in json.loads((root / "state_dict_spec.json").read_text()).items():
        values = np.random.default_rng(zlib.crc32(name.encode())).standard_normal(shape).astype(np.float32)
        last = name.rsplit(".", 1)[-1]
        if last == "num_batches_tracked":
            value = np.zeros(shape, dtype=np.int64)
        elif last == "running_var":
            value = 1 + 0.5 * np.abs(values)
        elif last == "running_mean":
            value = 0.1 * values
        elif len(shape) > 1:
            value = values / np.sqrt(np.prod(shape[1:]))
        else:
            value = 1 + 0.1 * values if last == "weight" else 0.1 * values
        state[name] = torch.from_numpy(np.asarray(value))
    return state


@pytest.fixture(scope="module")
def golden(reference_root):
    return np.load(reference_root / "golden_forward.npz")


@pytest.fixture(scope="module")
def checkpoint(reference_root, tmp_path_factory):
    path = tmp_path_factory.mktemp("authors") / "hggep.ckpt"
    torch.save({"state_dict": reference_state(reference_root), "epoch": 3}, path)
    return path


@pytest.fixture
def tiled_patches(golden) -> AnnData:
    """The golden patches side by side in one image, each around its spot."""
    patches, array_xy = golden["patches"], golden["array_xy"]
    n, size = len(patches), patches.shape[1]
    picture = np.concatenate(list(patches), axis=1)
    adata = AnnData(np.zeros((n, 1), dtype=np.float32))
    adata.obs[["array_x", "array_y"]] = array_xy
    # The pixel part of a coordinate is cut off, as published
    adata.obsm["spatial"] = np.column_stack([np.arange(n) * size + size / 2 + 0.7, np.full(n, size / 2 + 0.7)])
    adata.uns["spatial"] = {"B4": {"images": {"hires": picture}, "scalefactors": {"tissue_hires_scalef": 1.0}}}
    return adata


def test_authors_checkpoint_gives_the_authors_predictions(golden, checkpoint, tiled_patches, tmp_path):
    genes = [f"G{i}" for i in range(24)]
    model = HGGEP.from_reference_checkpoint(checkpoint, genes)
    tl.predict(tiled_patches, model, device="cpu", **QUIET)
    expected = golden["pred"]
    assert np.abs(tiled_patches.obsm["hggep"] - expected).max() / np.abs(expected).max() <= 1e-4
    with pytest.raises(ValueError, match="24 genes, found 2 names"):
        HGGEP.from_reference_checkpoint(checkpoint, ["A", "B"])
    tiled_patches.obs["array_x"] += 60
    with pytest.raises(ValueError, match="63"):
        tl.predict(tiled_patches, model, **QUIET)
    del tiled_patches.obs["array_x"]
    with pytest.raises(KeyError, match="array_x"):
        tl.predict(tiled_patches, model, **QUIET)


class Bomb:
    def __reduce__(self):
        return Path.touch, (Path("ran"),)


def test_files_that_are_no_checkpoint(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileNotFoundError, match="checkpoint"):
        HGGEP.from_reference_checkpoint("absent.ckpt", ["A"])
    torch.save({"state_dict": Bomb()}, "bomb.ckpt")
    (tmp_path / "raw.ckpt").write_bytes(pickle.dumps(Bomb()))
    for name in ("bomb.ckpt", "raw.ckpt"):
        with pytest.raises(ValueError, match="safely"):
            HGGEP.from_reference_checkpoint(name, ["A"])
    assert not (tmp_path / "ran").exists()
    with pytest.raises(ValueError, match="gene_head"):
        HGGEP.from_reference_checkpoint({"weight": torch.ones(1)}, ["A"])


def test_checkpoint_of_another_network(tmp_path):
    torch.save([torch.ones(2)], tmp_path / "list.pt")
    with pytest.raises(ValueError, match=r"list\.pt' holds a list, not a state dict"):
        HGGEP.from_reference_checkpoint(tmp_path / "list.pt", ["A"])
    (tmp_path / "empty.pt").write_bytes(b"")
    with pytest.raises(ValueError, match="cannot be read safely"):
        HGGEP.from_reference_checkpoint(tmp_path / "empty.pt", ["A"])


# ---------------------------------------------------------------- untrained models


SMALL = {"dim": 32, "depth": 1, "heads": 2, "hypergraph_dim": 16, "fusion_layers": 1}


def untrained(genes=("A", "B"), *, seed: int = 0, reference: bool = False, **options) -> HGGEP:
    """An untrained model on patches."""
    torch.manual_seed(seed)
    net = nn.HGGEPNet(len(genes), reference=reference, **SMALL)
    return HGGEP([net], genes, Inputs("patches", reference=reference), **options)


@pytest.mark.parametrize("reference", [False, True])
def test_models_on_patches_can_be_loaded(tmp_path, reference):
    slide = sthggep.datasets.toy(seed=3, size_um=(900.0, 900.0), mpp=2.0, n_genes=4)
    model = untrained(reference=reference)
    model.save(tmp_path / "model")
    torch.manual_seed(7)
    state = torch.get_rng_state()
    back = HGGEP.load(tmp_path / "model")
    assert torch.equal(torch.get_rng_state(), state)
    assert back.id == model.id
    tl.predict(slide, model, **QUIET)
    tl.predict(slide, back, key_added="back", **QUIET)
    np.testing.assert_array_equal(slide.obsm["back"], slide.obsm["hggep"])


def test_models_on_user_features_can_be_loaded(tmp_path):
    net = nn.FeatureHGGEPNet([3, 2], 2, dim=16, heads=2)
    model = HGGEP([net, net], ["A", "B"], Inputs("obsm", obsm=("X", "Y")), preset="mine")
    model.save(tmp_path / "model")
    back = HGGEP.load(tmp_path / "model")
    assert back.inputs == model.inputs
    assert back.encoder_state is None
    assert len(back.members) == 2
    assert repr(back) == repr(model)
    assert "2 genes from obsm 'X', 'Y'; 2 networks" in repr(back)


def test_id_depends_on_weights_genes_and_encoder():
    ids = [
        untrained().id,
        untrained(seed=1).id,
        untrained(("B", "A")).id,
        untrained(("A", "C")).id,
        untrained(encoder_state={"w": torch.ones(2)}).id,
        untrained(encoder_state={"w": torch.zeros(2)}).id,
        untrained(preset="other").id,
    ]
    assert len(set(ids)) == len(ids)
    assert untrained().id == ids[0]
    assert ids[0].startswith("hggep-custom-")


def test_genes_must_be_named_once_and_all():
    with pytest.raises(ValueError, match=r"genes of a model must be unique.*'A'"):
        untrained(("A", "A"))
    net = untrained().members[0]
    with pytest.raises(ValueError, match="predicts 2 genes, found 3 names"):
        HGGEP([net], ["A", "B", "C"], Inputs("patches"))


def test_a_missing_encoder_is_not_replaced_by_a_random_one(slides):
    net = nn.FeatureHGGEPNet([3], 2, dim=16, heads=2)
    model = HGGEP([net], ["A", "B"], Inputs("features", sizes_um=(100.0,)))
    with pytest.raises(ValueError, match=r"no weights of its encoder 'shufflenet'.*encoder_state"):
        tl.predict(slides[0], model, **QUIET)


@pytest.mark.parametrize(
    "change",
    [
        {"genes": ["A", "C"]},
        {"genes": ["B", "A"]},
        {"networks": []},
        {"networks": [{"class": "Unknown", "config": {}}]},
        {"networks": [{"class": "HGGEPNet", "config": {"n_genes": 2, "width": 3}}]},
        {"inputs": {"kind": "patches", "color": 1}},
        {"inputs": None},
        {"history": 3},
        {"id": "hggep-custom-0"},
    ],
)
def test_edited_records_are_refused(tmp_path, change):
    untrained().save(tmp_path / "model")
    edit_config(tmp_path / "model", **change)
    with pytest.raises(ValueError, match=r"model'.*do not belong together.*Save the model again") as error:
        HGGEP.load(tmp_path / "model")
    assert len(str(error.value)) < 500


@pytest.mark.parametrize("key", ["genes", "inputs", "networks", "preset", "training", "history", "id"])
def test_incomplete_records_are_refused(tmp_path, key):
    untrained().save(tmp_path / "model")
    config = json.loads((tmp_path / "model" / "config.json").read_text())
    del config[key]
    (tmp_path / "model" / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match=key):
        HGGEP.load(tmp_path / "model")


def test_weights_of_another_model(tmp_path):
    untrained().save(tmp_path / "one")
    untrained(seed=1).save(tmp_path / "two")
    weights = (tmp_path / "two" / "model.safetensors").read_bytes()
    (tmp_path / "one" / "model.safetensors").write_bytes(weights)
    with pytest.raises(ValueError, match="do not belong together"):
        HGGEP.load(tmp_path / "one")


def test_history_is_plain_json_and_can_be_loaded(tmp_path):
    history = pd.DataFrame(
        {"member": [1, 1], "epoch": [1, 2], "train_loss": [np.inf, 0.5], "val_pearson": [np.nan, 0.25]}
    )
    training = TrainingRecord(sections=["A"], mpp=[None], n_spots=[3], seed=0)
    untrained(history=history, training=training).save(tmp_path / "model")
    text = (tmp_path / "model" / "config.json").read_text()
    assert not {"NaN", "Infinity"} & set(text.replace(",", " ").split())
    back = HGGEP.load(tmp_path / "model")
    assert back.history["member"].tolist() == [1, 1]
    assert back.history["epoch"].tolist() == [1, 2]
    assert back.history["val_pearson"].isna().tolist() == [True, False]
    assert back.history["train_loss"].iloc[1] == 0.5
    assert back.training == training


def test_networks_and_epochs_of_former_models_count_from_one(tmp_path):
    """Files count both from 0, as those that earlier versions wrote do; the id, which covers them, stays the same."""
    history = pd.DataFrame({"member": [1, 1, 2], "epoch": [1, 2, 1], "train_loss": [2.0, 1.0, 3.0]})
    model = untrained(history=history)
    model.save(tmp_path / "model")
    record = json.loads((tmp_path / "model" / "config.json").read_text())
    assert record["history"]["epoch"] == [0, 1, 0]
    assert record["history"]["member"] == [0, 0, 1]
    assert history["epoch"].tolist() == [1, 2, 1]  # the model's own table is left alone
    for version in (3, 4):
        former = record | {"format": version, "id": record["id"] if version == 4 else None}
        (tmp_path / "model" / "config.json").write_text(json.dumps(former))
        back = HGGEP.load(tmp_path / "model")
        assert back.history["epoch"].tolist() == [1, 2, 1]
        assert back.history["member"].tolist() == [1, 1, 2]
        assert back.id == model.id == record["id"]
        back.save(tmp_path / f"again{version}")
        assert HGGEP.load(tmp_path / f"again{version}").history["epoch"].tolist() == [1, 2, 1]


def test_folders_for_a_model(tmp_path):
    empty = tmp_path / "empty"
    empty.mkdir()
    untrained().save(empty)
    assert HGGEP.load(empty).genes == ["A", "B"]
    other = tmp_path / "of another tool"
    other.mkdir()
    (other / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(FileExistsError, match="not a model of sthggep"):
        untrained().save(other, overwrite=True)
    assert (other / "config.json").read_text() == '{"model_type": "bert"}'


def test_names_and_folders(tmp_path, monkeypatch):
    untrained().save(tmp_path / "mine")
    assert HGGEP.from_pretrained(str(tmp_path / "mine")).genes == ["A", "B"]
    with pytest.raises(FileNotFoundError, match=r"No model is called 'her2st-v1'.*tl\.fit"):
        HGGEP.from_pretrained("her2st-v1")
    monkeypatch.chdir(tmp_path)
    assert HGGEP.from_pretrained("mine").id == HGGEP.load("mine").id


def test_a_model_of_an_earlier_format_is_read_under_present_names(model, slides, tmp_path):
    """Until format 3 tensors and record had British names."""
    from safetensors.torch import load_file, save_file

    model.save(tmp_path / "old")
    path = tmp_path / "old" / "config.json"
    config = json.loads(path.read_text())
    config["training"]["colours"] = config["training"].pop("colors")
    path.write_text(json.dumps(config | {"format": 2, "id": "hggep-default-of-other-names"}))
    tensors = load_file(tmp_path / "old" / "model.safetensors")
    old_tensors = {name.replace(".programs.", ".programmes."): value for name, value in tensors.items()}
    assert old_tensors.keys() != tensors.keys()
    save_file(old_tensors, tmp_path / "old" / "model.safetensors")
    loaded = sthggep.HGGEP.load(tmp_path / "old")
    assert loaded.training.colors == model.training.colors
    assert loaded.id == model.id
