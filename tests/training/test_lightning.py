"""Training of one network on tensors: losses, early stopping, options of Lightning, and side effects."""

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
    neighbors = spatial_neighbors(np.stack(np.divmod(np.arange(n), 5), axis=1), 5)
    features = torch.from_numpy(rng.standard_normal((n, 6)).astype(np.float32))
    slopes = torch.linspace(-1, 1, n_genes)
    target = 1 + 0.3 * features[:, :1] * slopes + 0.05 * torch.from_numpy(rng.standard_normal((n, n_genes))).float()
    counts = torch.from_numpy(rng.poisson(5, (n, n_genes)).astype(np.float32))
    every, none = torch.ones(n, dtype=torch.bool), torch.zeros(n, dtype=torch.bool)
    inputs = FeatureInputs([features], neighbors.rows, neighbors.offsets, spatial_incidence(neighbors.rows), n)
    masks = (none, every) if validate else (every, none)
    return SectionWindow.of_whole(name, inputs, target, counts, torch.ones(n), *masks)


def network(sections: list[SectionWindow], **options) -> FeatureHGGEPNet:
    torch.manual_seed(0)
    net = FeatureHGGEPNet([6], sections[0].target.shape[1], **({"dim": 16, "heads": 2, "rank": 2} | options))
    start_network(net, sections)
    return net


def fit(sections: list[SectionWindow], recipe: Recipe = RECIPE, seed: int = 0, **options):
    net = network(sections)
    return net, train_network(net, sections, recipe, seed=seed, device=CPU, **options)


@pytest.fixture
def pair() -> list[SectionWindow]:
    return [section("A"), section("B", seed=1, validate=True)]


# ---------------------------------------------------------------- losses


def test_parts_add_up_to_the_loss(pair):
    _, history = fit(pair)
    assert list(history)[:4] == ["epoch", "train_loss", "val_loss", "val_pearson"]
    assert history["epoch"].tolist() == [1, 2, 3]
    np.testing.assert_allclose(history["train_mse"] + history["train_correlation"], history["train_loss"], rtol=1e-6)
    assert np.isfinite(history).all(axis=None)


def test_weights_of_the_losses(pair):
    net = network(pair, count_head="zinb").eval()
    out = net(*pair[0].inputs)
    mask = pair[0].train
    losses = Training(net, replace(RECIPE, count_nll=1.0)).losses(pair[0], out, mask)
    weighted_losses = Training(net, replace(RECIPE, mse=2.0, correlation=3.0, count_nll=0.25)).losses(
        pair[0], out, mask
    )
    assert set(losses) == {"mse", "correlation", "counts"}
    for name, factor in {"mse": 2.0, "correlation": 3.0, "counts": 0.25}.items():
        assert weighted_losses[name].item() == pytest.approx(factor * losses[name].item(), rel=1e-5)
    expected = torch.nn.functional.mse_loss(out.expression, pair[0].target).item()
    assert losses["mse"].item() == pytest.approx(expected)


def test_both_count_heads_have_a_loss(pair):
    for head in ("zinb", "nb"):
        net = network(pair, count_head=head)
        history = train_network(net, pair, replace(RECIPE, count_nll=0.1, max_epochs=6), seed=0, device=CPU)
        assert history["train_counts"].iloc[-1] < history["train_counts"].iloc[0], head
    _, history = fit(pair, replace(RECIPE, count_nll=0.1))  # without a head there is no loss of the counts
    assert "train_counts" not in history


def test_training_uses_only_the_masked_spots():
    whole = section("A")
    train_on = torch.arange(25) < 15
    masked = whole._replace(train=train_on, validate=~train_on)
    variant = masked._replace(target=torch.where(train_on[:, None], masked.target, 99.0))
    recipe = replace(RECIPE, max_epochs=1)
    states = [fit([window], recipe)[0].state_dict() for window in (masked, variant)]
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    variant = masked._replace(target=torch.where(train_on[:, None], 99.0, masked.target))
    assert not torch.equal(fit([variant], recipe)[0].state_dict()["scores.weight"], states[0]["scores.weight"])


def test_training_sets_the_mode_of_the_network(pair):
    net = network(pair).eval()
    modes = []
    net.register_forward_pre_hook(lambda module, _: modes.append((module.training, module.drop.training)))
    train_network(net, pair, replace(RECIPE, max_epochs=2), seed=0, device=CPU)
    assert modes == [(True, True), (False, False)] * 2  # a training section and a validation section in each epoch
    assert not net.training


def test_few_sections_are_repeated_within_an_epoch():
    values = []
    sections = [section("A"), section("B", seed=1)]
    net = network(sections)
    net.register_forward_pre_hook(lambda _, inputs: values.append(inputs[0][0][0, 0].item()))
    train_network(net, sections, replace(RECIPE, max_epochs=1, min_steps=3), seed=0, device=CPU)
    assert sorted(values) == sorted(2 * [window.inputs[0][0][0, 0].item() for window in sections])


@pytest.mark.parametrize("fault", ["one spot", "no counts", "one gene", "constant"])
def test_no_nan_with_little_data(pair, fault):
    poor = section("poor", n=1 if fault == "one spot" else 25, seed=2, n_genes=1 if fault == "one gene" else 4)
    if fault == "no counts":
        poor = poor._replace(train=torch.zeros(25, dtype=torch.bool), counts=torch.zeros(25, 4))
    if fault == "constant":
        poor = poor._replace(target=torch.ones(25, 4))
    rest = [] if fault == "one gene" else pair
    net, history = fit([*rest, poor])
    assert np.isfinite(history).all(axis=None)
    with torch.no_grad():
        assert torch.isfinite(net(*poor.inputs).expression).all()


# ---------------------------------------------------------------- length


