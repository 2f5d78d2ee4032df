"""Results in an AnnData: all of a call, or none."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from anndata import AnnData

from sthggep._slides import _results
from sthggep._slides._results import write_results


@pytest.fixture
def table() -> AnnData:
    adata = AnnData(np.zeros((3, 1), np.float32), obsm={"old": np.ones((3, 2)), "other": np.ones((3, 1))})
    adata.obs["cluster"] = ["a", "b", "c"]
    adata.uns["old"] = {"note": "earlier"}
    return adata


def contents(adata: AnnData) -> dict[str, object]:
    return {
        "obsm": {key: value.tolist() for key, value in adata.obsm.items()},
        "obs": adata.obs.to_dict("list"),
        "uns": dict(adata.uns),
    }


def write(table: AnnData) -> None:
    write_results(
        table,
        obsm={"old": np.zeros((3, 2)), "new": np.zeros((3, 4))},
        obs={"cluster": ["x", "y", "z"], "more": [1, 2, 3]},
        uns={"old": {"note": "now"}, "new": {}},
        without=["other", "absent"],
    )


def steps() -> Iterator[int]:
    """Numbers of the times that a field is opened for a change."""
    yield from range(1, 7)


@pytest.mark.parametrize("step", [*steps()])
@pytest.mark.parametrize("view", [False, True])
def test_an_interrupt_leaves_nothing_half(table: AnnData, monkeypatch: pytest.MonkeyPatch, step: int, view: bool):
    table = table[:] if view else table
    before, values_of, opened = contents(table), _results.values_of, []

    def interrupted(adata: AnnData, field: str):
        opened.append(field)
        # Some openings before the first change read what was there
        if len(opened) == step + 4:
            raise KeyboardInterrupt
        return values_of(adata, field)

    monkeypatch.setattr(_results, "values_of", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write(table)
    assert contents(table) == before


def test_without_an_interrupt_all_is_there(table: AnnData):
    write(table)
    assert set(table.obsm) == {"old", "new"}
    assert table.obs["cluster"].tolist() == ["x", "y", "z"]
    assert table.obs["more"].tolist() == [1, 2, 3]
    assert table.uns["old"] == {"note": "now"}
    assert table.uns["new"] == {}
