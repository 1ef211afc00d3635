"""The columns of a row, in order: what identifies it, its numbers, and what it takes to trace it."""

from __future__ import annotations

STAND_IN = "stand-in data: the numbers mean nothing"  # what rows of a dry run warn of

METRICS = (
    "auroc",
    "aupr_in",
    "aupr_in_ap",
    "aupr_out",
    "aupr_out_ap",
    "prevalence",
    "detection_error",
    "ties",
    *("fpr80_id", "fpr80_ood", "fpr90_id", "fpr90_ood", "fpr95_id", "fpr95_ood", "fpr99_id", "fpr99_ood"),
    "autc",
    "oscr",  # empty where no classifier says which ID items it gets right
)
TEXT = (
    "cell",  # hash of the cell's parameters; with `ood` the identity of a row
    "key",  # hash of parameters, code and data: a row of another key than its cell has now is out of date
    "status",  # ok | error
    "id",
    "family",  # the ID set without its class protocol
    "protocol",  # how many of its classes are ID
    "suite",  # of the package, with what a study changed of it; empty without one
    "ood",
    "group",  # near | far
    "training",
    "outliers",
    "encoder",
    "recipe",
    "precision",
    "reference",
    "space",
    "clustering",
    "distance",
    "posthoc",
    "threshold",
    "accuracy_by",  # what `accuracy` is of: classifier | linear probe
    "warnings",
    "error",
)
TRACE = (
    "detector",  # all parameters of space, clustering, distance or baseline, and threshold, as JSON
    "train_key",  # names the file under runs/ with all parameters and circumstances of the training
    "id_data",
    "ood_data",
    "version",
    "commit",
    "libraries",
    "device",
    "trained_on",  # the machine, as far as numbers depend on it, see provenance
    "scored_on",
    "scored_at",
)
LABELS = (  # what a table may be laid out and filtered by
    *("id", "family", "protocol", "suite", "ood", "group", "training", "outliers", "encoder", "recipe", "precision"),
    *("seed", "reference", "space", "clustering", "distance", "posthoc", "threshold", "level"),
)
INTEGERS = ("seed", "classes", "clusters", "dimensions", "n_train", "n_reference", "n_id", "n_ood")
ACCURACIES = ("accuracy", "accuracy_classifier", "accuracy_linear", "accuracy_knn")
RECALLS = ("id_recall", "ood_recall", "balanced_accuracy", "f1")  # at the cut of a threshold
INTERVALS = (
    "id_recall_low",
    "id_recall_high",
    "ood_recall_low",
    "ood_recall_high",
)  # 95 %; of cuts at a reference score
CHOSEN_BY = ("val_auroc", "val_fpr95_id", "val_fpr95_ood")  # ID reference against validation OOD, mean over its sets
COMPAT = (  # by the rules of other codebases, where a study says `compat: true`
    *("compat_fpr95_openood", "compat_fpr95_openood_v1", "compat_fpr95_pytorch_ood", "compat_fpr95_ssd"),
    *("compat_fpr95_cider", "compat_fpr95_knn_ood", "compat_fpr95_oodeel", "compat_aupr_in_openood"),
    *("compat_aupr_out_openood", "compat_aupr_out_ssd", "compat_aupr_in_cider", "compat_aupr_in_knn_ood"),
    *("compat_aupr_out_knn_ood", "compat_aupr_in_detectors", "compat_aupr_out_detectors"),
    *("compat_truncated_auroc", "compat_truncated_aupr", "compat_truncated_tnr95"),
)
MEASURED = (*METRICS, *RECALLS, *INTERVALS, *CHOSEN_BY, *COMPAT, *ACCURACIES)
FLOATS = ("level", "cut", *MEASURED, "loss", "train_seconds", "score_seconds")
COLUMNS = (*TEXT, *INTEGERS, *FLOATS, *TRACE)

QUALITY = (  # of clusters, in the file that `oodbench quality` writes
    *("class_separation", "local_purity", "global_separation", "cluster_purity", "silhouette", "nmi", "ari"),
    *("davies_bouldin", "calinski_harabasz"),
)
QUALITY_LABELS = (  # what one of its numbers is of
    *("id", "family", "protocol", "training", "outliers", "encoder", "recipe", "precision", "seed", "reference"),
    *("space", "clustering", "split"),
)

SHARES = MEASURED  # tables show them in per cent
LOWER_IS_BETTER = (*(name for name in METRICS if name.startswith("fpr")), "detection_error", "autc", "davies_bouldin")
HIGHER_IS_BETTER = (
    *("auroc", "aupr_in", "aupr_in_ap", "aupr_out", "aupr_out_ap", "oscr", "balanced_accuracy", "f1"),
    *ACCURACIES,
    *(name for name in QUALITY if name != "davies_bouldin"),
)
