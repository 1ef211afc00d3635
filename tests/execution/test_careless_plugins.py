"""A run in which plugins do what none should: each has its rows, or a message, and the others theirs."""

from __future__ import annotations

import os
from pathlib import Path

import careless
import pytest
from command_line import call
from tiny import write

from oodbench.store.rows import Results

STAY = (
    *("torch.manual_seed(0)", "os.chdir('/')", "os.environ['OODBENCH_RESULTS'] = 'x'"),
    *("torch.set_num_threads(7)", "torch.set_default_dtype(torch.float64)"),
)


@pytest.mark.slow
@pytest.mark.usefixtures("trained")
def test_what_is_careless_while_it_scores_has_error_rows_or_is_put_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Folders are named from where the run is, which one of them leaves."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OODBENCH_RESULTS", "results")
    texts = list(careless.IN_SCORE)
    for i, text in enumerate(texts):
        careless.write(tmp_path / "plugins" / f"x{i}.py", in_score=text)
    names = [f"x{i}" for i in range(len(texts))]
    file = write(tmp_path / "s.yaml", training="simclr", clustering="labels", threshold="pooled", plugins=["plugins"],
                 distance=[*names, "cosine"], outliers=None)  # fmt: skip
    done = call("run", file, "--device", "cpu")
    assert done.exit_code == 1, done.output
    assert Path(os.getcwd()) == tmp_path
    rows = Results(tmp_path / "results" / "s").current().set_index("distance")
    for name, text in zip(names, texts, strict=True):
        errors = set(rows.loc[name, "error"])
        assert (errors == {""}) == (text in STAY), text
    assert set(rows.loc["cosine", "error"]) == {""}
    assert "SystemExit: 3" in "".join(rows.loc[names[2], "error"])
    assert "a plugin has changed the working directory" in done.stderr


@pytest.mark.parametrize(("text", "said"), careless.AT_IMPORT.items())
def test_what_is_careless_when_it_is_imported_is_refused(tmp_path: Path, text: str, said: str) -> None:
    careless.write(tmp_path / "x.py", at_import=text)
    done = call("plan", write(tmp_path / "s.yaml", plugins=["x.py"], distance=["x"]))
    assert done.exit_code == 2, done.output
    assert said in done.stderr


SET = '''"""A set."""

from oodbench.api import Dataset


class X(Dataset):
    """X: x."""

    def load(self, split, root):
        {text}
'''


@pytest.mark.parametrize("text", ["raise SystemExit(0)", "import os; os._exit(0)"])
def test_a_set_that_ends_the_program_is_no_good_end(tmp_path: Path, text: str) -> None:
    (tmp_path / "x.py").write_text(SET.format(text=text))
    done = call("run", write(tmp_path / "s.yaml", plugins=["x.py"], id="x"))
    assert done.exit_code == 1
    assert "a plugin ended the program, with code 0" in done.stderr
