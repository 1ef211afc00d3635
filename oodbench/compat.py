"""The same scores by the rules of other codebases: OpenOOD, SSD, CIDER, KNN-OOD, oodeel, and the studied one."""

from oodbench.scoring.other_codebases import (
    Grouped,
    all_rules,
    aupr_from_zero,
    cider,
    knn_ood,
    oodeel,
    openood,
    openood_v1,
    pytorch_ood,
    ssd,
    truncated,
)

__all__ = [
    "Grouped",
    "all_rules",
    "aupr_from_zero",
    "cider",
    "knn_ood",
    "oodeel",
    "openood",
    "openood_v1",
    "pytorch_ood",
    "ssd",
    "truncated",
]
