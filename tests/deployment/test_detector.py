"""A detector that leaves the harness: its scores are the study's bit for bit, and what is damaged is named."""

from __future__ import annotations

import json
import math
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from command_line import call
from numpy.typing import NDArray
from PIL import Image
from tiny import TINY, write

import oodbench
from oodbench import UserError
from oodbench.deployment.folder import BANK, ENCODER, FACTS
from oodbench.execution import exports
from oodbench.execution.pipeline import Options
from oodbench.execution.runner import Runner
from oodbench.store import scores
from oodbench.store.artifacts import digest
from oodbench.store.rows import Results
from oodbench.study import reader
from oodbench.toolkit.image_files import Decoding

Arrays = dict[str, NDArray[Any]]
HAS_ONNX = all(find_spec(each) for each in ("onnx", "onnxscript", "onnxruntime"))
RECIPE = TINY["recipe"] | {"epochs": 2}
OWN = """
from __future__ import annotations
from torch import Tensor
from oodbench.api import Clusters, Distance, Scorer, Scores


class Own(Distance):
    \"\"\"Own: city-block distance to the nearest centroid.\"\"\"

    def fit(self, f: Tensor, c: Clusters) -> Scorer:
        def score(x: Tensor) -> Scores:
            each = (x[:, None] - c.centroid).abs().sum(-1).double()
            return Scores(*each.min(1))

        return score
"""
STUDY: dict[str, Any] = {
    "id": {"digits": {"limit": 300}},
    "ood": {"near": {"glyphs": {"count": 60, "size": 8}}, "far": {"noise": {"count": 50, "size": 8}}},
    "validation": {"blobs": {"groups": 3, "count": 60}},
    "outliers": None,
    "encoder": {"resnet18": {"width": 8}},
    "recipe": RECIPE,
    "training": ["cross_entropy", "simclr", "csi"],
    "plugins": ["own.py"],
    "space": [{}, {"unit": True}, {"pca": 5}, {"layer": "shifted"}],
    "clustering": ["labels", {"kmeans": {"k": 4, "restarts": 2}}, {"gmm": {"k": 2}}],
    "distance": ["mahalanobis", {"knn": {"k": 3}}, "gmm_likelihood", "csi", "own"],
    "posthoc": ["msp", "react", "vim"],
    "threshold": ["pooled", "per_cluster", "youden"],
    "skip": [
        {"training": "csi", "distance": ["mahalanobis", "knn", "gmm_likelihood", "own"]},
        {"training": "csi", "posthoc": ["msp", "react", "vim"]},
        {"clustering": "gmm", "distance": ["mahalanobis", "own"]},
        {"space": {"pca": 5}, "distance": ["mahalanobis", "own", "knn"]},
        {"space": {"unit": True}, "distance": ["own", "gmm_likelihood"]},
        {"distance": "own", "threshold": "per_cluster"},
    ],
    "scores": {"of": {"seed": 0}},
}
CELLS: dict[str, list[str]] = {
    "labels": ["training=cross_entropy", "space=penultimate", "labels", "mahalanobis", "pooled"],
    "kmeans": ["training=simclr", "space=penultimate unit", "kmeans", "mahalanobis", "per_cluster"],
    "knn": ["training=simclr", "space=penultimate unit", "knn", "pooled"],
    "mixture": ["training=cross_entropy", "space=penultimate pca=5", "gmm_likelihood", "pooled"],
    "own": ["training=cross_entropy", "space=penultimate", "labels", "own", "youden"],
    "csi": ["training=csi", "distance=csi", "pooled"],
    "msp": ["training=cross_entropy", "msp", "pooled"],
    "react": ["training=simclr", "react on linear probe", "pooled"],
    "vim": ["training=simclr", "vim on linear probe", "youden"],
}


class Cell(NamedTuple):
    """A cell of the study, and the folder that was written of it."""

    folder: Path
    row: Any
    exact: Any  # a row for each image of each set, with `score`
    kept: scores.KeptScores


