"""Fine-tuning: what a new model keeps of its parent, and the networks that its training starts from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import deepcopy
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor, nn

    from sthggep._inputs._section import SectionWindow
    from sthggep._training._presets import Preset
    from sthggep.model import HGGEP
    from sthggep.nn import ClosedFormNet, HGGEPNet

RELATIVE_LEARNING_RATE = 0.1  # learning rate of fine-tuning, as a fraction of the preset's


def open_parent(
    model: HGGEP | str | Path, preset: str, genes: Sequence[str] | None, model_options: Mapping[str, object]
) -> tuple[HGGEP, Preset, list[str]]:
    """Load the model to fine-tune, and return it with its preset and the genes to train on.

    Parameters
    ----------
    model
        The model, its name or its folder.
    preset
        Name of the preset that the user passed.
    genes
        Genes that the user passed.
    model_options
        Options that the model has fixed; one that is not ``None`` is refused.
    """
    from sthggep._training._refusals import refuse_target_model
    from sthggep.model._load import load_model

    parent = load_model(model)
    refuse_target_model(parent)
    parent_preset = fine_tuning_preset(parent, preset)
    refuse_model_options(**model_options)
    return parent, parent_preset, fine_tuning_genes(parent, genes)


def fine_tuning_preset(parent: HGGEP, preset: str) -> Preset:
    """Make the preset of a fine-tuning: the model's inputs and networks, and their recipe at a lower learning rate."""
    from dataclasses import replace

    from sthggep._training._presets import PRESETS

    network = type(parent.members[0]).__name__
    if preset not in ("default", parent.preset):
        msg = (
            f"Fine-tuning keeps the preset of `model`, {parent.preset!r}, but `preset={preset!r}` was passed. "
            "Leave `preset` out, or leave `model` out to train a new model."
        )
        raise ValueError(msg)
    # A closed form is what is left of the default preset where networks earned no share
    trained = "FeatureHGGEPNet" if network == "ClosedFormNet" else network
    same_network = [entry for entry in PRESETS.values() if entry.network == trained]
    base = PRESETS.get(parent.preset, same_network[0])
    recipe = base.recipe if base.network == trained else same_network[0].recipe
    return replace(
        base,
        inputs=parent.inputs,
        network=network,
        recipe=replace(recipe, learning_rate=recipe.learning_rate * RELATIVE_LEARNING_RATE),
        n_members=len(parent.members),
        net={"n_neighbors": getattr(parent.members[0], "n_neighbors", 1)},
    )


def refuse_model_options(**options: object) -> None:
    """Refuse options that the model to fine-tune has fixed."""
    passed = [f"`{name}`" for name, value in options.items() if value is not None]
    if passed:
        msg = (
            f"Fine-tuning keeps the inputs of `model`, but you passed {', '.join(passed)}. Leave that out, or leave `model` "
            "out to train a new model."
        )
        raise ValueError(msg)


def fine_tuning_genes(parent: HGGEP, genes: Sequence[str] | None) -> list[str]:
    """Return the genes to train on: those of the model, or some of them."""
    from sthggep._checks import gene_list, genes_present
    from sthggep._table._gene_names import as_named

    if genes is None:
        return parent.genes
    panel = as_named(gene_list(genes), parent.genes)
    genes_present(panel, parent.genes, "the model that you fine-tune (fine-tuning cannot add genes)")
    return panel


