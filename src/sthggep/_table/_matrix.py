"""Tables of numbers in whatever form an AnnData holds them: NumPy, SciPy sparse, dask, or on disk."""

from __future__ import annotations

from typing import Protocol, TypeGuard

import numpy as np
from numpy.typing import NDArray
from scipy import sparse


class Matrix(Protocol):
    """A table of numbers that is sliced before it is read."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Rows and columns."""

    def __getitem__(self, index: object, /) -> Matrix: ...


class SparseMatrix(Protocol):
    """A SciPy sparse matrix or array."""

    data: NDArray[np.number]

    def toarray(self) -> NDArray[np.number]:
        """Return the dense array."""

    def sum(self, axis: int, dtype: type[np.number]) -> object:
        """Sum along an axis."""


def as_dense(matrix: Matrix) -> NDArray[np.number]:
    """Read a matrix into a dense array."""
    computed = _compute(matrix)
    return computed.toarray() if _is_sparse(computed) else np.asarray(computed)


def stored_values(matrix: Matrix) -> NDArray[np.number]:
    """Read the values that a matrix stores; a sparse matrix stores no zeros."""
    computed = _compute(matrix)
    return computed.data if _is_sparse(computed) else np.asarray(computed)


def row_sums(matrix: Matrix) -> NDArray[np.float64]:
    """Sum the values of each row, (n,)."""
    computed = _compute(matrix)
    if _is_sparse(computed):
        return np.asarray(computed.sum(axis=1, dtype=np.float64), dtype=np.float64).ravel()
    return np.asarray(np.asarray(computed).sum(axis=1, dtype=np.float64))


def _compute(matrix: Matrix) -> object:
    """Compute a lazy matrix; a backed matrix is in memory once it is sliced."""
    return matrix.compute() if hasattr(matrix, "compute") else matrix


def _is_sparse(matrix: object) -> TypeGuard[SparseMatrix]:
    return bool(sparse.issparse(matrix))