class Made(NamedTuple):
    """What a study left, which is gone."""

    cells: dict[str, Cell]
    images: Arrays  # ID test and the OOD sets, in the study's format
    plugin: Path
    said: dict[str, str]  # what the command printed


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Made]:
    top = tmp_path_factory.mktemp("study")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OODBENCH_RESULTS", str(top / "results"))
        (top / "own.py").write_text(OWN)
        study = write(top / "s.yaml", **STUDY)
        runner = Runner(reader.load(study), Options(device="cpu"))
        runner.run()
        pipeline, cells, said = runner.pipeline, {}, {}
        for name, words in CELLS.items():
            folder = top / "out" / name
            onnx = ["--onnx"] if HAS_ONNX and name in ("labels", "csi") else []
            done = call("export", study, *words, "--to", folder, "--device", "cpu", *onnx)
            assert done.exit_code == 0, f"{name}: {done.output}"
            said[name] = done.output
            cell = json.loads((folder / FACTS).read_text(encoding="utf-8"))["cell"]
            rows = Results(runner.study.results).current()
            (row,) = rows[(rows["cell"] == cell) & (rows["ood"].str.startswith("noise"))].itertuples()
            kept = scores.kept(pipeline.store, (row.key, row.ood, row.ood_data))
            assert kept is not None
            cells[name] = Cell(folder, row, exports.scores(pipeline, cell), kept)
        run = runner.plan.work[0].run
        images = {"ID": np.array(pipeline.library.prepared(run.id, "test").x)}
        images |= {name: np.array(pipeline.library.prepared(each, "test").x) for name, each in run.sets.items()}
        shutil.rmtree(top / "results")
        study.unlink()
        yield Made(cells, images, top / "own.py", said)


def loaded(made: Made, name: str, **more: Any) -> Any:
    return oodbench.load_detector(made.cells[name].folder, device="cpu", plugins=str(made.plugin), **more)


@pytest.mark.slow
@pytest.mark.parametrize("name", CELLS)
def test_scores_are_the_studys_bit_for_bit(made: Made, name: str) -> None:
    cell, found = made.cells[name], loaded(made, name)
    exact = cell.exact[cell.exact["role"] == "ID test"]["score"].to_numpy()
    np.testing.assert_array_equal(found.score(made.images["ID"]), exact)
    np.testing.assert_array_equal(found.score(made.images["ID"]).astype(np.float32), cell.kept.id_)
    np.testing.assert_array_equal(found.score(made.images[cell.row.ood]).astype(np.float32), cell.kept.ood)
    assert found.threshold == cell.row.cut == cell.kept.cut
    assert 1 - found.predict(made.images["ID"]).mean() == pytest.approx(cell.row.id_recall, abs=1e-12)
    assert found.predict(made.images[cell.row.ood]).mean() == pytest.approx(cell.row.ood_recall, abs=1e-12)
    assert "scores are the study's, bit for bit" in made.said[name]


@pytest.mark.slow
@pytest.mark.parametrize("name", CELLS)
def test_the_json_says_what_the_row_says(made: Made, name: str) -> None:
    cell, facts = made.cells[name], loaded(made, name).facts
    assert facts.expected[cell.row.ood].auroc == cell.row.auroc
    assert facts.expected[cell.row.ood].group == "far"
    assert {*facts.expected} == {*made.images} - {"ID"}
    assert facts.accuracy == cell.row.accuracy or (facts.accuracy is None and math.isnan(cell.row.accuracy))
    assert facts.id_recall == pytest.approx(cell.row.id_recall, abs=1e-12)
    assert facts.reference["0.5"] == pytest.approx(np.median(cell.kept.reference), abs=1e-5)
    assert facts.bytes == {each.name: each.stat().st_size for each in cell.folder.iterdir() if each.name != FACTS}
    assert facts.held is not None
    assert (facts.held.images, facts.held.largest_difference) == (300, 0)
    assert len({each.stat().st_mode for each in cell.folder.iterdir()}) == 1  # as the umask has it
    assert json.dumps(str(made.plugin.parent)) not in (cell.folder / FACTS).read_text(encoding="utf-8")


@pytest.mark.slow
def test_the_nearest_class_is_said_where_it_is_known(made: Made) -> None:
    images = made.images["ID"][:40]
    exact = loaded(made, "labels")
    model, facts = exact.model, exact.facts
    with_head = loaded(made, "msp")
    import torch

    with torch.no_grad():
        _, out = model(torch.from_numpy(images).permute(0, 3, 1, 2) / 255)
    assert with_head.nearest(images) == [facts.classes[k] for k in out["logits"].argmax(1)]
    assert {*exact.nearest(images)} <= {*facts.classes}
    assert loaded(made, "knn").nearest(images) == [None] * 40
    assert loaded(made, "kmeans").nearest(images) == [None] * 40
    assert {*loaded(made, "kmeans").judge(images).cluster.tolist()} <= {0, 1, 2, 3}
    assert {*loaded(made, "react").nearest(images)} <= {*facts.classes}  # by the linear probe