def update_model(
    parent: HGGEP,
    genes: Sequence[str],
    windows: Sequence[SectionWindow],
    parts: Sequence[Sequence[SectionWindow]],
) -> tuple[list[ClosedFormNet], list[ClosedFormNet]]:
    """Update all networks of a model with a closed form by the training spots of new sections.

    Parameters
    ----------
    parent
        The model, which does not change.
    genes
        Genes to keep.
    windows
        Windows of the new sections.
    parts
        The same windows, with some of the training spots each.

    Returns
    -------
    The updated networks; and for each part its first network, updated by the training spots of this part. It stands for
    all: their changes are the same.
    """
    import torch

    from sthggep._training._update import MOST_SPOTS, MOST_SPOTS_OF_PART, read_measured, update_members

    columns = [parent.genes.index(gene) for gene in genes]
    whole_panel = sorted(columns) == list(range(len(parent.genes)))
    members: list[Any] = list(parent.members)
    if list(genes) != parent.genes:
        members = [with_genes(member, columns).eval() for member in members]
    tissue, solved = read_measured(members, windows), []
    for part in parts:
        rows = torch.cat([some.train[all_.train] for all_, some in zip(windows, part, strict=True)])
        measured = tissue.take(MOST_SPOTS_OF_PART, rows)
        solved.append(update_members(members, measured, whole_panel=whole_panel, keep_prior=False)[0])
    return update_members(members, tissue.take(MOST_SPOTS), whole_panel=whole_panel), solved


def adapt_network(parent: HGGEP, member: int, genes: Sequence[str], windows: Sequence[SectionWindow]) -> nn.Module:
    """Copy one of the networks that read patches, and move its mean to the training spots of new sections."""
    from sthggep.nn import HGGEPNet

    old = parent.members[member % len(parent.members)]
    assert isinstance(old, HGGEPNet)
    columns = [parent.genes.index(gene) for gene in genes]
    whole_panel = sorted(columns) == list(range(len(parent.genes)))
    net = deepcopy(old) if list(genes) == parent.genes else with_genes(old, columns)
    assert isinstance(net, HGGEPNet)
    _shift_mean(net, [window for window in windows if window.train.any()], whole_panel=whole_panel)
    return net.train(False)


def _shift_mean(net: HGGEPNet, windows: Sequence[SectionWindow], *, whole_panel: bool) -> None:
    """Move the mean prediction towards that of the new tissue, the further the more spots it has."""
    import torch

    from sthggep._training._update import WORTH

    net.eval()
    with torch.no_grad():
        residuals = [(w.target - net(*w.inputs).expression.float())[w.train] for w in windows]
        n_spots = sum(len(part) for part in residuals)
        share = n_spots / (n_spots + WORTH) if whole_panel else 1.0
        net.heads.get_parameter("expression.1.bias").add_(share * torch.cat(residuals).mean(dim=0))


def with_genes(net: ClosedFormNet | HGGEPNet, columns: Sequence[int]) -> ClosedFormNet | HGGEPNet:
    """Copy a network with some of its outputs, in that order; their predictions do not change."""
    import torch

    n_genes = int(net.config["n_genes"])
    rank = min(int(net.config.get("rank", n_genes)), n_genes)
    fixed = {"rank": rank} if "rank" in net.config else {}
    with torch.random.fork_rng(devices=[]):
        small = type(net)(**{**net.config, "n_genes": len(columns)})
        with torch.device("meta"):
            wider = type(net)(**{**net.config, **fixed, "n_genes": n_genes + 1}).state_dict()
    indices = torch.as_tensor(list(columns), dtype=torch.long)
    state = net.state_dict()
    for name, value in state.items():
        # An axis that grows with the genes is an axis of genes
        for axis, (size, wider_size) in enumerate(zip(value.shape, wider[name].shape, strict=True)):
            if size != wider_size:
                state[name] = state[name].index_select(axis, indices)
    if fixed and len(columns) < rank:
        _reduce_programs(state)
    small.load_state_dict(state)
    return small


def _reduce_programs(state: dict[str, Tensor]) -> None:
    """Reduce the programs to the number of genes, and express the scores in the programs that are left."""
    from sthggep.nn._programs import of_fewer_genes

    loadings, damp, turn = of_fewer_genes(state["programs.loadings"], state["programs.damp"])
    state |= {"programs.loadings": loadings, "programs.damp": damp}
    if "prior_strengths" in state:
        state["prior_strengths"] = turn.square().T @ state["prior_strengths"]
    if "scores.weight" in state:
        state["scores.weight"], state["scores.bias"] = turn.T @ state["scores.weight"], turn.T @ state["scores.bias"]
    state["shortcut.weight"] = state["shortcut.weight"] @ turn
