"""CCL-style (re-derived), after Chen, Gui & Fan 2023, arXiv 2302.02598: cluster-aware contrastive training.

The paper fixes the idea only: next to the instance term, the positives of an anchor are the samples of its
cluster (local relation) and the centre of its cluster (global relation), and clustering alternates with
training. Its loss weights, temperature, clustering algorithm, number of clusters, update interval,
warm-up and clustered layer were not recovered; each is a parameter here, with a default of ours:

    L = L_instance + local * L_local + global_ * L_global, both weights 0 before the first clustering
    L_instance: NT-Xent
    L_local:    SupCon with cluster numbers as labels (positives: the other view and the rest of the cluster)
    L_global:   -log softmax over k of (z . c_k / t) at the item's own cluster, c_k unit-norm mean of unit z

Clusters are K-means (scikit-learn) of the unit-norm features of un-augmented training images, frozen in between.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from sklearn.cluster import KMeans
from torch import Tensor

from oodbench.api import Batch, Count, Features, Head, Natural, NonNegative, Positive, Size, State, Training
from oodbench.toolkit.losses import contrastive, nt_xent
from oodbench.toolkit.vectors import centroids, unit


class CCL(Training):
    """CCL-style (re-derived): contrastive training with cluster members and cluster centres as positives."""

    k: Count = "classes"  # clusters
    warmup: Natural = 20  # epochs of the instance term alone
    update_every: Size = 10  # epochs between two clusterings
    local: NonNegative = 1.0  # weight of the local term
    global_: NonNegative = 1.0  # weight of the global term
    temperature: Positive = 0.5  # of all three terms
    layer: Literal["penultimate", "projection"] = "projection"  # what is clustered
    restarts: Size = 4  # of k-means, the best of which is kept
    head: Head = "mlp-128"  # form of the projection head

    views = 2

    @property
    def heads(self) -> dict[str, str]:
        return {"z": self.head}

    @property
    def refresh_every(self) -> int:
        return self.update_every

    @property
    def least_epochs(self) -> int:
        first = -(-self.warmup // self.update_every) * self.update_every  # refreshes come every so many epochs
        return first + 1

    def refresh(self, f: Features, y: Tensor | None, epoch: int, seed: int, state: State) -> State:
        if epoch < self.warmup:
            return state
        assert isinstance(self.k, int)
        z = unit(f.out["z"])
        clustered = z if self.layer == "projection" else unit(f.h)
        means = KMeans(self.k, n_init=self.restarts, random_state=seed).fit(clustered.cpu().numpy())
        assign = torch.from_numpy(means.labels_).long().to(z.device)
        return {"assign": assign, "center": unit(centroids(z, assign, self.k))}

    def loss(self, b: Batch, state: State) -> tuple[Tensor, State]:
        z = b.out["z"]
        loss = nt_xent(z, self.temperature)
        if not state:
            return loss, state
        cluster = state["assign"][b.index]  # (B,)
        local = contrastive(z, cluster, self.temperature)
        to_centers = unit(z.flatten(0, 1)) @ state["center"].T / self.temperature  # (V*B, K)
        global_ = F.cross_entropy(to_centers, cluster.repeat(len(z)))
        return loss + self.local * local + self.global_ * global_, state
