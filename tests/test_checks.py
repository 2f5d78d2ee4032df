"""Checks of arguments, and their messages: what was expected, what was found, what there is."""

from __future__ import annotations

import warnings

import anndata as ad
import numpy as np
import pytest

from sthggep._checks import (
    counted,
    genes_present,
    has_key,
    listing,
    may_write,
    no_slide,
    one_of,
    other_species,
    positive,
    unique,
    unique_names,
)
from sthggep._keys import feature_key, prediction_keys


def test_listing_shortens_long_lists():
    assert listing([]) == "nothing"
    assert listing(["a", "b"]) == "'a', 'b'"
    assert listing(range(5), limit=2) == "'0', '1', … (5 in all)"


def test_counted_things_have_their_number():
    assert [counted(n, "section") for n in (0, 1, 2)] == ["0 sections", "1 section", "2 sections"]
    assert counted(["a"], "gene") == "1 gene"
    assert counted([1, 2], "copy", "copies") == "2 copies"


def test_one_of_suggests_the_nearest():
    assert one_of("default", ["default", "paper"], "preset") == "default"
    with pytest.raises(
        ValueError, match=r"Unknown preset 'defualt'\. Did you mean 'default'\? There is: 'default', 'paper'"
    ):
        one_of("defualt", ["default", "paper"], "preset")
    with pytest.raises(ValueError, match=r"Unknown preset 'xyz'\. There is"):
        one_of("xyz", ["default", "paper"], "preset")


def test_one_of_names_the_place_of_the_choices():
    with pytest.raises(ValueError, match=r"Unknown section 'Z'\. In here there is: '0', '1', … \(3 in all\)\."):
        one_of("Z", ["0", "1", "2"], "section", where="here", limit=2)


def test_has_key_names_the_keys_and_the_call_to_make_first():
    assert has_key({"a": 3}, "a", "obsm") == 3
    with pytest.raises(KeyError, match=r"'b' is not in obsm, which holds 'a'\. Call `f` first\."):
        has_key({"a": 3}, "b", "obsm", "Call `f` first.")
    with pytest.raises(KeyError, match="which holds nothing"):
        has_key({}, "b", "obsm")


def test_x_is_not_named_among_the_layers():
    """Newer versions of anndata hold ``X`` as ``layers[None]``."""
    with pytest.raises(KeyError, match=r"'counts' is not in layers, which holds 'raw'\."):
        has_key({None: 1, "raw": 2}, "counts", "layers")


@pytest.mark.parametrize("value", [0, -2, np.nan, np.inf])
def test_positive(value: float):
    assert positive(0.5, "`mpp`") == 0.5
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)
        assert positive(np.float32(0.5), "`mpp`") == 0.5
    with pytest.raises(ValueError, match="`mpp` must be a positive number, found"):
        positive(value, "`mpp`")


def test_unique_counts_duplicated_names():
    unique(["a", "b"], "Names", "Fix them.")
    with pytest.raises(ValueError, match=r"Names must be unique, but found more than once: 'a', 'b'\. Fix them\."):
        unique(["a", "b", "c", "b", "a", "a"], "Names", "Fix them.")


@pytest.mark.filterwarnings("ignore:.*names are not unique")
@pytest.mark.parametrize(("names", "words"), [("obs_names", "Spot names"), ("var_names", "Gene names")])
def test_unique_names(names: str, words: str):
    adata = ad.AnnData(np.zeros((3, 3), np.float32))
    unique_names(adata)
    setattr(adata, names, ["x", "x", "y"])
    with pytest.raises(ValueError, match=f"{words}.*'x'.*{names}_make_unique"):
        unique_names(adata)


def test_genes_present():
    np.testing.assert_array_equal(genes_present(["c", "a"], ["a", "b", "c"]), [2, 0])
    with pytest.raises(
        KeyError, match=r"2 of 3 genes are not in var_names: 'X', 'Y'\. There are 2 genes, such as 'a', 'b'"
    ):
        genes_present(["a", "X", "Y"], ["a", "b"])
    with pytest.raises(ValueError, match="gene list is empty"):
        genes_present([], ["a"])


@pytest.mark.parametrize("places", ["obsm", "uns", "both"])
def test_only_what_sthggep_wrote_is_overwritten(places: str):
    adata = ad.AnnData(np.zeros((3, 1), np.float32))
    may_write(adata, "key")
    if places in ("obsm", "both"):
        adata.obsm["key"] = np.zeros((3, 2))
    if places in ("uns", "both"):
        adata.uns["key"] = {"tool": "another"}
    with pytest.raises(ValueError, match=r"'key' exists already and sthggep did not write it.*`key_added=`"):
        may_write(adata, "key")
    adata.uns["key"] = {"tool": "sthggep"}
    may_write(adata, "key")


def test_names_that_are_written():
    keys = prediction_keys("mine")
    assert (keys.obsm, keys.uns, keys.scores, keys.latent) == ("mine", "mine", "mine_scores", "X_mine")
    assert feature_key("shufflenet", 160.0) == "X_shufflenet_160"
    assert feature_key("shufflenet", 82.5) == "X_shufflenet_82.5"
    assert feature_key("shufflenet", 112, "px") == "X_shufflenet_112px"


def test_readers_of_files_and_folders(tmp_path):
    (tmp_path / "sample" / "spatial").mkdir(parents=True)
    readers = {
        "a.h5ad": "Read the file first: `anndata.read_h5ad`.",
        "a.zarr": "`spatialdata.read_zarr`, or `anndata.read_zarr`",
        "a.svs": "`sthggep.io.read_slide`",
        "sample": "`squidpy.read.visium` reads a folder of Space Ranger",
        "a": "of a folder of Space Ranger `squidpy.read.visium`, or of a bare image `sthggep.io.read_slide`",
    }
    for name, call in readers.items():
        assert call in str(no_slide(tmp_path / name))


HUMAN, MOUSE = ["FASN", "ERBB2", "C1orf112", "MT-CO1", "HLA-A"], ["Fasn", "Erbb2", "0610007P14Rik", "mt-Co1", "H2-K1"]


def test_species_by_the_spelling_of_genes():
    told = other_species(HUMAN, [*MOUSE, "Actb", "Cd74"])
    assert told.startswith(
        "They are written as genes of human (FASN), but the names here as those of mouse or rat (Fasn)."
    )
    assert "human (FASN)" in other_species(MOUSE[:4], HUMAN)
    ids = ["ENSMUSG00000051951", "ENSMUSG00000089699.1"]
    assert "mouse or rat (ENSMUSG00000051951)" in other_species(ids, ["ENSG00000141736"])
    # One species, no gene names, and mixed spellings tell nothing
    assert not other_species(HUMAN, ["TP53", "KRT8"])
    assert not other_species(HUMAN, ["a", "b1", "x"])
    assert not other_species(HUMAN, ["Fasn", "Actb", "TP53", "KRT8"])
    assert not other_species([], MOUSE)


def test_near_names_of_another_species_are_those_of_the_same_letters():
    with pytest.raises(KeyError, match=r"Near names: 'FASN': Fasn\. There are 3 genes") as caught:
        genes_present(["FASN", "FAT1"], ["Fasn", "Actb", "Fat2"])
    assert "'FAT1':" not in str(caught.value)
    assert "or rename the genes to their orthologs" in str(caught.value)
    assert "Check the naming" not in str(caught.value)
