"""Fusion of several views of a spot into one vector."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from sthggep.nn._precision import centered_product, is_lowered

CHUNK = 1024  # spots gone through at once outside training


class SequenceFusion(nn.Module):
    """Read the views as a sequence with an LSTM and average its outputs (jumping knowledge, "jknet").

    Parameters
    ----------
    dim
        Features of a view.
    layers
        Layers of the LSTM.
    open_gates
        Start with gates that let the views pass. At torch's own start each layer shrinks what differs between spots about
        fourfold, and after four of them nothing is left to learn from.
    """

    def __init__(self, dim: int, layers: int = 4, *, open_gates: bool = False) -> None:
        super().__init__()
        self.lstm = nn.LSTM(dim, dim, layers)
        if open_gates:
            self._open(dim)

    @torch.no_grad()
    def _open(self, dim: int) -> None:
        for layer in range(self.lstm.num_layers):
            entry, recurrent = (self.lstm.get_parameter(f"weight_{kind}_l{layer}") for kind in ("ih", "hh"))
            # torch stacks the gates: input, forget, cell, output
            for gate in range(4):
                rows = slice(gate * dim, (gate + 1) * dim)
                nn.init.orthogonal_(entry[rows], gain=2.0 if gate == 2 else 0.5)
                nn.init.orthogonal_(recurrent[rows], gain=0.5)
            bias = self.lstm.get_parameter(f"bias_ih_l{layer}").fill_(1.0)
            bias[2 * dim : 3 * dim] = 0.0
            self.lstm.get_parameter(f"bias_hh_l{layer}").zero_()

    def forward(self, views: Sequence[Tensor]) -> Tensor:
        """Fuse views of the same shape (..., spots, features)."""
        steps = torch.stack([view.float().flatten(0, -2) for view in views])
        if not is_lowered(steps.device):
            out: Tensor = self.lstm(steps)[0]
        elif torch.is_grad_enabled():
            out = self._low(steps)
        else:
            out = torch.cat([self._low(part) for part in torch.split(steps, CHUNK, dim=1)], dim=1)
        return out.float().mean(dim=0).reshape(views[0].shape)

    def _low(self, steps: Tensor) -> Tensor:
        """The same LSTM with centered bfloat16 products: gates bring spots so close together that torch's own loses them."""
        with torch.autocast(steps.device.type, enabled=False):
            for layer in range(self.lstm.num_layers):
                entry, recurrent, first, second = (
                    self.lstm.get_parameter(f"{name}_l{layer}")
                    for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
                )
                gates, common = centered_product(steps, entry, entry.to(torch.bfloat16))
                steps = _run(gates, common + (first + second), recurrent)
        return steps


def _run(gates: Tensor, common: Tensor, weight: Tensor) -> Tensor:
    """Hidden states ``(steps, n, dim)`` of one layer, from what its input adds to the gates."""
    low = weight.to(torch.bfloat16)
    hidden = cell = gates.new_zeros(0)
    out: list[Tensor] = []
    for own, shared in zip(gates, common, strict=True):
        total = own + shared
        if out:  # the first state is zero
            differing, mean = centered_product(hidden, weight, low)
            total = total + differing + mean
        entry, forget, content, leave = total.chunk(4, dim=-1)
        new = torch.sigmoid(entry) * torch.tanh(content)
        cell = torch.addcmul(new, torch.sigmoid(forget), cell) if out else new
        hidden = torch.sigmoid(leave) * torch.tanh(cell)
        out.append(hidden)
    return torch.stack(out)


class AttentionFusion(nn.Module):
    """Average the views with weights that each spot sets for itself.

    Parameters
    ----------
    dim
        Features of a view.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim)
        self.score = nn.Linear(dim, 1, bias=False)

    def forward(self, views: Sequence[Tensor]) -> Tensor:
        """Fuse views of the same shape (spots, features)."""
        steps = self.norm(torch.stack([view.float() for view in views]))
        weights = self.score(steps).float().softmax(dim=0)
        fused: Tensor = (weights * steps).sum(dim=0)
        return fused
