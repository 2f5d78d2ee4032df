"""From a trained model to one that goes on with new slides: what stays, what moves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import deepcopy
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import nn

    from sthggep._inputs._section import Section
    from sthggep._training._presets import Preset
    from sthggep.model import HGGEP

GENTLER = 0.1  # learning rate of fine-tuning, relative to that of training


def go_on_from(
    model: HGGEP | str | Path, preset: str, genes: Sequence[str] | None, own: Mapping[str, object]
) -> tuple[HGGEP, Preset, list[str]]:
    """The model to be trained on, how, and its genes; ``own`` is what the user chose that a model has already."""
    from sthggep._training._refusals import of_genes
    from sthggep.model._load import load_model

    parent = load_model(model)
    of_genes(parent)
    start_from = tuning_preset(parent, preset)
    brings_its_own(**own)
    return parent, start_from, tuning_genes(parent, genes)


def tuning_preset(parent: HGGEP, preset: str) -> Preset:
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


def brings_its_own(**given: object) -> None:
    """Refuse what a model to be trained on has already."""
    passed = [f"`{name}`" for name, value in given.items() if value is not None]
    if passed:
        msg = (
            f"`model` keeps what it looks at, but {', '.join(passed)} passed: leave that out, or leave `model` out to train "
            "anew."
        )
        raise ValueError(msg)


def tuning_genes(parent: HGGEP, genes: Sequence[str] | None) -> list[str]:
    """The genes of the model, or some of them."""
    from sthggep._checks import gene_list, genes_present

    if genes is None:
        return parent.genes
    panel = gene_list(genes)
    genes_present(panel, parent.genes, "the model that is trained on (fine-tuning cannot add genes)")
    return panel


def shares_of(parent: HGGEP, n_members: int) -> list[float] | None:
    """How much of each network the model asks for, beside its shortcut; ``None`` where there is none."""
    found = [getattr(member, "blend", None) for member in parent.members]
    if any(blend is None for blend in found):
        return None
    return [float(found[member % len(found)]) for member in range(n_members)]  # type: ignore[arg-type]


def sections_seen(parent: HGGEP) -> list[str]:
    """All sections that the model has learned from, its own ancestors' included."""
    return [*parent.training.get("model_sections", []), *parent.training.get("sections", [])]


def continued(parent: HGGEP, member: int, genes: Sequence[str], sections: Sequence[Section]) -> nn.Module:
    """A copy of one of the model's networks, moved towards the training spots of new sections."""
    from sthggep._training._networks import statistics_of
    from sthggep.nn import FeatureHGGEPNet

    old: Any = parent.members[member % len(parent.members)]
    columns = [parent.genes.index(gene) for gene in genes]
    whole = sorted(columns) == list(range(len(parent.genes)))
    net: Any = deepcopy(old) if list(genes) == parent.genes else with_genes(old, columns)
    training = [section for section in sections if section.train.any()]
    if isinstance(net, FeatureHGGEPNet):
        net.blend.fill_(1.0)  # the network trains by itself; how much of it is asked for is settled afterwards
        net.adapt(
            [section.inputs[0] for section in training],
            [section.inputs[3] for section in training],
            [section.target for section in training],
            [section.library_sizes for section in training],
            [section.train for section in training],
            whole_panel=whole,
            statistics=[statistics_of(section) for section in training],
        )
    else:
        _shift_mean(net, training, whole_panel=whole)
    return net.train(False)  # type: ignore[no-any-return]


def _shift_mean(net: Any, sections: Sequence[Section], *, whole_panel: bool) -> None:
    """Let the mean prediction meet the new tissue's, as far as its spots carry."""
    import torch

    from sthggep.nn._features import ADAPT_PRIOR

    net.eval()
    with torch.no_grad():
        left = [(s.target - net(*s.inputs).expression.float())[s.train] for s in sections]
        n_spots = sum(len(part) for part in left)
        share = n_spots / (n_spots + ADAPT_PRIOR) if whole_panel else 1.0
        net.heads.get_parameter("expression.1.bias").add_(share * torch.cat(left).mean(dim=0))


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
