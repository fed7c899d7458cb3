"""Symmetric matrices that fall into blocks, kept flat: beliefs about many small groups of numbers at once.

Each of n items belongs to a group; a matrix over the items is zero between groups. All its blocks lie one after the other in one array, those of a size side by
side, so that inverting and multiplying are a few batched calls. The cost is cubic in the largest group.
"""

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.intp]


class Blocks:
    """Where each item stands in the flat array, and what can be done with such arrays.

    Attributes:
        size: length of the flat array.
        diagonal: (n,) where each item's own entry stands.
    """

    def __init__(self, group: Ints) -> None:
        n = len(group)
        count = np.bincount(group, minlength=1)[group] if n else np.zeros(0, np.intp)
        order = np.lexsort((np.arange(n), group, count))
        self._members = [order[count[order] == k].reshape(-1, int(k)) for k in np.unique(count)]  # (groups, k) of each size
        self._row, self._place, self.size = np.zeros(n, np.intp), np.zeros(n, np.intp), 0
        for members in self._members:
            k = members.shape[1]
            self._row[members] = self.size + np.arange(members.size).reshape(members.shape) * k
            self._place[members] = np.arange(k)
            self.size += members.size * k
        self.diagonal = self._row + self._place

    def at(self, i: Ints, j: Ints) -> Ints:
        """Where the entries of items i and j, of one group, stand."""
        found: Ints = self._row[i] + self._place[j]
        return found

    def inverse(self, flat: Floats) -> Floats:
        """The inverse matrix."""
        found, start = np.empty(self.size), 0
        for members in self._members:
            k, end = members.shape[1], start + members.size * members.shape[1]
            found[start:end] = np.linalg.inv(flat[start:end].reshape(-1, k, k)).ravel()
            start = end
        return found

    def times(self, flat: Floats, vector: Floats) -> Floats:
        """The matrix times a vector (n,)."""
        found, start = np.zeros(len(vector)), 0
        for members in self._members:
            k, end = members.shape[1], start + members.size * members.shape[1]
            found[members] = (flat[start:end].reshape(-1, k, k) @ vector[members][:, :, None])[:, :, 0]
            start = end
        return found

    def pairs(self) -> tuple[Ints, Ints]:
        """(size,) the two items of every entry."""
        i, j = np.empty(self.size, np.intp), np.empty(self.size, np.intp)
        start = 0
        for members in self._members:
            k, end = members.shape[1], start + members.size * members.shape[1]
            i[start:end] = np.repeat(members, k, axis=1).ravel()
            j[start:end] = np.tile(members, (1, k)).ravel()
            start = end
        return i, j
