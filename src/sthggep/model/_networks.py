"""Networks of a saved model, built from the record of their options."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from sthggep import nn as nets
from sthggep._checks import counted

if TYPE_CHECKING:
    from torch import Tensor

NETWORKS: dict[str, type[nn.Module]] = {
    "HGGEPNet": nets.HGGEPNet,
    "FeatureHGGEPNet": nets.FeatureHGGEPNet,
    "ClosedFormNet": nets.ClosedFormNet,
}


def build_network(entry: Mapping[str, Any]) -> nn.Module:
    """Build a network from its class name and options, without changing the state of torch's generator."""
    with torch.random.fork_rng(devices=[]):
        return NETWORKS[entry["class"]](**entry["config"])


def expected_weights(entries: Sequence[Mapping[str, Any]]) -> Iterator[tuple[str, Tensor]]:
    """Yield names and empty tensors of the networks' weights, without memory for their values."""
    for number, entry in enumerate(entries):
        with torch.device("meta"):
            network = build_network(entry)
        for name, value in network.state_dict().items():
            yield f"{number}.{name}", value


def is_closed_form(members: Iterable[nn.Module]) -> bool:
    """Whether the closed form predicts alone, without a network."""
    return all(type(member) is nets.ClosedFormNet for member in members)


def describe_networks(members: nn.ModuleList) -> str:
    """Describe what predicts: networks and the share of the closed form, or the closed form alone."""
    if is_closed_form(members):
        programs = range(int(members[0].config["rank"]))  # type: ignore[index]
        return f"closed form of {counted(programs, 'gene program')}, no network"
    weights = f"{sum(parameter.numel() for parameter in members.parameters()) / 1e6:.1f} M weights"
    shares = [float(member.blend) for member in members if hasattr(member, "blend")]  # type: ignore[arg-type]
    share = sum(shares) / len(shares) if shares else 1.0
    if share == 0:
        return f"closed form; {counted(members, 'network')} without a share, {weights}"
    words = "" if share == 1 else f" (share {share:g}, the closed form has the rest)"
    return f"{counted(members, 'network')}{words}, {weights}"


def check_genes(n_outputs: int, n_genes: int) -> None:
    """Check that a network has one output a gene."""
    if n_outputs != n_genes:
        msg = (
            f"The network predicts {counted(n_outputs, 'gene')}, found {counted(n_genes, 'name')}. Pass the panel of its "
            "training, in order."
        )
        raise ValueError(msg)