def fit_with_figures(monkeypatch, sections, figures, **recipe):
    """Train with prescribed validation correlations."""
    queue = list(figures)
    step = Training.validation_step

    def step_with_figure(self, batch, index):
        with monkeypatch.context() as patch:
            patch.setattr(_training, "correlation_loss", lambda *_: torch.tensor(1 - queue.pop(0)))
            step(self, batch, index)
        weights.append(self.net.scores.weight.detach().clone())

    weights: list[torch.Tensor] = []
    monkeypatch.setattr(Training, "validation_step", step_with_figure)
    net, history = fit(sections, replace(RECIPE, correlation=0.0, max_epochs=len(figures), **recipe))
    return net, history, weights


def test_training_stops_after_patience_and_restores_the_best_epoch(monkeypatch, pair):
    figures = [0.1, 0.3, 0.2, 0.25, 0.29, 0.9]
    net, history, weights = fit_with_figures(monkeypatch, pair, figures, patience=3)
    assert history["val_pearson"].tolist() == pytest.approx(figures[:5])
    assert torch.equal(net.scores.weight, weights[1])
    assert not torch.equal(net.scores.weight, weights[4])


def test_all_epochs_run_while_the_correlation_rises(monkeypatch, pair):
    net, history, weights = fit_with_figures(monkeypatch, pair, [0.1, 0.2, 0.3, 0.4], patience=1)
    assert len(history) == 4
    assert torch.equal(net.scores.weight, weights[3])


def test_nothing_held_out_runs_all_epochs():
    _, history = fit([section("A")], replace(RECIPE, max_epochs=5, patience=1))
    assert history["epoch"].tolist() == [1, 2, 3, 4, 5]
    assert not {"val_loss", "val_pearson"} & set(history)


def test_early_stopping_uses_held_out_spots_only():
    """If blocks of a section are held out, validation loss and correlation are those of the blocks."""
    whole = section("A")
    held_out = torch.arange(25) % 3 == 0
    blocks = whole._replace(train=~held_out, validate=held_out)
    net, history = fit([blocks], replace(RECIPE, max_epochs=1))
    with torch.no_grad():
        predicted = net(*blocks.inputs).expression.double().numpy()
    truth = blocks.target.double().numpy()

    def figures(at: np.ndarray) -> tuple[float, float]:
        pearson = np.mean([np.corrcoef(x, y)[0, 1] for x, y in zip(predicted[at].T, truth[at].T, strict=True)])
        return pearson, np.square(predicted[at] - truth[at]).mean() + 1 - pearson

    (validation,) = history[["val_pearson", "val_loss"]].to_numpy().tolist()
    assert validation == pytest.approx(figures(held_out.numpy()), abs=1e-5)
    assert np.abs(np.subtract(figures(held_out.numpy()), figures(np.ones(25, dtype=bool)))).min() > 1e-3


# ---------------------------------------------------------------- randomness


def test_the_seed_determines_the_weights(pair):
    expected, other = fit(pair)[0].state_dict(), fit(pair, seed=1)[0].state_dict()
    repeat = fit(pair)[0].state_dict()
    assert all(torch.equal(expected[name], repeat[name]) for name in expected)
    assert not torch.equal(expected["scores.weight"], other["scores.weight"])


def test_training_does_not_change_the_state_of_the_process(pair, tmp_path, monkeypatch, capfd):
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


def test_trainer_options_reach_lightning(pair):
    _, history = fit(pair, trainer_kwargs={"max_epochs": 1})
    assert len(history) == 1
    with pytest.raises(TypeError, match="no_such_option"):
        fit(pair, trainer_kwargs={"no_such_option": 1})


@pytest.mark.parametrize("wrap", [list, lambda callbacks: callbacks[0]])
def test_callbacks_of_the_user_are_added(monkeypatch, pair, wrap):
    counter = Counter()
    options = {"callbacks": wrap([counter])}
    figures = [0.5, 0.4, 0.3, 0.2]
    queue = list(figures)
    monkeypatch.setattr(_training, "correlation_loss", lambda *_: torch.tensor(1 - queue.pop(0)))
    recipe = replace(RECIPE, correlation=0.0, max_epochs=4, patience=2)
    _, history = fit(pair, recipe, trainer_kwargs=options)
    assert counter.epochs == len(history) == 3  # early stopping still works
    assert list(options) == ["callbacks"]


class RecordingBar:
    def __init__(self) -> None:
        self.n, self.records = 0, []

    def update(self, steps, figures) -> None:
        self.n += steps
        self.records.append(figures)


def test_progress_shows_loss_and_validation(pair):
    bar = RecordingBar()
    _, history = fit(pair, bar=bar)
    assert bar.n == 3
    assert set(bar.records[-1]) == {"loss", "validation PCC"}
    assert bar.records[-1]["loss"] == pytest.approx(history["train_loss"].iloc[-1])


@pytest.mark.parametrize(
    ("precision", "faster", "expected"),
    [("auto", True, "bf16-mixed"), ("auto", False, "32-true"), ("16-mixed", True, "16-mixed")],
)
def test_precision(monkeypatch, precision, faster, expected):
    monkeypatch.setattr(_training, "faster_in_bf16", lambda _: faster)
    assert _training._precision(precision, CPU) == expected


def test_step_schedule(pair):
    module = Training(network(pair), replace(RECIPE, step_epochs=2, step_factor=0.5))
    optimizers = module.configure_optimizers()
    rates = []
    for _ in range(5):
        rates.append(optimizers["optimizer"].param_groups[0]["lr"])
        optimizers["optimizer"].step()
        optimizers["lr_scheduler"].step()
    assert rates == pytest.approx([1e-3, 1e-3, 5e-4, 5e-4, 2.5e-4])
