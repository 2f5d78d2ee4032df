"""The linear shortcut: a ridge regression from features to program scores, in closed form."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import chain

import torch
from torch import Tensor, nn

from sthggep.nn._hyperconv import propagate
from sthggep.nn._stages import mean_and_spread

NEIGHBOR_SHARE = 0.5
MOST_DIRECT = 3000  # training spots up to which a direct solution takes seconds
MOST_STEPS, TOLERANCE = 60, 1e-9  # of conjugate gradients: 3 to 10 suffice; residual relative to the scores


class LinearShortcut(nn.Module):
    """Ridge from a spot's features and the means of its hyperedges to program scores.

    Parameters
    ----------
    width
        Features a spot, all stages together.
    rank
        Program scores.
    penalty
        Of the ridge, against features whose squares add up to about one a spot.
    own_only
        Read a spot's own features only.
    """

    weight: Tensor

    def __init__(self, width: int, rank: int, penalty: float = 0.5, *, own_only: bool = False) -> None:
        super().__init__()
        self.penalty, self.own_only = penalty, own_only
        self.register_buffer("weight", torch.zeros(width if own_only else 2 * width, rank))

    def spread(
        self, x: Tensor, incidence: Tensor | None, n_hyperedges: int | None = None, contrast: Tensor | None = None
    ) -> Tensor:
        """Put the mean features of a spot's hyperedges beside its own features, ``(n, 2 × width)``, where it has any.

        ``contrast`` is the section's, where ``x`` is a part of it.
        """
        if self.own_only:
            return x
        if incidence is None:
            return torch.cat([x, torch.zeros_like(x)], dim=1)
        mean = propagate(x, incidence, n_hyperedges or len(x))
        # A mean varies less than single spots: scale the means to the spread that corresponds to their share
        if contrast is None:
            contrast = contrast_of(mean_and_spread(x)[1], mean_and_spread(mean)[1])
        return torch.cat([x, NEIGHBOR_SHARE**0.5 * mean * contrast.clamp(max=10)], dim=1)

    def start(self, features: Iterable[Tensor], scores: Sequence[Tensor], weights: Sequence[Tensor]) -> None:
        """Solve the weighted ridge on training spots.

        Parameters
        ----------
        features
            ``spread`` features of each section's training spots, or of each window's; read once.
        scores
            Program scores of the same spots.
        weights
            Weight of each spot.
        """
        self.weight.copy_(_solve(features, scores, weights, self.penalty))

    def path(
        self,
        features: Iterable[Tensor],
        scores: Sequence[Tensor],
        weights: Sequence[Tensor],
        penalties: Sequence[float],
    ) -> list[Tensor]:
        """Compute the weights for each of several penalties from one decomposition, without setting them.

        Parameters
        ----------
        features, scores, weights
            As for ``start``, of some thousand spots at most.
        penalties
            Of the ridge.

        Returns
        -------
        For each penalty, weights ``(2 × width, rank)``.
        """
        root = torch.cat(list(weights)).double().sqrt().unsqueeze(1)
        x, y = torch.cat(list(features)).double() * root, torch.cat(list(scores)).double() * root
        sizes, vectors = torch.linalg.eigh(x @ x.T)
        turned = vectors.T @ y
        return [(x.T @ (vectors @ (turned / (sizes + penalty).unsqueeze(1)))).float() for penalty in penalties]

    def forward(
        self, x: Tensor, incidence: Tensor | None, n_hyperedges: int | None = None, contrast: Tensor | None = None
    ) -> Tensor:
        """Predict program scores ``(n, rank)`` from scaled features ``(n, width)``."""
        return self.spread(x, incidence, n_hyperedges, contrast) @ self.weight


def contrast_of(spread: Tensor, spread_of_means: Tensor) -> Tensor:
    """Compute how much more features vary than their means over the hyperedges."""
    return spread / spread_of_means.clamp_min(1e-6)


def _solve(features: Iterable[Tensor], scores: Sequence[Tensor], weights: Sequence[Tensor], penalty: float) -> Tensor:
    """Solve the weighted ridge in the smaller of its two forms."""
    root = torch.cat(list(weights)).double().sqrt().unsqueeze(1)
    y = torch.cat(list(scores)).double() * root
    parts = iter(features)
    first = next(parts)
    width = first.shape[1]
    if len(root) <= width:
        x = torch.cat([first, *parts]).double() * root
        solved: Tensor = x.T @ _solve_kernel(x, y, penalty)
        return solved.float()
    gram, cross, at = y.new_zeros(width, width), y.new_zeros(width, y.shape[1]), 0
    for part in chain([first], parts):  # never all spots together: their features are many times larger than the sums
        here = slice(at, at + len(part))
        x, at = part.double() * root[here], here.stop
        gram.addmm_(x.T, x)
        cross.addmm_(x.T, y[here])
    solved = torch.linalg.solve(_ridge(gram, penalty), cross)
    return solved.float()


def _solve_kernel(x: Tensor, y: Tensor, penalty: float) -> Tensor:
    """Solve ``(x x' + penalty) a = y``; of many rows by conjugate gradients, as exactly and in less time.

    The factors of the matrix in single precision are the preconditioner: few steps in double precision remain.
    """
    if len(x) > MOST_DIRECT and x.device.type == "cpu":
        from scipy.linalg.blas import ssyrk

        kernel = torch.from_numpy(ssyrk(1.0, x.float().numpy().T, trans=1))  # the upper triangle
        solved = _refined(lambda step: x @ (x.T @ step), y, penalty, kernel)
        if solved is not None:
            return solved
    direct: Tensor = torch.linalg.solve(_ridge(x @ x.T, penalty), y)
    return direct


def solve_shifted(kernel: Tensor, y: Tensor, penalty: float) -> Tensor:
    """Solve ``(kernel + penalty) a = y`` with a symmetric kernel in double precision, in the same two ways."""
    if len(kernel) > MOST_DIRECT and kernel.device.type == "cpu":
        solved = _refined(lambda step: kernel @ step, y, penalty, kernel.float())
        if solved is not None:
            return solved
    direct: Tensor = torch.linalg.solve(_ridge(kernel, penalty), y)
    return direct


def _refined(apply: Callable[[Tensor], Tensor], y: Tensor, penalty: float, kernel: Tensor) -> Tensor | None:
    """Factor the upper triangle of a kernel in single precision, in place, and refine the solution in double precision."""
    kernel.diagonal().add_(penalty)
    factor, failed = torch.linalg.cholesky_ex(kernel, upper=True)
    return None if failed else _conjugate_gradients(apply, y, penalty, factor)


def _conjugate_gradients(apply: Callable[[Tensor], Tensor], y: Tensor, penalty: float, factor: Tensor) -> Tensor | None:
    """Solve all columns by preconditioned conjugate gradients; ``None`` if they do not converge.

    ``apply`` multiplies by the kernel. SciPy's solver takes a column at a time, and would read the kernel anew for each.
    """

    def precondition(residual: Tensor) -> Tensor:
        out: Tensor = torch.cholesky_solve(residual.float(), factor, upper=True)
        return out.double()

    solved, residual, bound = torch.zeros_like(y), y.clone(), TOLERANCE * y.norm(dim=0)
    step = precondition(residual)
    product = (residual * step).sum(dim=0)
    for _ in range(MOST_STEPS):
        change = apply(step) + penalty * step
        length = product / (step * change).sum(dim=0).clamp_min(1e-300)
        solved += length * step
        residual -= length * change
        if bool((residual.norm(dim=0) <= bound).all()):
            return solved
        preconditioned = precondition(residual)
        before, product = product, (residual * preconditioned).sum(dim=0)
        step = preconditioned + product / before.clamp_min(1e-300) * step
    return None


def _ridge(gram: Tensor, penalty: float) -> Tensor:
    return gram + penalty * torch.eye(len(gram), dtype=gram.dtype, device=gram.device)
