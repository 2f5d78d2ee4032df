"""One network trained on tensors: losses, stopping, what Lightning is told and what it may leave behind."""

from __future__ import annotations

import logging
import os
from dataclasses import replace

import numpy as np
import pytest
import torch
from lightning.pytorch.callbacks import Callback

from sthggep._inputs._section import SectionWindow
from sthggep._training import _lightning as _training
from sthggep._training._lightning import Training, train_network
from sthggep._training._networks import start_network
from sthggep._training._presets import Recipe
from sthggep.nn import FeatureHGGEPNet, spatial_incidence, spatial_neighbors
from sthggep.nn._section import FeatureInputs

CPU = torch.device("cpu")
RECIPE = Recipe(max_epochs=3, learning_rate=1e-3, correlation=1.0)


def section(name: str, n: int = 25, seed: int = 0, *, validate: bool = False, n_genes: int = 4) -> SectionWindow:
    """Spots of a square whose expression follows their first feature."""
    rng = np.random.default_rng(seed)
    near = spatial_neighbors(np.stack(np.divmod(np.arange(n), 5), axis=1), 5)
    features = torch.from_numpy(rng.standard_normal((n, 6)).astype(np.float32))
    slopes = torch.linspace(-1, 1, n_genes)
    target = 1 + 0.3 * features[:, :1] * slopes + 0.05 * torch.from_numpy(rng.standard_normal((n, n_genes))).float()
    counts = torch.from_numpy(rng.poisson(5, (n, n_genes)).astype(np.float32))
    yes, no = torch.ones(n, dtype=torch.bool), torch.zeros(n, dtype=torch.bool)
    inputs = FeatureInputs([features], near.rows, near.offsets, spatial_incidence(near.rows), n)
    masks = (no, yes) if validate else (yes, no)
    return SectionWindow.of_whole(name, inputs, target, counts, torch.ones(n), *masks)


def network(sections: list[SectionWindow], **options) -> FeatureHGGEPNet:
    torch.manual_seed(0)
    net = FeatureHGGEPNet([6], sections[0].target.shape[1], **({"dim": 16, "heads": 2, "rank": 2} | options))
    start_network(net, sections)
    return net


def fitted(sections: list[SectionWindow], recipe: Recipe = RECIPE, seed: int = 0, **options):
    net = network(sections)
    return net, train_network(net, sections, recipe, seed=seed, device=CPU, **options)


@pytest.fixture
def pair() -> list[SectionWindow]:
    return [section("A"), section("B", seed=1, validate=True)]


# ---------------------------------------------------------------- losses


def test_parts_add_up_to_the_loss(pair):
    _, history = fitted(pair)
    assert list(history)[:4] == ["epoch", "train_loss", "val_loss", "val_pearson"]
    assert history["epoch"].tolist() == [0, 1, 2]
    np.testing.assert_allclose(history["train_mse"] + history["train_correlation"], history["train_loss"], rtol=1e-6)
    assert np.isfinite(history).all(axis=None)


def test_weights_of_the_losses(pair):
    net = network(pair, count_head="zinb").eval()
    out = net(*pair[0].inputs)
    everything = pair[0].train
    once = Training(net, replace(RECIPE, count_nll=1.0)).losses(pair[0], out, everything)
    twice = Training(net, replace(RECIPE, mse=2.0, correlation=3.0, count_nll=0.25)).losses(pair[0], out, everything)
    assert set(once) == {"mse", "correlation", "counts"}
    for name, factor in {"mse": 2.0, "correlation": 3.0, "counts": 0.25}.items():
        assert twice[name].item() == pytest.approx(factor * once[name].item(), rel=1e-5)
    expected = torch.nn.functional.mse_loss(out.expression, pair[0].target).item()
    assert once["mse"].item() == pytest.approx(expected)


def test_both_count_heads_are_learned_from(pair):
    for head in ("zinb", "nb"):
        net = network(pair, count_head=head)
        history = train_network(net, pair, replace(RECIPE, count_nll=0.1, max_epochs=6), seed=0, device=CPU)
        assert history["train_counts"].iloc[-1] < history["train_counts"].iloc[0], head
    _, history = fitted(pair, replace(RECIPE, count_nll=0.1))  # without a head there is nothing to learn
    assert "train_counts" not in history