@pytest.mark.slow
def test_it_loads_in_a_process_without_study_and_store(made: Made, tmp_path: Path) -> None:
    shutil.copytree(made.cells["kmeans"].folder, tmp_path / "moved" / "detector")
    np.save(tmp_path / "x.npy", made.images["ID"])
    code = (
        "import sys, oodbench\n"
        "d = oodbench.load_detector('moved/detector', device='cpu')\n"
        "import numpy as np\n"
        "np.save('scores.npy', d.score('x.npy'))\n"
        "assert 'pickle' not in str(d.facts)\n"
    )
    away = {name: value for name, value in os.environ.items() if not name.startswith("OODBENCH_")}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=away, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    exact = made.cells["kmeans"].exact
    wanted = exact[exact["role"] == "ID test"]["score"].to_numpy()
    np.testing.assert_array_equal(np.load(tmp_path / "scores.npy"), wanted)
    assert sorted(each.name for each in tmp_path.iterdir()) == ["moved", "scores.npy", "x.npy"]


@pytest.mark.slow
@pytest.mark.skipif(not HAS_ONNX, reason="needs the extra `onnx`")
@pytest.mark.parametrize("name", ["labels", "csi"])
def test_through_onnx_runtime_scores_are_within_1e_5(made: Made, name: str) -> None:
    cell, found = made.cells[name], loaded(made, name, onnx=True)
    np.testing.assert_allclose(found.score(made.images["ID"]).astype(np.float32), cell.kept.id_, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(
        found.score(made.images[cell.row.ood]).astype(np.float32), cell.kept.ood, rtol=1e-5, atol=1e-5
    )
    assert found.facts.held.onnx_difference < 1e-5
    assert "through ONNX Runtime" in made.said[name]


@pytest.mark.slow
def test_without_onnx_in_the_folder_it_is_said(made: Made) -> None:
    with pytest.raises(UserError, match=r"has no encoder.onnx; oodbench export STUDY CELL --to FOLDER --onnx"):
        loaded(made, "knn", onnx=True)


@pytest.mark.slow
def test_files_are_decoded_as_those_of_the_id_set(made: Made, tmp_path: Path) -> None:
    """Of 16 bits, and on their side: `range` and `exif` came later, and folders of before have neither."""
    folder, x, exif = copied(made, tmp_path), made.images["ID"][:1], Image.Exif()
    exif[0x0112] = 6
    lying = Image.fromarray(np.rot90(x[0, ..., 0]).astype(np.uint16) * 257)
    lying.save(tmp_path / "x.png", exif=exif)
    with pytest.raises(UserError, match=r"x\.png: cannot be decoded: it has 16 bits"):
        oodbench.load_detector(folder, device="cpu").score([tmp_path / "x.png"])
    altered(folder, exif=True, range=[0, 65535])
    detector = oodbench.load_detector(folder, device="cpu")
    assert np.array_equal(detector.score([tmp_path / "x.png"]), detector.score(x))
    plain = json.loads((folder / FACTS).read_text(encoding="utf-8"))
    file = {name: value for name, value in plain.items() if name not in ("exif", "range", "digest")}
    (folder / FACTS).write_text(json.dumps({**file, "digest": digest(file)}), encoding="utf-8")
    assert oodbench.load_detector(folder, device="cpu").facts.decoding == Decoding()


# ---- what is damaged ----------------------------------------------------------------------------------------


def copied(made: Made, tmp_path: Path, name: str = "labels") -> Path:
    return shutil.copytree(made.cells[name].folder, tmp_path / "d")


def altered(folder: Path, seal: bool = True, **changes: Any) -> None:
    """Change what detector.json says, with a digest that fits or one that does not."""
    file = folder / FACTS
    plain = json.loads(file.read_text(encoding="utf-8")) | changes
    whole = plain.pop("digest")
    file.write_text(json.dumps({**plain, "digest": digest(plain) if seal else whole}), encoding="utf-8")


@pytest.mark.slow
@pytest.mark.parametrize("name", [ENCODER, BANK])
def test_a_damaged_or_missing_file_is_named(made: Made, tmp_path: Path, name: str) -> None:
    folder = copied(made, tmp_path)
    content = (folder / name).read_bytes()
    (folder / name).write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(UserError, match=f"{name} is damaged: it has another hash"):
        oodbench.load_detector(folder)
    (folder / name).unlink()
    with pytest.raises(UserError, match=f"{name} is missing"):
        oodbench.load_detector(folder)


@pytest.mark.slow
def test_json_that_is_damaged_is_refused(made: Made, tmp_path: Path) -> None:
    folder = copied(made, tmp_path)
    altered(folder, seal=False, cut=1e9)
    with pytest.raises(UserError, match=r"detector.json is damaged: it is not what its digest says"):
        oodbench.load_detector(folder)
    altered(folder, cut=1e9)
    with pytest.raises(UserError, match=r"sets another cut now: it is .* here, and 1000000000\.0 in the study"):
        oodbench.load_detector(folder)
    altered(folder, image={"size": -3})
    with pytest.raises(UserError, match=r"detector.json is no detector's: image.size: Input should be greater"):
        oodbench.load_detector(folder)
    altered(folder, format=2)
    with pytest.raises(UserError, match="its format is 2, this oodbench reads 1"):
        oodbench.load_detector(folder)
    (folder / FACTS).write_text("{")
    with pytest.raises(UserError, match=r"detector.json is damaged"):
        oodbench.load_detector(folder)
    (folder / FACTS).write_text("[" * 100_000)
    with pytest.raises(UserError, match=r"detector.json is damaged"):
        oodbench.load_detector(folder)
    (folder / FACTS).unlink()
    with pytest.raises(UserError, match=r"is no detector: it has no detector.json"):
        oodbench.load_detector(folder)
    with pytest.raises(UserError, match="there is no folder"):
        oodbench.load_detector(tmp_path / "nowhere")


@pytest.mark.slow
def test_tensors_that_do_not_fit_are_one_message(made: Made, tmp_path: Path) -> None:
    folder = copied(made, tmp_path)
    altered(folder, encoder={"name": "resnet18", "params": {"width": 4, "stem": "cifar"}})
    with pytest.raises(UserError, match=r"cannot be made a detector of: RuntimeError: Error"):
        oodbench.load_detector(folder)


@pytest.mark.slow
def test_no_module_is_imported_because_a_folder_names_it(made: Made, tmp_path: Path) -> None:
    folder = copied(made, tmp_path)
    altered(folder, encoder={"name": "antigravity:fly", "params": {}})
    with pytest.raises(UserError, match="its encoder is antigravity:fly, code that is not of oodbench: --own-encoder"):
        oodbench.load_detector(folder)
    assert "antigravity" not in sys.modules


@pytest.mark.slow
def test_a_plugin_of_ones_own_is_asked_for(made: Made, tmp_path: Path) -> None:
    folder = made.cells["own"].folder
    with pytest.raises(UserError, match=r"there is no distance 'own' here, .* give its file or folder \(--plugins"):
        oodbench.load_detector(folder)
    other = tmp_path / "own.py"
    other.write_text(OWN.replace(".abs()", ".abs().abs()"))
    with pytest.warns(UserWarning, match="distance own: its code is not that of the study any more"):
        oodbench.load_detector(folder, plugins=str(other))


@pytest.mark.slow
def test_other_arithmetic_is_warned_of(made: Made, tmp_path: Path) -> None:
    folder = copied(made, tmp_path)
    numbers = json.loads((folder / FACTS).read_text(encoding="utf-8"))["numbers"]
    altered(folder, numbers=numbers | {"bank": 99})
    with pytest.warns(UserWarning, match="whose arithmetic of bank this one does not share"):
        oodbench.load_detector(folder)


# ---- images -------------------------------------------------------------------------------------------------


@pytest.fixture
def pictures(made: Made, tmp_path: Path) -> Path:
    """The first five ID test images as files, in a folder."""
    folder = tmp_path / "pictures"
    (folder / "deeper").mkdir(parents=True)
    for i, x in enumerate(made.images["ID"][:5]):
        Image.fromarray(x[..., 0]).save(folder / ("deeper" if i > 2 else "") / f"{i}.png")
    return folder


@pytest.mark.slow
def test_files_folders_and_arrays_are_the_same_images(made: Made, pictures: Path, tmp_path: Path) -> None:
    found, x = loaded(made, "labels"), made.images["ID"][:5]
    files = sorted(pictures.rglob("*.png"))
    wanted = found.score(x)
    np.testing.assert_array_equal(found.score([pictures / "0.png", *files[1:]]), found.score(files))
    np.testing.assert_array_equal(np.sort(found.score(pictures)), np.sort(wanted))
    np.testing.assert_array_equal(found.score(x[..., 0]), wanted)  # grey, without a last axis
    np.testing.assert_array_equal(found.score(np.repeat(x, 3, axis=3)), wanted)  # the same grey in three channels
    np.save(tmp_path / "x.npy", x)
    np.savez(tmp_path / "x.npz", x=x, y=np.arange(5))
    for name in ("x.npy", "x.npz"):
        np.testing.assert_array_equal(found.score(tmp_path / name), wanted)
    Image.fromarray(np.repeat(x[0], 3, axis=2)).save(tmp_path / "rgb.png")
    np.testing.assert_array_equal(found.score(str(tmp_path / "rgb.png")), found.score(x[:1]))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("x", "says"),
    [
        (np.zeros((2, 8, 8)), r"wanted are images of uint8, \(N, H, W\) or \(N, H, W, C\), not float64 \(2, 8, 8\)"),
        (np.zeros((8, 8), np.uint8), r"wanted are images of uint8"),
        (np.zeros((8, 8, 3), np.uint8), r"is one image of colours or many grey ones: give x\[None\]"),
        (np.zeros((0, 8, 8), np.uint8), "there are no images"),
        ("nowhere.png", "nowhere.png: there is no such file"),
        ([], "there are no images"),
        (np.zeros((1, 8, 8, 2), np.uint8), "images of 2 channels cannot be turned into 1"),
    ],
)
def test_what_is_no_image_is_a_message(made: Made, x: Any, says: str) -> None:
    with pytest.raises(UserError, match=says):
        loaded(made, "labels").score(x)


