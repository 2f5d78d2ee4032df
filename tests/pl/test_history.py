from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from sthggep import pl


@pytest.fixture
def ensemble() -> pd.DataFrame:
    """Two members, of four and three epochs; the best are epochs 3 (0.30) and 2 (0.20)."""
    return pd.DataFrame(
        {
            "member": [0, 0, 0, 0, 1, 1, 1],
            "epoch": [1, 2, 3, 4, 1, 2, 3],
            "train_loss": [4.0, 3, 2, 1, 5, 4, 3],
            "val_loss": [4.5, 3.5, 3.2, 3.4, 5.5, 4.5, 4.2],
            "val_pearson": [0.1, 0.2, 0.3, 0.25, 0.1, 0.2, 0.15],
        }
    )


def lines(ax) -> dict[str, tuple[list[float], list[float]]]:
    return {
        line.get_label(): (list(line.get_xdata()), list(line.get_ydata()))
        for line in ax.lines
        if not line.get_label().startswith("_")
    }


KEPT, STOPPED = "epoch kept (best validation correlation)", "training stopped"


def legend(figure) -> list[str]:
    return [text.get_text() for text in figure.legends[0].get_texts()]


def test_members_their_mean_and_the_best_epochs(ensemble: pd.DataFrame):
    figure = pl.history(ensemble)
    loss, pearson = figure.axes
    assert len(loss.lines) == 2 * 3 + 2  # two members and a mean, twice; the best epochs and the last ones
    loss_lines = lines(loss)
    assert loss_lines["training, mean of 2"] == ([1, 2, 3], [4.5, 3.5, 2.5])  # epochs that both reached
    assert loss_lines["validation, mean of 2"][1] == pytest.approx([5.0, 4.0, 3.7])
    assert loss_lines[KEPT] == ([3, 2], [3.2, 4.5])
    assert loss_lines[STOPPED] == ([4, 3], [3.4, 4.2])
    assert lines(pearson)[KEPT] == ([3, 2], [0.3, 0.2])
    assert lines(pearson)[STOPPED] == ([4, 3], [0.25, 0.15])
    assert legend(figure) == ["training, mean of 2", "validation, mean of 2", KEPT, STOPPED]
    assert pearson.get_title() == "Validation: 0.250 at the epochs kept (2–3)"
    assert "Pearson" in pearson.get_ylabel()
    assert [loss.get_xlabel(), pearson.get_xlabel()] == ["epoch", "epoch"]


def test_one_member_or_none_named(ensemble: pd.DataFrame):
    one_member = ensemble[ensemble["member"] == 0]
    for table in (one_member, one_member.drop(columns="member")):
        loss, pearson = pl.history(table).axes
        assert lines(loss)["training"] == ([1, 2, 3, 4], [4, 3, 2, 1])
        assert pearson.get_title() == "Validation: 0.300 at the epoch kept (3)"


def test_without_validation_the_last_epoch_is_marked(ensemble: pd.DataFrame):
    empty = ensemble.assign(val_loss=np.nan, val_pearson=np.nan)
    for table, last in ((empty, ([4, 3], [1, 3])), (ensemble[["epoch", "train_loss"]].iloc[:4], ([4], [1]))):
        figure = pl.history(table)
        (loss,) = figure.axes
        assert lines(loss)["epoch kept (the last: nothing was held out)"] == last
        assert not any("validation" in label or label == STOPPED for label in legend(figure))


def test_model(ensemble: pd.DataFrame, tmp_path):
    figure = pl.history(SimpleNamespace(history=ensemble), save=tmp_path / "history.png")
    assert len(figure.axes) == 2
    assert (tmp_path / "history.png").exists()


def test_errors(ensemble: pd.DataFrame):
    with pytest.raises(ValueError, match=r"tl\.fit"):
        pl.history(SimpleNamespace(history=pd.DataFrame()))
    with pytest.raises(TypeError, match=r"`history` must be an HGGEP or DataFrame, found \[1, 2\]"):
        pl.history([1, 2])
    with pytest.raises(KeyError, match="lacks 'train_loss'"):
        pl.history(ensemble.drop(columns="train_loss"))
    with pytest.raises(ValueError, match="empty"):
        pl.history(ensemble.iloc[:0])