def test_only_the_masked_spots_are_learned_from():
    whole = section("A")
    train_on = torch.arange(25) < 15
    one = whole._replace(train=train_on, validate=~train_on)
    spoiled = one._replace(target=torch.where(train_on[:, None], one.target, 99.0))
    recipe = replace(RECIPE, max_epochs=1)
    found = [fitted([given], recipe)[0].state_dict() for given in (one, spoiled)]
    assert all(torch.equal(found[0][name], found[1][name]) for name in found[0])
    spoiled = one._replace(target=torch.where(train_on[:, None], 99.0, one.target))
    assert not torch.equal(fitted([spoiled], recipe)[0].state_dict()["scores.weight"], found[0]["scores.weight"])


def test_training_mode_whatever_the_network_came_in(pair):
    net = network(pair).eval()
    modes = []
    net.register_forward_pre_hook(lambda module, _: modes.append((module.training, module.drop.training)))
    train_network(net, pair, replace(RECIPE, max_epochs=2), seed=0, device=CPU)
    assert modes == [(True, True), (False, False)] * 2  # a training section, a validation section, an epoch each
    assert not net.training


def test_few_sections_are_gone_through_several_times():
    seen = []
    both = [section("A"), section("B", seed=1)]
    net = network(both)
    net.register_forward_pre_hook(lambda _, given: seen.append(given[0][0][0, 0].item()))
    train_network(net, both, replace(RECIPE, max_epochs=1, min_steps=3), seed=0, device=CPU)
    assert sorted(seen) == sorted(2 * [one.inputs[0][0][0, 0].item() for one in both])


@pytest.mark.parametrize("fault", ["one spot", "no counts", "one gene", "constant"])
def test_no_nan_where_there_is_little_to_learn(pair, fault):
    poor = section("poor", n=1 if fault == "one spot" else 25, seed=2, n_genes=1 if fault == "one gene" else 4)
    if fault == "no counts":
        poor = poor._replace(train=torch.zeros(25, dtype=torch.bool), counts=torch.zeros(25, 4))
    if fault == "constant":
        poor = poor._replace(target=torch.ones(25, 4))
    rest = [] if fault == "one gene" else pair
    net, history = fitted([*rest, poor])
    assert np.isfinite(history).all(axis=None)
    with torch.no_grad():
        assert torch.isfinite(net(*poor.inputs).expression).all()


# ---------------------------------------------------------------- length


def scripted(monkeypatch, sections, figures, **recipe):
    """Train with validation figures that were written beforehand."""
    queue = list(figures)
    step = Training.validation_step

    def told(self, batch, index):
        with monkeypatch.context() as patched:
            patched.setattr(_training, "correlation_loss", lambda *_: torch.tensor(1 - queue.pop(0)))
            step(self, batch, index)
        weights.append(self.net.scores.weight.detach().clone())

    weights: list[torch.Tensor] = []
    monkeypatch.setattr(Training, "validation_step", told)
    net, history = fitted(sections, replace(RECIPE, correlation=0.0, max_epochs=len(figures), **recipe))
    return net, history, weights


def test_stops_after_patience_and_goes_back_to_the_best(monkeypatch, pair):
    figures = [0.1, 0.3, 0.2, 0.25, 0.29, 0.9]
    net, history, weights = scripted(monkeypatch, pair, figures, patience=3)
    assert history["val_pearson"].tolist() == pytest.approx(figures[:5])
    assert torch.equal(net.scores.weight, weights[1])
    assert not torch.equal(net.scores.weight, weights[4])


def test_all_epochs_run_while_it_gets_better(monkeypatch, pair):
    net, history, weights = scripted(monkeypatch, pair, [0.1, 0.2, 0.3, 0.4], patience=1)
    assert len(history) == 4
    assert torch.equal(net.scores.weight, weights[3])


def test_nothing_held_out_runs_all_epochs():
    _, history = fitted([section("A")], replace(RECIPE, max_epochs=5, patience=1))
    assert history["epoch"].tolist() == [0, 1, 2, 3, 4]
    assert not {"val_loss", "val_pearson"} & set(history)