@pytest.mark.slow
def test_more_images_than_a_batch_are_scored_in_their_order(made: Made, tmp_path: Path) -> None:
    found, x = loaded(made, "labels"), made.images["ID"]
    many = np.concatenate([x] * 4)  # 1200: a batch of 1024 and the rest
    np.testing.assert_allclose(found.score(many), np.tile(found.score(x), 4), rtol=1e-4, atol=1e-4)
    np.save(tmp_path / "many.npy", many)
    np.testing.assert_array_equal(found.score(tmp_path / "many.npy"), found.score(many))


@pytest.mark.slow
def test_predict_prints_a_line_an_image(made: Made, pictures: Path) -> None:
    cell = made.cells["labels"]
    done = call("predict", cell.folder, pictures, "--json", "--device", "cpu")
    assert done.exit_code == 0, done.output
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert [Path(each["file"]).name for each in lines] == ["0.png", "1.png", "2.png", "3.png", "4.png"]
    wanted = loaded(made, "labels").judge(made.images["ID"][:5])
    assert [each["score"] for each in lines] == wanted.score.tolist()
    assert [each["ood"] for each in lines] == wanted.is_ood.tolist()
    assert {each["class"] for each in lines} <= {*loaded(made, "labels").classes}
    assert "ms an image alone (median of" in done.stderr
    assert "in batches of 5; peak memory" in done.stderr


