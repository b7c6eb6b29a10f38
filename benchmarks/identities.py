"""Synthetic persons: vectors with the mean and the covariances of real ones, as many as a gallery requires.

A person is drawn once, around the mean of all persons, and each of their photos around the person; both normal, then
scaled to length 1. Only `statistics/` is used of real persons: sums over thousands of them, no template.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from collections.abc import Iterator

    from vultus.domain import FloatArray

STATISTICS = Path(__file__).parent / "statistics"
DRAW_BATCH = 50_000


@dataclass(frozen=True, slots=True, eq=False)
class People:
    """Distribution of the vectors of persons.

    Attributes:
        source: Description of the data.
        mean: (d,) over all persons.
        between: (d, d) covariance of persons around the mean.
        within: (d, d) covariance of a person's photos around the person.
    """

    source: str
    mean: NDArray[np.float64]
    between: NDArray[np.float64]
    within: NDArray[np.float64]

    @property
    def effective_dimension(self) -> float:
        """Return (Σλ)² / Σλ² of the eigenvalues λ of both covariances together."""
        eigenvalues = np.linalg.eigvalsh(self.between + self.within)
        return float(eigenvalues.sum() ** 2 / (eigenvalues**2).sum())

    def draw_vectors(self, persons: int, photos: int, seed: int) -> Iterator[FloatArray]:
        """Yield (n, photos, d) float32 vectors, at most `DRAW_BATCH` persons at a time, `persons` in total."""
        between, within = _compute_matrix_root(self.between), _compute_matrix_root(self.within)
        mean = self.mean.astype(np.float32)
        for start in range(0, persons, DRAW_BATCH):
            # One random stream per block, so that any block can be drawn again without those before it.
            rng = np.random.default_rng([seed, start])
            shape = (min(DRAW_BATCH, persons - start), photos, len(mean))
            person = rng.standard_normal((shape[0], shape[2]), np.float32) @ between
            around = rng.standard_normal(shape, np.float32) @ within
            vectors = mean + person[:, None] + around
            yield vectors / np.linalg.norm(vectors, axis=2, keepdims=True)


def _compute_matrix_root(covariance: NDArray[np.float64]) -> FloatArray:
    """Return a (d, d) float32 matrix that maps rows of independent normal numbers to rows with this covariance."""
    eigenvalues, vectors = np.linalg.eigh(covariance)
    root: FloatArray = (vectors * np.sqrt(np.clip(eigenvalues, 0, None))).T.astype(np.float32)
    return root


def compute_people(vectors: FloatArray, persons: NDArray[np.int64], source: str) -> People:
    """Return the distribution of (n, d) vectors of length 1 of (n,) persons, every person weighted equally."""
    order = np.argsort(persons, kind="stable")
    rows, starts, counts = (
        vectors[order].astype(np.float64),
        *np.unique(persons[order], return_index=True, return_counts=True)[1:],
    )
    means = np.add.reduceat(rows, starts) / counts[:, None]
    scatter = rows - np.repeat(means, counts, axis=0)
    several = counts > 1
    weights = np.repeat(np.where(several, 1 / np.maximum(counts - 1, 1), 0), counts)
    within = (scatter * weights[:, None]).T @ scatter / several.sum()
    firsts = rows[starts]
    between = np.cov(firsts.T) - within
    eigenvalues, basis = np.linalg.eigh(between)
    return People(source, means.mean(axis=0), (basis * np.clip(eigenvalues, 0, None)) @ basis.T, within)


def load_real_people() -> People:
    """Return the distribution of the built-in pack's vectors, measured on LFW's 5,749 persons."""
    kept = json.loads((STATISTICS / "dlib-resnet.json").read_text(encoding="utf-8"))
    return People(
        kept["source"],
        np.array(kept["mean"]),
        _build_symmetric_matrix(kept["between"]),
        _build_symmetric_matrix(kept["within"]),
    )


def _build_symmetric_matrix(rows: list[list[float]]) -> NDArray[np.float64]:
    """Return the symmetric matrix with these rows up to the diagonal."""
    matrix = np.zeros((len(rows), len(rows)))
    matrix[np.tril_indices(len(rows))] = np.concatenate(rows)
    matrix += np.tril(matrix, -1).T
    return matrix


def build_people_of_spectrum(dimension: int = 512, exponent: float = -0.5, noise: float = 0.5) -> People:
    """Return a distribution with a stated spectrum and zero mean.

    Args:
        dimension: Of the vectors.
        exponent: The i-th eigenvalue between persons is proportional to i to this power.
        noise: Trace of the covariance within persons, a multiple of the identity, divided by that between them.
    """
    eigenvalues = np.arange(1, dimension + 1) ** exponent
    eigenvalues /= eigenvalues.sum()
    source = f"{dimension} dimensions, no mean, eigenvalues between persons i^{exponent:g}, noise {noise:g} of them"
    return People(source, np.zeros(dimension), np.diag(eigenvalues), np.eye(dimension) * noise / dimension)


def write_people(people: People, name: str) -> None:
    """Write statistics into the benchmark's folder; of a covariance, the rows up to the diagonal."""
    numbers: dict[str, object] = {"source": people.source, "mean": _round_numbers(people.mean)}
    for part in ("between", "within"):
        numbers[part] = [_round_numbers(row[: at + 1]) for at, row in enumerate(getattr(people, part))]
    (STATISTICS / f"{name}.json").write_text(json.dumps(numbers) + "\n", encoding="utf-8")


def _round_numbers(numbers: NDArray[np.float64]) -> list[float]:
    return [float(f"{number:.5g}") for number in numbers]