def test_early_stopping_looks_at_held_out_spots_alone():
    """Where blocks of a training section are held out, validation loss and correlation are those of the blocks."""
    whole = section("A")
    held_out = torch.arange(25) % 3 == 0
    blocks = whole._replace(train=~held_out, validate=held_out)
    net, history = fitted([blocks], replace(RECIPE, max_epochs=1))
    with torch.no_grad():
        predicted = net(*blocks.inputs).expression.double().numpy()
    truth = blocks.target.double().numpy()

    def figures(at: np.ndarray) -> tuple[float, float]:
        pearson = np.mean([np.corrcoef(x, y)[0, 1] for x, y in zip(predicted[at].T, truth[at].T, strict=True)])
        return pearson, np.square(predicted[at] - truth[at]).mean() + 1 - pearson

    (found,) = history[["val_pearson", "val_loss"]].to_numpy().tolist()
    assert found == pytest.approx(figures(held_out.numpy()), abs=1e-5)
    assert np.abs(np.subtract(figures(held_out.numpy()), figures(np.ones(25, dtype=bool)))).min() > 1e-3


# ---------------------------------------------------------------- randomness


def test_seed_decides(pair):
    same, other = fitted(pair)[0].state_dict(), fitted(pair, seed=1)[0].state_dict()
    again = fitted(pair)[0].state_dict()
    assert all(torch.equal(same[name], again[name]) for name in same)
    assert not torch.equal(same["scores.weight"], other["scores.weight"])


def test_nothing_of_the_process_is_changed(pair, tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    environment = dict(os.environ)
    levels = {name: logging.getLogger(name).level for name in ("lightning.pytorch", "lightning.fabric", "lightning")}
    net = network(pair)
    state = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    train_network(net, pair, RECIPE, seed=5, device=CPU)
    assert torch.equal(torch.get_rng_state(), state[0])
    np.testing.assert_array_equal(np.random.get_state()[1], state[1])  # noqa: NPY002
    assert dict(os.environ) == environment
    assert {name: logging.getLogger(name).level for name in levels} == levels
    assert list(tmp_path.iterdir()) == []
    assert capfd.readouterr() == ("", "")


# ---------------------------------------------------------------- the Trainer


class Counter(Callback):
    def __init__(self) -> None:
        self.epochs = 0

    def on_train_epoch_end(self, *_) -> None:
        self.epochs += 1


def test_trainer_options_arrive(pair):
    _, history = fitted(pair, trainer_kwargs={"max_epochs": 1})
    assert len(history) == 1
    with pytest.raises(TypeError, match="no_such_option"):
        fitted(pair, trainer_kwargs={"no_such_option": 1})


@pytest.mark.parametrize("wrap", [list, lambda given: given[0]])
def test_callbacks_stand_beside_ours(monkeypatch, pair, wrap):
    counter = Counter()
    options = {"callbacks": wrap([counter])}
    figures = [0.5, 0.4, 0.3, 0.2]
    queue = list(figures)
    monkeypatch.setattr(_training, "correlation_loss", lambda *_: torch.tensor(1 - queue.pop(0)))
    recipe = replace(RECIPE, correlation=0.0, max_epochs=4, patience=2)
    _, history = fitted(pair, recipe, trainer_kwargs=options)
    assert counter.epochs == len(history) == 3  # stopped early all the same
    assert list(options) == ["callbacks"]


class Told:
    def __init__(self) -> None:
        self.n, self.shown = 0, []

    def update(self, steps, shown) -> None:
        self.n += steps
        self.shown.append(shown)


def test_epochs_are_told_with_loss_and_validation(pair):
    told = Told()
    _, history = fitted(pair, bar=told)
    assert told.n == 3
    assert set(told.shown[-1]) == {"loss", "validation PCC"}
    assert told.shown[-1]["loss"] == pytest.approx(history["train_loss"].iloc[-1])


@pytest.mark.parametrize(
    ("asked", "faster", "expected"),
    [("auto", True, "bf16-mixed"), ("auto", False, "32-true"), ("16-mixed", True, "16-mixed")],
)
def test_precision(monkeypatch, asked, faster, expected):
    monkeypatch.setattr(_training, "faster_in_bf16", lambda _: faster)
    assert _training._precision(asked, CPU) == expected


def test_step_schedule(pair):
    module = Training(network(pair), replace(RECIPE, step_epochs=2, step_factor=0.5))
    found = module.configure_optimizers()
    rates = []
    for _ in range(5):
        rates.append(found["optimizer"].param_groups[0]["lr"])
        found["optimizer"].step()
        found["lr_scheduler"].step()
    assert rates == pytest.approx([1e-3, 1e-3, 5e-4, 5e-4, 2.5e-4])