@pytest.mark.slow
def test_predict_goes_on_after_what_is_no_image(made: Made, pictures: Path, tmp_path: Path) -> None:
    (pictures / "bad.png").write_text("no image")
    np.save(tmp_path / "x.npy", made.images["ID"][:2])
    np.save(tmp_path / "floats.npy", np.zeros((2, 8, 8)))
    (tmp_path / "empty").mkdir()
    (tmp_path / "torn.npy").write_bytes(b"\x93NUMPY")
    given = [
        pictures,
        tmp_path / "x.npy",
        tmp_path / "floats.npy",
        tmp_path / "empty",
        tmp_path / "torn.npy",
        "gone.png",
    ]
    done = call("predict", made.cells["labels"].folder, *given, "--device", "cpu")
    assert done.exit_code == 1
    for name, why in (
        ("bad.png", "is no image that Pillow can read"),
        ("floats.npy", "wanted are images of uint8"),
        ("empty", "the folder holds no images"),
        ("torn.npy", ""),
        ("gone.png", "there is no such file"),
    ):
        assert any(name in line and why in line and "no image:" in line for line in done.stderr.splitlines()), name
    rows = [line for line in done.stdout.splitlines() if " in " in line or " out " in line]
    assert [line.split()[0].rpartition("/")[2] for line in rows[:7]] == [
        *("0.png", "1.png", "2.png", "3.png", "4.png"),
        *("x.npy[0]", "x.npy[1]"),
    ]
    assert "their score is above" in done.stdout


@pytest.mark.slow
def test_predict_of_nothing_fails(made: Made) -> None:
    done = call("predict", made.cells["labels"].folder, "gone.png", "--device", "cpu")
    assert done.exit_code == 1
    assert not done.stdout
    damaged = call("predict", "nowhere", "gone.png")
    assert damaged.exit_code == 2
    assert "there is no folder nowhere" in damaged.stderr
