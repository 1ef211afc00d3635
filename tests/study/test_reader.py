"""Reading a study: sweeps and parameters, and one clear message with file and line for every mistake."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from places import ROOT
from tiny import HEAD

from oodbench.errors import UserError
from oodbench.study import reader
from oodbench.study.study import Study
from oodbench.training.weights import plan_of


def load(tmp_path: Path, text: str) -> Study:
    path = tmp_path / "s.yaml"
    path.write_text(text)
    return reader.load(path)


def changed(key: str, value: str) -> str:
    lines = [f"{key}: {value}" if line.startswith(f"{key}:") else line for line in HEAD.splitlines()]
    return "\n".join(
        lines if any(line.startswith(f"{key}:") for line in HEAD.splitlines()) else [*lines, f"{key}: {value}"]
    )


def test_a_minimal_study(tmp_path: Path) -> None:
    found = load(tmp_path, HEAD)
    assert (found.name, found.seeds, [d.label for d in found.ids]) == ("s", [0], ["digits"])
    assert [space.label for space in found.detectors.spaces] == ["penultimate"]
    assert found.precisions == ["float32"]
    assert found.detectors.reference.label == "val(0.1)"


def test_a_list_is_a_sweep_and_a_mapping_sets_parameters(tmp_path: Path) -> None:
    found = load(tmp_path, changed("distance", "[cosine, {knn: {k: [1, 5]}}, {mahalanobis: {singular: [pinv, pca]}}]"))
    assert [d.label for d in found.detectors.distances] == [
        "cosine",
        "knn(k=1)",
        "knn(k=5)",
        "mahalanobis(shared, pinv)",
        "mahalanobis(shared, pca=64)",
    ]


def test_two_sweeps_multiply(tmp_path: Path) -> None:
    found = load(tmp_path, changed("training", "{simclr: {temperature: [0.1, 0.5], head: [mlp-64, mlp-128]}}"))
    assert len(found.trainings) == 4


def test_a_list_parameter_takes_a_list_of_lists_as_a_sweep(tmp_path: Path) -> None:
    one = load(tmp_path, changed("id", "{digits: {keep: [2, 3, 4]}}"))
    several = load(tmp_path, changed("id", "{digits: {keep: [[2, 3], [4, 5]]}}"))
    assert [d.keep for d in one.ids] == [(2, 3, 4)]
    assert [d.keep for d in several.ids] == [(2, 3), (4, 5)]


def test_one_versus_rest_is_a_sweep_over_only(tmp_path: Path) -> None:
    found = load(tmp_path, changed("id", "{digits: {only: [0, 1, 2]}}").replace("noise", "held_out"))
    assert [d.only for d in found.ids] == [0, 1, 2]
    assert [found.ood[d.label]["far"]["held_out"].without for d in found.ids] == [(0,), (1,), (2,)]


def test_merge_keys_of_yaml(tmp_path: Path) -> None:
    found = load(
        tmp_path, HEAD.replace("{size: 8, channels: 1}", "&base {size: 8}") + "recipe: {<<: {lr: 0.2}, epochs: 3}\n"
    )
    assert (found.recipes["simclr"][""].lr, found.settings.image.channels) == (0.2, 3)
    with pytest.raises(UserError, match="did you mean 'epochs'"):
        load(tmp_path, HEAD + "recipe: {<<: {epoch: 0.2}, lr: 3}\n")


def test_functions_take_sweeps(tmp_path: Path) -> None:
    (tmp_path / "nets_that_sweep.py").write_text("def small(channels, size, depth, wide=False): ...\n")
    found = load(tmp_path, changed("encoder", "{nets_that_sweep:small: {depth: [2, 3], wide: true}}"))
    assert [each.params for each in found.encoders] == [{"depth": 2, "wide": True}, {"depth": 3, "wide": True}]


def test_numbers_are_yaml_1_2(tmp_path: Path) -> None:
    found = load(tmp_path, changed("recipe", "{lr: 1e-3, epochs: 3}"))
    assert found.recipes["simclr"][""].lr == 1e-3


def test_recipes_are_changed_by_training(tmp_path: Path) -> None:
    text = changed("training", "[simclr, supcon]") + (
        "\nrecipe: {epochs: 3, augment: {flip: 0, crop: [0.5, 1]}, for: {supcon: {lr: 0.1, augment: {flip: 0.5}}}}"
    )
    found = load(tmp_path, text).recipes
    assert (found["simclr"][""].augment.flip, found["supcon"][""].augment.flip) == (0, 0.5)
    assert found["supcon"][""].augment.crop == (0.5, 1.0)
    assert (found["supcon"][""].lr, found["supcon"][""].epochs) == (0.1, 3)


def test_epochs_to_keep_are_sorted_and_there_once(tmp_path: Path) -> None:
    assert load(tmp_path, HEAD + "keep: [100, last, 0, 500, 100]\n").keep == (0, 100, 500)
    assert load(tmp_path, HEAD + "keep: [last]\n").keep == load(tmp_path, HEAD).keep == ()
    with pytest.raises(UserError, match=r"s.yaml:12: keep: there is no epoch 3: simclr ends with epoch 2"):
        load(tmp_path, HEAD + "recipe: {epochs: 2}\nkeep:\n- 0\n- 3\n")


def test_a_recipe_may_be_swept(tmp_path: Path) -> None:
    found = load(tmp_path, changed("recipe", "{lr: [0.1, 0.5], epochs: 3}")).recipes["simclr"]
    assert list(found) == ["lr=0.1", "lr=0.5"]
    several = load(tmp_path, changed("recipe", "[{lr: 0.1}, {lr: 0.1, augment: {flip: 0}}]")).recipes["simclr"]
    assert list(several) == ["augment.flip=0.5", "augment.flip=0.0"]


def test_a_recipe_by_name(tmp_path: Path) -> None:
    found = load(tmp_path, changed("recipe", "supcontrast/simclr"))
    recipe = found.recipes["simclr"][""]
    assert (recipe.epochs, recipe.batch, recipe.schedule_per) == (1000, 1024, "epoch_end")
    assert found.recipes_shown["simclr"] == {"": "supcontrast/simclr"}


def test_a_recipe_by_name_is_changed(tmp_path: Path) -> None:
    found = load(tmp_path, changed("recipe", "{base: oecl/one_vs_rest, epochs: 100, augment: {flip: 0}}"))
    recipe = found.recipes["simclr"][""]
    assert (recipe.epochs, recipe.lr, recipe.augment.flip, recipe.augment.crop) == (100, 0.1, 0, (0.08, 1.0))
    assert found.recipes_shown["simclr"] == {"": "oecl/one_vs_rest; epochs=100; augment.flip=0.0"}


def test_recipes_by_name_are_swept_and_told_apart(tmp_path: Path) -> None:
    several = "[fast, {base: ssd/simclr, epochs: [20, 40]}, {lr: 0.3}]"
    found = load(tmp_path, changed("recipe", several))
    names = ["fast", "ssd/simclr; epochs=20", "ssd/simclr; epochs=40", "lr=0.3"]
    assert list(found.recipes["simclr"]) == list(found.recipes_shown["simclr"].values()) == names


def test_two_names_of_the_same_values_are_one_recipe(tmp_path: Path) -> None:
    found = load(tmp_path, changed("recipe", "[supcontrast/simclr, supcontrast/supcon]"))
    assert found.recipes_shown["simclr"] == {"": "supcontrast/simclr"}


def test_each_training_may_have_a_recipe_by_name(tmp_path: Path) -> None:
    text = changed("training", "[simclr, supcon, cross_entropy]") + (
        "\nrecipe: {base: fast, epochs: 7, for: {supcon: ssd/supcon, cross_entropy: {base: fast/ce, epochs: 3}}}"
    )
    found = load(tmp_path, text)
    values = {name: (r.epochs, r.batch, r.augment.jitter) for name, v in found.recipes.items() for r in v.values()}
    jitter = (0.4, 0.4, 0.4, 0.1)
    assert values == {"simclr": (7, 256, jitter), "supcon": (7, 512, jitter), "cross_entropy": (3, 256, None)}
    assert [shown[""] for shown in found.recipes_shown.values()] == [
        "fast; epochs=7",
        "ssd/supcon; epochs=7",
        "fast/ce; epochs=3",
    ]


def test_a_name_and_its_values_are_one_key(tmp_path: Path) -> None:
    by_name, base = load(tmp_path, changed("recipe", "fast/ce")), "[0.2, 1.0]"
    values = (
        "{epochs: 20, batch: 256, lr: 0.2, nesterov: true, weight_decay: 5e-4, decay_norms: false, warmup: 3, "
        f"warmup_lr: 0, floor: 0, augment: {{crop: {base}, jitter: null, gray: 0}}}}"
    )
    spelled = load(tmp_path, changed("recipe", values))
    ids = [[cell.id for cell in plan_of(each).cells] for each in (by_name, spelled)]
    assert ids[0] == ids[1]
    shown = [{work.run.labels["recipe"] for work in plan_of(each).work} for each in (by_name, spelled)]
    assert shown[0] == {"fast/ce"} != shown[1]


def test_sets_by_id(tmp_path: Path) -> None:
    text = changed("id", "[digits, {blobs: {groups: 2}}]").replace(
        "{far: noise}", "{near: {digits: [glyphs], blobs: [noise, glyphs]}, far: natural_patches}"
    )
    found = load(tmp_path, text).ood
    assert list(found["digits"]["near"]) == ["glyphs"]
    assert list(found["blobs(groups=2)"]["near"]) == ["noise", "glyphs"]


def test_a_mapping_of_parameters_is_no_mapping_of_id_sets(tmp_path: Path) -> None:
    found = load(tmp_path, HEAD.replace("noise", "{digits: {keep: [1]}}")).ood
    assert list(found["digits"]["far"]) == ["digits(keep=1)"]


def test_held_out_is_what_the_id_set_leaves_out(tmp_path: Path) -> None:
    for given, rest in (("keep: [1, 2]", "without"), ("without: [zero, 5]", "keep")):
        found = load(tmp_path, changed("id", f"{{digits: {{{given}}}}}").replace("noise", "held_out"))
        (held,) = (found.ood[d.label]["far"]["held_out"] for d in found.ids)
        assert getattr(held, rest) is not None


@pytest.mark.parametrize(
    ("key", "value", "line", "said"),
    [
        ("trainig", "simclr", 9, "trainig: there is no such key; did you mean 'training'?"),
        (
            "training",
            "simclrr",
            5,
            "there is no training 'simclrr'; did you mean 'simclr'? allowed: ccl, cider, cross_entropy",
        ),
        (
            "training",
            "{simclr: {temprature: 0.5}}",
            5,
            "did you mean 'temperature'? allowed: as, base_temperature, head, temperature",
        ),
        ("training", "{simclr: {temperature: hot}}", 5, "simclr.temperature: is 'hot', should be a valid number"),
        ("training", "{simclr: {temperature: 0}}", 5, "is 0, should be greater than 0"),
        ("training", "{simclr: {temperature: [0.5, -1]}}", 5, "is -1, should be greater than 0"),
        ("training", "{simclr: {head: mlp}}", 5, "simclr.head: is 'mlp'"),
        ("training", "[]", 5, "the axis is empty"),
        ("distance", "{knn: {k: []}}", 7, "knn.k: is an empty list"),
        ("distance", "{knn: {k: 2.5}}", 7, "is 2.5, should be a valid integer"),
        ("distance", "{knn: {k: true}}", 7, "is True, should be a valid integer"),
        ("distance", "{mahalanobis: {singular: pinvv}}", 7, "did you mean 'pinv'? allowed: pca, pinv, pinv32, shrink"),
        ("distance", "7", 7, "is 7, wanted a name"),
        ("clustering", "{kmeans: {k: 2*class}}", 6, "kmeans.k: is '2*class'"),
        ("training", "{ccl: {k: 0}}", 5, "ccl.k: is 0"),
        ("threshold", "{pooled: {level: 1.5}}", 8, "pooled.level: is 1.5, should be less than 1"),
        ("threshold", "{pooled: {level: 95}}", 8, "should be less than 1"),
        ("image", "{size: 8, chanels: 1}", 1, "chanels: there is no such parameter; did you mean 'channels'?"),
        ("image", "{channels: 1}", 1, "the parameter 'size' is missing"),
        ("image", "8", 1, "is 8, wanted a mapping of parameters"),
        ("encoder", "resnet19", 4, "there is no encoder 'resnet19'; did you mean 'resnet18'?"),
        ("encoder", "no_such:net", 4, "there is no module 'no_such', installed or beside the study"),
        ("encoder", "{resnet18: {width: 0}}", 4, "resnet18.width: is 0"),
        ("encoder", "{resnet18: {width: 100000000}}", 4, "resnet18.width: is 100000000"),
        ("space", "{views: 1000000}", 9, "views: is 1000000"),
        ("encoder", "{timm/resnet18: {width: 8}}", 4, "there is no such parameter"),
        ("encoder", "{timm/vit_base: {image_size: 8}}", 4, "image_size: there is no such parameter; did you mean"),
        ("encoder", "{timm/vit_base: {global_pool: averg}}", 4, "or 'map'; did you mean 'avg'? allowed: avg, "),
        ("encoder", "{timm/vit_base: {img_size: 0}}", 4, "img_size: is 0, should be greater than or equal to 1"),
        ("id", "digit", 2, "there is no dataset 'digit'; did you mean 'digits'?"),
        ("id", "{digits: {keep: [1, 12]}}", 2, "there is no class 12"),
        ("id", "{digits: {without: sevn}}", 2, "there is no class 'sevn'; did you mean 'seven'?"),
        ("id", "{digits: {keep: [1], only: 2}}", 2, "takes one of keep, only and without, not keep and only"),
        ("id", "{blobs: {groups: 64}}", 2, "64 groups need more than 64 pixels"),
        ("ood", "{naer: noise}", 3, "there is no such group; did you mean 'near'?"),
        ("ood", "{}", 3, "the axis is empty"),
        ("ood", "{near: held_out}", 3, "the ID set digits leaves no class out"),
        ("ood", "{near: {cifar: [noise]}}", 3, "the study has no ID set 'cifar'"),
        ("ood", "{near: [], far: noise}", 3, "ood.near: the group is empty"),
        ("ood", "{near: noise, far: [noise]}", 3, "noise is in near, too; a set is in one group"),
        ("distance", "[{cosine: {as: a}}, {cosine: {as: b}}]", 7, "'a' and 'b' are the same: Cosine"),
        ("distance", "{mahalanobis: {components: [32, 64]}}", 7, "two entries are both shown as 'mahalanobis(shared"),
        ("encoder", "{my.nets:small: 3}", 4, "is 3, wanted a mapping of parameters"),
        ("training", "{ccl: {warmup: 500, update_every: 300}}", 5, "needs 601 epochs, the recipe has 500"),
        ("skip", "[{distance: {cosine: {k: 1}}}]", 9, "there is no such parameter"),
        ("skip", "[{space: {layr: penultimate}}]", 9, "did you mean 'layer'?"),
        ("skip", "[{seed: one}]", 9, "is 'one', should be a valid integer"),
        ("seed", "[0, one]", 9, "is 'one', should be a valid integer"),
        ("seed", "[]", 9, "is an empty list"),
        ("space", "{layer: penultimat}", 9, "did you mean 'penultimate'?"),
        ("space", "[]", 9, "the axis is empty"),
        ("recipe", "3", 9, "is 3, wanted a mapping"),
        (
            "recipe",
            "supcontrast/simcl",
            9,
            "there is no recipe 'supcontrast/simcl'; did you mean 'supcontrast/simclr'?",
        ),
        ("recipe", "{base: fsat}", 9, "recipe.base: there is no recipe 'fsat'; did you mean 'fast'?"),
        ("recipe", "{base: [fast]}", 9, "is ['fast'], wanted a recipe's name"),
        ("recipe", "{for: {simclr: fsat}}", 9, "recipe.for.simclr: there is no recipe 'fsat'"),
        ("recipe", "{for: {simclr: {for: {}}}}", 9, "recipe.for.simclr.for: there is no such parameter"),
        ("recipe", "{base: fast, epoch: 3}", 9, "recipe.epoch: there is no such parameter; did you mean 'epochs'?"),
        ("recipe", "{base: fast, accumulate: 7}", 9, "accumulate: batch (256) cannot be cut into 7 equal parts"),
        ("recipe", "{optimizer: lasr}", 9, "did you mean 'lars'?"),
        ("recipe", "{clip: 0}", 9, "recipe.clip: is 0, should be greater than 0"),
        ("recipe", "{optimizer: adamw, nesterov: true}", 9, "nesterov: adamw has none"),
        ("recipe", "[]", 9, "recipe: the axis is empty"),
        ("recipe", "{for: 3}", 9, "is 3, wanted a mapping from training to parameters"),
        ("recipe", "{lr: .inf}", 9, "recipe.lr"),
        ("recipe", "{augment: {crop: [1.0, 0.2]}}", 9, "crop: the first of [1.0, 0.2] is the smaller one"),
        ("seed", "99999999999999999999", 9, "should be less than"),
        ("seed", "-1", 9, "should be greater than or equal to 0"),
        ("clustering", "[one, null]", 6, "clustering: is empty"),
        ("name", "'..'", 9, "'..' cannot name a folder"),
        ("name", "store", 9, "'store' cannot name a folder"),
        ("name", "../x", 9, "cannot name a folder"),
        ("tables", "{../evil: {rows: [training]}}", 9, "'../evil' cannot name a file"),
        ("skip", "[{training: []}]", 9, "is empty"),
        ("store", "s.yaml", 9, "s.yaml is no folder"),
        ("data", "s.yaml", 9, "s.yaml is no folder"),
        ("plugins", "[nowhere]", 9, "plugins: there is no file or folder"),
        ("ood", "{far: {noise: {siz: 3}}}", 3, "ood.far.noise.siz: there is no such parameter"),
        ("recipe", "{epoch: 3}", 9, "did you mean 'epochs'?"),
        ("recipe", "{augment: {crop: [0.5, 2]}}", 9, "augment.crop"),
        ("recipe", "{for: {supcon: {lr: 0.1}}}", 9, "the study has no training 'supcon'; allowed: simclr"),
        ("recipe", "{for: {simclr: {lrr: 0.1}}}", 9, "did you mean 'lr'?"),
        ("reference", "valid", 9, "is 'valid', should be 'val' or 'train'"),
        ("reference", "{val: 1.5}", 9, "should be less than 1"),
        ("precision", "fp16", 9, "precision: is 'fp16'"),
        ("precision", "[bf16, fp16]", 9, "precision: is 'fp16'"),
        ("precision", "[float32, auto]", 9, "precision: has 'auto' in a list"),
        ("skip", "[{precision: fp16}]", 9, "is 'fp16'"),
        ("skip", "{training: simclr}", 9, "wanted a list"),
        ("skip", "[{trainin: simclr}]", 9, "did you mean 'training'?"),
        ("skip", "[{training: supcon}]", 9, "the study has no training 'supcon'"),
        ("tables", "{t: {rows: [training], colums: [ood]}}", 9, "did you mean 'columns'?"),
        (
            "tables",
            "{bets: {short: true}}",
            9,
            "has no rows; without them it is a table of every study; did you mean 'best'?",
        ),
        ("tables", "{selection: {}}", 9, "is no table of this study without the key 'select'"),
        ("tables", "{best: {value: accuracy}}", 9, "has no part in a table without rows; say with the key 'columns'"),
        ("tables", "{best: {against: targets}}", 9, "has no part in a table without rows"),
        ("tables", "{best: {columns: [n, n]}}", 9, "names a column twice"),
        ("keep", "50", 9, "keep: is 50, wanted a list of epochs"),
        ("keep", "[0, -1]", 9, "is -1, wanted an epoch"),
        ("keep", "[true]", 9, "is True, wanted an epoch"),
        ("keep", "[0, lst]", 9, "is 'lst', wanted an epoch, from 0 = before the first step, or 'last'"),
        ("keep", "[last, 501]", 9, "keep: there is no epoch 501: simclr ends with epoch 500"),
        ("curve", "{off: {distance: cosine}}", 9, "did you mean 'of'?"),
        ("curve", "{of: {distnce: cosine}}", 9, "cells have no label 'distnce'; did you mean 'distance'?"),
        ("curve", "{of: {ood: noise}}", 9, "cells have no label 'ood'"),
        ("curve", "{of: {distance: []}}", 9, "is empty"),
        ("training", "oecl", 5, "oecl needs outliers; say which with the key 'outliers'"),
    ],
)
def test_every_mistake_has_a_place_and_a_hint(tmp_path: Path, key: str, value: str, line: int, said: str) -> None:
    with pytest.raises(UserError) as caught:
        load(tmp_path, changed(key, value))
    assert str(caught.value).startswith(f"{tmp_path / 's.yaml'}:{line}: ")
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: [1,\n", "is not YAML"),
        ("a: 1\na: 2\n", "s.yaml:2: a key stands twice"),
        ("- 1\n", "a study is a mapping"),
        ("id: digits\n", "the key 'image' is missing"),
    ],
)
def test_what_is_no_study(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(UserError, match=said):
        load(tmp_path, text)


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="there is no study file"):
        reader.load(tmp_path / "none.yaml")


def test_paths_of_a_study_are_relative_to_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = load(tmp_path, HEAD + "store: here\ndata: ../there\n")
    assert (found.store, found.data) == (tmp_path / "here", tmp_path / "../there")
    monkeypatch.setenv("OODBENCH_STORE", "/elsewhere")
    assert load(tmp_path, HEAD).store == Path("/elsewhere")


def test_tables_are_read_without_plugins(tmp_path: Path) -> None:
    path = tmp_path / "s.yaml"
    path.write_text(HEAD.replace("simclr", "nobody_has_this") + "tables: {t: {rows: [training], of: {ood: noise}}}\n")
    assert reader.tables_of(path)[0]["t"].rows == ("training",)
    with pytest.raises(UserError):
        reader.load(path)


def test_a_copy_of_a_plugins_file_is_another_plugin(tmp_path: Path) -> None:
    """Its class has the same name; the file is what names it."""
    (tmp_path / "mine.py").write_text((ROOT / "methods" / "distance" / "euclidean.py").read_text())
    found = load(tmp_path, changed("distance", "[euclidean, mine]") + "\nplugins: [mine.py]\n")
    assert [each.label for each in found.detectors.distances] == ["euclidean", "mine"]


def test_plugins_of_a_study(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "twice.py").write_text(OWN)
    found = load(tmp_path, HEAD.replace("distance: cosine", "distance: [cosine, {twice: {times: 3}}]\nplugins: [mine]"))
    assert [d.label for d in found.detectors.distances] == ["cosine", "twice(times=3)"]


OWN = '''"""A user's own distance."""
from __future__ import annotations

