"""AUROC of pytorch-ood's detectors, by scikit-learn, on a study's exported features, beside the study's own rows.

    oodbench export-features STUDY --to FOLDER
    python perf/peers.py STUDY FOLDER

Writes peers.csv and peers.md into the study's results: the mean AUROC of both over encoders and OOD sets, and the
largest difference.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import torch
from pytorch_ood import detector
from safetensors.torch import load_file
from sklearn.metrics import roc_auc_score
from torch import Tensor, nn

import oodbench
from oodbench.study import reader

Score = Callable[[Tensor], Tensor]
RAW, UNIT = "penultimate", "penultimate unit"


def peers(train: dict[str, Tensor]) -> dict[tuple[str, str], Score]:
    """Return fitted detectors of pytorch-ood by the method and space that our rows give them; higher = more OOD."""
    z, y = train["features"].float(), train["labels"]
    head = nn.Linear(z.shape[1], len(train["weight"])).requires_grad_(False)
    head.load_state_dict({"weight": train["weight"], "bias": train["bias"]})
    fitted = {
        ("mahalanobis(shared, pinv)", RAW): detector.Mahalanobis(None),
        ("relative_mahalanobis", RAW): detector.RMD(None),
        ("knn(k=10)", UNIT): detector.KNN(None, k=10),
        ("knn", UNIT): detector.KNN(None, k=50),
        ("knn(k=200)", UNIT): detector.KNN(None, k=200),
        ("vim", ""): detector.ViM(None, d=z.shape[1] // 2, w=head.weight, b=head.bias),
        ("she", ""): detector.SHE(None, head),
        ("fdbd", ""): detector.fDBD(None, head),
        ("nnguide", ""): detector.NNGuide(None, head, k=10),
        ("dice", ""): detector.DICE(None, head.weight, head.bias, p=0.9),
    }
    found: dict[tuple[str, str], Score] = {
        name: each.fit_features(z, y).predict_features for name, each in fitted.items()
    }
    of_logits = {
        "msp": detector.MaxSoftmax(head),
        "max_logit": detector.MaxLogit(head),
        "energy": detector.EnergyBased(head),
        "gen": detector.GEN(head),
        "react": detector.ReAct(nn.Identity(), head, percentile=0.9),
        "kl_matching": detector.KLMatching(head),
        "openmax": detector.OpenMax(head),
    }
    for name, each in of_logits.items():
        each.fit([(z, y)])
        found[name, ""] = each.predict
    return found


def compared(rows: pd.DataFrame, folder: Path) -> pd.DataFrame:
    """Return ours and theirs for each detector and OOD set of one training."""
    files = {path.stem: load_file(path) for path in folder.glob("*.safetensors")}
    of_id = files["id"]["features"].float()
    lines = []
    for (method, space), score in peers(files["train"]).items():
        mine = rows[(rows["distance"] if space else rows["posthoc"]).eq(method) & rows["threshold"].eq("pooled")]
        mine = mine[mine["clustering"].isin(["labels", "–"]) & (mine["space"].eq(space) if space else True)]
        scored = score(of_id)
        for row in mine.itertuples():
            ood = score(files[f"ood-{row.ood}"]["features"].float())
            theirs = roc_auc_score([0] * len(scored) + [1] * len(ood), torch.cat([scored, ood]).double().numpy())
            about = {"detector": method, "space": space, "encoder": row.encoder, "group": row.group, "ood": row.ood}
            lines.append(about | {"ours": 100 * row.auroc, "pytorch-ood": 100 * theirs})
    return pd.DataFrame(lines)


def main(study: Path, exported: Path) -> None:
    rows = oodbench.rows(study)
    parts = []
    for folder in sorted(exported.iterdir()):
        of = [name for name in rows["encoder"].unique() if name in folder.name]
        parts.append(compared(rows[rows["encoder"].isin(of)], folder))
    found = pd.concat(parts)
    found["difference"] = (found["ours"] - found["pytorch-ood"]).abs()
    results = reader.results_of(study)
    found.round(4).to_csv(results / "peers.csv", index=False)
    mean = found.groupby(["detector", "space"], sort=False)
    table = mean[["ours", "pytorch-ood"]].mean().assign(largest=mean["difference"].max())
    (results / "peers.md").write_text(table.round(2).reset_index().to_markdown(index=False) + "\n", encoding="utf-8")
    print(table.round(3).to_string())


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
