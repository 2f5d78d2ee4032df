"""From a trained model to one that goes on with new slides: what stays, what moves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import deepcopy
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import nn

    from sthggep._inputs._section import SectionWindow
    from sthggep._training._presets import Preset
    from sthggep.model import HGGEP
    from sthggep.nn import HGGEPNet

GENTLER = 0.1  # learning rate of fine-tuning, relative to that of training


def open_parent(
    model: HGGEP | str | Path, preset: str, genes: Sequence[str] | None, own: Mapping[str, object]
) -> tuple[HGGEP, Preset, list[str]]:
    """The model to be trained on, how, and its genes; ``own`` is what the user chose that a model has already."""
    from sthggep._training._refusals import of_genes
    from sthggep.model._load import load_model

    parent = load_model(model)
    of_genes(parent)
    start_from = fine_tuning_preset(parent, preset)
    refuse_own_choices(**own)
    return parent, start_from, fine_tuning_genes(parent, genes)


def fine_tuning_preset(parent: HGGEP, preset: str) -> Preset:
    """How the model was made, at a lower learning rate: its inputs, its networks, the recipe of their kind."""
    from dataclasses import replace

    from sthggep._training._presets import PRESETS

    network = type(parent.members[0]).__name__
    if preset not in ("default", parent.preset):
        msg = (
            f"`model` was made by the preset {parent.preset!r} and keeps it, but `preset={preset!r}` was passed. "
            "Leave `preset` out, or leave `model` out to train anew."
        )
        raise ValueError(msg)
    alike = [entry for entry in PRESETS.values() if entry.network == network]
    made_by = PRESETS.get(parent.preset, alike[0])
    recipe = made_by.recipe if made_by.network == network else alike[0].recipe
    return replace(
        made_by,
        inputs=parent.inputs,
        network=network,
        recipe=replace(recipe, learning_rate=recipe.learning_rate * GENTLER),
        n_members=len(parent.members),
        net={"n_neighbors": getattr(parent.members[0], "n_neighbors", 1)},
    )


def refuse_own_choices(**given: object) -> None:
    """Refuse what a model to be trained on has already."""
    passed = [f"`{name}`" for name, value in given.items() if value is not None]
    if passed:
        msg = (
            f"`model` keeps what it looks at, but {', '.join(passed)} passed: leave that out, or leave `model` out to train "
            "anew."
        )
        raise ValueError(msg)


def fine_tuning_genes(parent: HGGEP, genes: Sequence[str] | None) -> list[str]:
    """The genes of the model, or some of them."""
    from sthggep._checks import gene_list, genes_present

    if genes is None:
        return parent.genes
    panel = gene_list(genes)
    genes_present(panel, parent.genes, "the model that is trained on (fine-tuning cannot add genes)")
    return panel


def shares_of(parent: HGGEP, n_members: int) -> list[float] | None:
    """Share of each network in the model's prediction; ``None`` for networks without a linear shortcut."""
    from sthggep.nn import FeatureHGGEPNet

    shares = [float(member.blend) for member in parent.members if isinstance(member, FeatureHGGEPNet)]
    return [shares[member % len(shares)] for member in range(n_members)] if shares else None


def fine_tuned(parent: HGGEP, member: int, genes: Sequence[str], windows: Sequence[SectionWindow]) -> nn.Module:
    """A copy of one of the model's networks, moved towards the training spots of new sections."""
    from sthggep.nn import FeatureHGGEPNet, HGGEPNet

    old = parent.members[member % len(parent.members)]
    columns = [parent.genes.index(gene) for gene in genes]
    whole_panel = sorted(columns) == list(range(len(parent.genes)))
    net = deepcopy(old) if list(genes) == parent.genes else with_genes(old, columns)
    training = [window for window in windows if window.train.any()]
    if isinstance(net, FeatureHGGEPNet):
        net.blend.fill_(1.0)  # the network trains by itself; its share is chosen afterwards
        net.adapt([window.sample(window.train) for window in training], whole_panel=whole_panel)
    else:
        assert isinstance(net, HGGEPNet)
        _shift_mean(net, training, whole_panel=whole_panel)
    return net.train(False)


def _shift_mean(net: HGGEPNet, windows: Sequence[SectionWindow], *, whole_panel: bool) -> None:
    """Move the mean prediction to that of the new tissue, as far as its spots carry."""
    import torch

    from sthggep.nn._features import ADAPT_PRIOR

    net.eval()
    with torch.no_grad():
        residuals = [(w.target - net(*w.inputs).expression.float())[w.train] for w in windows]
        n_spots = sum(len(part) for part in residuals)
        share = n_spots / (n_spots + ADAPT_PRIOR) if whole_panel else 1.0
        net.heads.get_parameter("expression.1.bias").add_(share * torch.cat(residuals).mean(dim=0))


def with_genes(net: Any, columns: Sequence[int]) -> nn.Module:
    """A copy of a network that keeps some of its outputs, in that order; it says the same of them."""
    import torch

    n_genes = int(net.config["n_genes"])
    rank = min(int(net.config.get("rank", n_genes)), n_genes)
    fixed = {"rank": rank} if "rank" in net.config else {}
    with torch.random.fork_rng(devices=[]):
        small = type(net)(**{**net.config, "n_genes": len(columns)})
        with torch.device("meta"):
            wider = type(net)(**{**net.config, **fixed, "n_genes": n_genes + 1}).state_dict()
    chosen = torch.as_tensor(list(columns), dtype=torch.long)
    state = net.state_dict()
    for name, value in state.items():
        # An axis that grows with the genes is an axis of genes
        for axis, (mine, other) in enumerate(zip(value.shape, wider[name].shape, strict=True)):
            if mine != other:
                state[name] = state[name].index_select(axis, chosen)
    if fixed and len(columns) < rank:
        _fewer_programs(state)
    small.load_state_dict(state)
    return small  # type: ignore[no-any-return]


def _fewer_programs(state: dict[str, Any]) -> None:
    """A network has no more programs than genes: give its scores those that are left."""
    from sthggep.nn._programs import of_fewer_genes

    loadings, damp, turn = of_fewer_genes(state["programs.loadings"], state["programs.damp"])
    state |= {"programs.loadings": loadings, "programs.damp": damp}
    state["scores.weight"], state["scores.bias"] = turn.T @ state["scores.weight"], turn.T @ state["scores.bias"]
    state["shortcut.weight"] = state["shortcut.weight"] @ turn