from torch import Tensor

from oodbench.api import Clusters, Distance, Scorer, Size


class Twice(Distance):
    """Twice: a distance, some times over."""

    times: Size = 2

    def fit(self, f: Tensor, c: Clusters) -> Scorer:
        raise NotImplementedError
'''


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({"two.py": OWN + OWN.split("\n\n\n")[1].replace("Twice", "Thrice")}, "exactly one Distance class"),
        (
            {"half.py": OWN.replace("def fit", "def fitt")},
            r"half.py: Twice does not define fit, as every Distance does; `oodbench new distance NAME` writes a stub",
        ),
        ({"none.py": '"""Nothing."""\n'}, "defines one class that derives from one of Training"),
        ({"cosine.py": OWN}, "two plugins are named 'cosine' in distance"),
        ({"broken.py": "def f(:\n"}, r"broken.py:1: cannot be parsed"),
        (
            {"raises.py": OWN + "\nraise RuntimeError('no licence')\n"},
            "raises.py: cannot be imported: RuntimeError: no licence",
        ),
    ],
)
def test_unusable_plugins_are_named(tmp_path: Path, files: dict[str, str], said: str) -> None:
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    stem = next(iter(files)).removesuffix(".py")
    with pytest.raises(UserError, match=said):
        load(tmp_path, HEAD.replace("distance: cosine", f"distance: {stem}\nplugins: [{next(iter(files))}]"))


@pytest.mark.parametrize("text", [OWN + "\nraise RuntimeError('no licence')\n", "def f(:\n", '"""Nothing."""\n'])
def test_a_broken_plugin_hurts_only_its_user(tmp_path: Path, text: str) -> None:
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "broken.py").write_text(text)
    (folder / "twice.py").write_text(OWN)
    head = HEAD + "plugins: [mine]\n"
    assert load(tmp_path, head.replace("distance: cosine", "distance: twice")).detectors.distances[0].name == "twice"
    with pytest.raises(UserError, match=r"broken\.py"):
        load(tmp_path, head.replace("distance: cosine", "distance: broken"))


def test_a_missing_plugin_folder(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="plugins: there is no file or folder"):
        load(tmp_path, HEAD + "plugins: [nowhere]\n")


def of_repository() -> list[Path]:
    root = ROOT
    return [root / "benchmark.yaml", *sorted((root / "studies").glob("*.yaml"))]


@pytest.mark.parametrize("path", of_repository(), ids=lambda path: path.name)
def test_the_studies_of_the_repository_are_right(path: Path) -> None:
    found: Any = reader.load(path)
    assert found.tables
    if path.stem in ("benchmark", "fashion"):  # the papers' studies hold what their papers do
        assert "cross_entropy" in {training.name for training in found.trainings}
        assert {d.name for d in found.detectors.distances} >= {"cosine"}
