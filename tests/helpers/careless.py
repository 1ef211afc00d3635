"""Distances that do what no plugin should, to be checked and run."""

from __future__ import annotations

from pathlib import Path

TEXT = '''"""A distance."""
{at_import}
import os
import torch
from torch import Tensor

from oodbench.api import Clusters, Distance, Scorer, Scores


class X(Distance):
    """X: x."""

    def fit(self, f: Tensor, c: Clusters) -> Scorer:
        {in_fit}
        def score(x: Tensor) -> Scores:
            {in_score}
            d = torch.cdist(x.double(), c.centroid.double()).min(1)
            return Scores(d.values, d.indices)
        return score
'''
AT_IMPORT = {  # what a message then says
    "import os; os.chdir('/')": "its import changes the working directory",
    "import torch; torch.set_default_dtype(torch.float64)": "its import changes torch's default type",
    "import torch; torch.set_grad_enabled(False)": "its import changes whether torch keeps gradients",
    "import oodbench.metrics as m; m.auroc = lambda *a: 1.0": "its import changes oodbench.metrics.auroc",
    "from oodbench.scoring import metrics as m; m.auroc = lambda *a: 1.0": "oodbench.scoring.metrics.auroc",
    "from oodbench.api import Plugin; Plugin.label = property(lambda self: 'x')": "Plugin.label",
    "raise SystemExit(0)": "cannot be imported: SystemExit: 0",
    "import os; os._exit(0)": "cannot be imported: SystemExit: 0",
}
IN_FIT = {  # what a check then says
    "f.mul_(0)": "it leaves the features and clusters it is given as they are",
    "c.centroid.add_(1)": "it leaves the features and clusters it is given as they are",
    "torch.rand(1)": "it draws from, or seeds, the generator of torch",
    "import numpy; numpy.random.seed(0)": "it draws from, or seeds, the generator of numpy",
}
IN_SCORE = {
    "raise SystemExit(0)": "SystemExit: 0",
    "os._exit(0)": "SystemExit: 0",
    "os._exit(3)": "SystemExit: 3",
    "return None": "what scores returns Scores, not a NoneType",
    "return Scores(x.double().sum(1), torch.full((len(x),), 99))": "cluster is between 0 and K - 1",
    "return Scores(x.double().sum(1), torch.full((len(x),), -1))": "cluster is between 0 and K - 1",
    "x.mul_(0)": "it leaves the features and clusters it is given as they are",
    "torch.manual_seed(0)": "it draws from, or seeds, the generator of torch",
    "os.chdir('/')": "it changes the working directory",
    "os.environ['OODBENCH_RESULTS'] = 'x'": "it changes the variables of OODBENCH",
    "torch.set_num_threads(7)": "it changes the number of torch's threads",
    "torch.set_default_dtype(torch.float64)": "it changes torch's default type",
    "return score(x)": "RecursionError",
}


def write(path: Path, at_import: str = "", in_fit: str = "", in_score: str = "") -> Path:
    """Write a distance that does these things."""
    path.parent.mkdir(exist_ok=True)
    path.write_text(TEXT.format(at_import=at_import, in_fit=in_fit, in_score=in_score))
    return path
