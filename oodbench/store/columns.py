"""The columns of a row, in order: what identifies it, its numbers, and what it takes to trace it.

Each stands once, with its meaning; docs/metrics.md has the formulas.
"""

from __future__ import annotations

STAND_IN = "stand-in data: the numbers mean nothing"  # what rows of a dry run warn of

_METRICS = {
    "auroc": "P(OOD scores above ID), ties count half",
    "aupr_in": "area under precision over recall by trapezoids, ID positive",
    "aupr_in_ap": "average precision, ID positive",
    "aupr_out": "area under precision over recall by trapezoids, OOD positive",
    "aupr_out_ap": "average precision, OOD positive",
    "prevalence": "share of OOD among all items, on which AUPR, average precision and F1 depend",
    "detection_error": "least mean of both error rates over all cuts",
    "ties": "share of items whose score another item has",
    **{
        f"fpr{level}_{side}": text.format(level)
        for level in (80, 90, 95, 99)
        for side, text in (
            ("id", "share of OOD accepted where at least {} % of ID is accepted; fpr95_id is most papers' FPR95"),
            ("ood", "share of ID rejected where at least {} % of OOD is found; fpr95_ood is OpenOOD's since 2023-08"),
        )
    },
    "autc": "area under both error rates over all thresholds of scaled scores (Humblot-Renaux 2023)",
    "oscr": "area under the share of ID accepted and classified right over that of OOD accepted (Dhamija 2018); "
    "empty where no classifier says which ID items it gets right",
}
_TEXT = {
    "cell": "hash of the cell's parameters; with `ood` the identity of a row",
    "key": "hash of parameters, code and data: a row of another key than its cell has now is out of date",
    "status": "ok | error",
    "id": "the ID set",
    "family": "the ID set without its class protocol",
    "protocol": "how many of its classes are ID",
    "suite": "of the package, with what a study changed of it; empty without one",
    "ood": "the OOD set",
    "group": "near | far: of the OOD set, as the study says",
    "training": "how the encoder was trained, or where its weights are from",
    "outliers": "the set that a training method with outliers saw",
    "encoder": "the network",
    "recipe": "what of the recipe differs from the default one, or its name",
    "precision": "of the training's arithmetic, `auto` resolved",
    "reference": "the ID scores that thresholds are set on",
    "covariate": "the sets whose images are of ID's classes under a covariate shift; empty without any",
    "space": "which features the detector sees, and what is done to them",
    "clustering": "what grouped the training features",
    "distance": "what scores an item by features",
    "posthoc": "the baseline that scores by a classifier, and whose classifier",
    "threshold": "what turns scores into decisions",
    "accuracy_by": "what `accuracy` is of: classifier | linear probe",
    "warnings": "what the data, the training and the plugins warned of",
    "error": "why there are no numbers, where `status` is error",
}
_TRACE = {
    "detector": "all parameters of space, clustering, distance or baseline, and threshold, as JSON",
    "train_key": "names the file under runs/ with all parameters and circumstances of the training",
    "id_data": "hash of the prepared ID train images",
    "ood_data": "hash of the prepared OOD test images",
    "version": "of oodbench, when the row was scored",
    "commit": "of oodbench's checkout, with + where it was changed; empty outside one",
    "libraries": "versions of Python and of what computes",
    "device": "that scored",
    "trained_on": "the machine, as far as numbers depend on it, see provenance",
    "scored_on": "the same of scoring",
    "scored_at": "when, UTC",
}
TEXT, TRACE, METRICS = (*_TEXT,), (*_TRACE,), (*_METRICS,)
SETS = ("ood", "group")  # labels of OOD sets rather than of detectors
LABELS = (  # what a table may be laid out and filtered by
    *("id", "family", "protocol", "suite", "ood", "group", "training", "outliers", "encoder", "recipe", "precision"),
    *("seed", "reference", "space", "clustering", "distance", "posthoc", "threshold", "level"),
)
_INTEGERS = {
    "seed": "of everything that is drawn",
    "classes": "of ID train",
    "clusters": "that scored items; empty where the detector has none",
    "dimensions": "of the features that the detector saw",
    "n_train": "training items that the detector was fitted on",
    "n_reference": "items of the ID reference",
    "n_id": "ID test items",
    "n_shifted": "test items of ID's classes under a covariate shift; empty without any",
    "n_ood": "OOD test items",
}
_ACCURACIES = {
    "accuracy": "ID accuracy of the classifier where there is one, else of a linear probe on frozen features",
    "accuracy_classifier": "ID accuracy of the training's own classifier",
    "accuracy_linear": "ID accuracy of a linear probe on frozen features",
    "accuracy_knn": "ID accuracy of nearest neighbours on frozen features",
}
_RECALLS = {  # at the cut of a threshold
    "id_recall": "share of ID accepted at the cut",
    "ood_recall": "share of OOD found at the cut",
    "balanced_accuracy": "mean of both recalls at the cut",
    "f1": "F1 of OOD at the cut; depends on the prevalence",
}
_INTERVALS = {  # of cuts at a reference score
    "id_recall_low": "lower end of the 95 % interval of the ID recall, over the draw of reference and test items",
    "id_recall_high": "upper end of the same",
    "ood_recall_low": "lower end of the 95 % interval of the OOD recall at the same quantile of all ID",
    "ood_recall_high": "upper end of the same",
}
_SHIFTED = {  # where a study declares covariate-shifted ID sets
    **{
        f"fs_{name}": f"`{name}` in the full spectrum: covariate-shifted images are ID as those of ID test are"
        for name in ("auroc", "aupr_in", "aupr_out", "fpr95_id", "fpr95_ood")
    },
    "id_recall_shifted": "share of the covariate-shifted images that the cut accepts",
    "accuracy_shifted": "ID accuracy on the covariate-shifted images alone, of what `accuracy` is of",
}
_CHOSEN_BY = {
    f"val_{name}": f"`{name}` of the ID reference against the validation OOD, mean over its sets"
    for name in ("auroc", "fpr95_id", "fpr95_ood")
}
_COMPAT = {  # where a study says `compat: true`
    **{
        f"compat_{name}_{rule}": f"{what} by the rule of {rule}"
        for name, what, rules in (
            ("fpr95", "FPR95", ("openood", "openood_v1", "pytorch_ood", "ssd", "cider", "knn_ood", "oodeel")),
            ("aupr_in", "AUPR, ID positive,", ("openood",)),
            ("aupr_out", "AUPR, OOD positive,", ("openood", "ssd")),
            ("aupr_in", "AUPR, ID positive,", ("cider", "knn_ood")),
            ("aupr_out", "AUPR, OOD positive,", ("knn_ood",)),
            ("aupr_in", "AUPR, ID positive,", ("detectors",)),
            ("aupr_out", "AUPR, OOD positive,", ("detectors",)),
        )
        for rule in rules
    },
    "compat_truncated_auroc": "AUROC of per-cluster cuts as the code behind arXiv 2203.08549 has it",
    "compat_truncated_aupr": "AUPR of the same",
    "compat_truncated_tnr95": "ID accepted where 95 % of OOD is found, of the same",
}
_FLOATS = {"level": "share of the ID reference that the threshold was set to accept", "cut": "the threshold's cut"}
_LOSS = {"loss": "of the training's last epoch, mean over its steps"}
_COST = {
    "train_seconds": "that the training took, checkpoints included",
    "score_seconds": "that scoring the row took",
    "fit_seconds": "that fitting the detector took, clusters included; settings that share their work have the same",
    "item_seconds": "that scoring an ID test item took, given its features, or its image where the network is asked; "
    "mean over the set; the same",
    "fitted_bytes": "that the fitted detector holds in arrays, with a head that it reads, without encoder and space",
}
_QUALITY = {  # of clusters, in the file that `oodbench quality` writes
    "class_separation": "separation of the classes in the features",
    "local_purity": "share of an item's neighbours that are of its class, by arXiv 2203.08549",
    "global_separation": "separation of the clusters, by arXiv 2203.08549",
    "cluster_purity": "share of items that are of their cluster's class, by arXiv 2203.08549",
    "silhouette": "mean silhouette of the items in their clusters",
    "nmi": "normalised mutual information of clusters and classes, arithmetic mean",
    "ari": "adjusted Rand index of clusters and classes",
    "davies_bouldin": "Davies-Bouldin index",
    "calinski_harabasz": "Calinski-Harabasz index",
}
_VERDICT = {  # in verdict.csv, where a claim has ten observations or more at a place
    "bootstrap": "in verdict.csv: what the bootstrap-t draws that checks a t interval: runs, ID sets or encoders, "
    "and images where their error is known; empty under ten",
    "bootstrap_low": "in verdict.csv: lower end of the bootstrap-t interval of the difference, one-sided 95 %",
    "bootstrap_high": "upper end of the same",
    "by_t": "in verdict.csv: what the t interval alone decides, where the bootstrap-t interval does not decide it",
}
INTEGERS, ACCURACIES, RECALLS, INTERVALS = (*_INTEGERS,), (*_ACCURACIES,), (*_RECALLS,), (*_INTERVALS,)
CHOSEN_BY, COMPAT, QUALITY, SHIFTED = (*_CHOSEN_BY,), (*_COMPAT,), (*_QUALITY,), (*_SHIFTED,)
VERDICT = (*_VERDICT,)
FULL_SPECTRUM = tuple(name for name in SHIFTED if name.startswith("fs_"))
MEASURED = (*METRICS, *RECALLS, *INTERVALS, *CHOSEN_BY, *COMPAT, *ACCURACIES, *SHIFTED)
COSTS = (*_COST,)
FLOATS = (*_FLOATS, *MEASURED, *_LOSS, *COSTS)
COLUMNS = (*TEXT, *INTEGERS, *FLOATS, *TRACE)
MEANING = _TEXT | _INTEGERS | _FLOATS | _METRICS | _RECALLS | _INTERVALS | _CHOSEN_BY | _COMPAT | _ACCURACIES
MEANING |= _SHIFTED | _LOSS | _COST | _TRACE | _QUALITY | _VERDICT

QUALITY_LABELS = (  # what one of its numbers is of
    *("id", "family", "protocol", "training", "outliers", "encoder", "recipe", "precision", "seed", "reference"),
    *("space", "clustering", "split"),
)

SHARES = MEASURED  # tables show them in per cent
LOWER_IS_BETTER = (
    *(name for name in (*METRICS, *_SHIFTED) if name.removeprefix("fs_").startswith("fpr")),
    *("detection_error", "autc", "davies_bouldin"),
)
HIGHER_IS_BETTER = (
    *("auroc", "aupr_in", "aupr_in_ap", "aupr_out", "aupr_out_ap", "oscr", "balanced_accuracy", "f1"),
    *ACCURACIES,
    *("fs_auroc", "fs_aupr_in", "fs_aupr_out", "accuracy_shifted"),
    *(name for name in QUALITY if name != "davies_bouldin"),
)
