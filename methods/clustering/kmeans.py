"""K-means with k-means++ seeding and restarts, scikit-learn's or faiss's (MacQueen 1967; Arthur & Vassilvitskii 2007).

The studied code uses 20 restarts; the best of them by inertia is kept. faiss runs on all points, seeds
with random points, and needs one of the extras `cpu` and `gpu`.
"""

from __future__ import annotations

from typing import Literal

from sklearn.cluster import KMeans as SklearnKMeans
from torch import Tensor

from oodbench.api import Clustering, Clusters, Count, Size
from oodbench.toolkit.clusters import check_count, grouped, to_device


class KMeans(Clustering):
    """K-means: k clusters of least squared Euclidean distance, best of several restarts."""

    k: Count = "classes"  # clusters
    restarts: Size = 10  # the best of which is kept
    iterations: Size = 300  # at most
    library: Literal["sklearn", "faiss"] = "sklearn"  # faiss needs an extra of the package

    @property
    def single(self) -> bool:
        return self.k == 1

    @property
    def requires(self) -> dict[str, str]:
        return {"faiss": "pip install 'oodbench[cpu]' or 'oodbench[gpu]'"} if self.library == "faiss" else {}

    def fit(self, f: Tensor, y: Tensor | None, seed: int) -> Clusters:
        assert isinstance(self.k, int)
        check_count(self.k, f)
        return grouped(f, self._sklearn(f, self.k, seed) if self.library == "sklearn" else self._faiss(f, self.k, seed))

    def _sklearn(self, f: Tensor, k: int, seed: int) -> Tensor:
        means = SklearnKMeans(k, n_init=self.restarts, max_iter=self.iterations, random_state=seed)
        return to_device(means.fit(f.cpu().numpy()).labels_, f)

    def _faiss(self, f: Tensor, k: int, seed: int) -> Tensor:
        import faiss

        means = faiss.Kmeans(
            f.shape[1],
            k,
            niter=self.iterations,
            nredo=self.restarts,
            seed=seed,
            gpu=int(f.is_cuda and getattr(faiss, "get_num_gpus", int)() > 0),  # one; faiss-cpu has no such function
            min_points_per_centroid=1,
            max_points_per_centroid=len(f),
        )
        x = f.cpu().numpy()
        means.train(x)
        return to_device(means.index.search(x, 1)[1][:, 0], f)
