"""From a study's file to a study: every mistake is found here, before any work."""

from __future__ import annotations

import dataclasses
import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from oodbench.api import Training
from oodbench.errors import PluginError, UserError, suggestion
from oodbench.store.artifacts import digest, sha256
from oodbench.study import axes, declarations, recipes, suites
from oodbench.study.axes import AXES, Axes
from oodbench.study.declarations import NAME, ClaimSpec, Select, TableSpec
from oodbench.study.document import PACKAGE, Changed, Document, read
from oodbench.study.fingerprints import module_file, modules
from oodbench.study.grid import check_size
from oodbench.study.registry import ROOMS, Registry
from oodbench.study.study import DRY, Detectors, Settings, Share, Study, folder_of, results_root
from oodbench.study.values import Values, form

Source = Path | Changed | Mapping[str, Any]  # of a study: its file, also with changes, or what would stand in it
SETTINGS = tuple(f.name for f in dataclasses.fields(Settings))
DECLARED = ("tables", "select", "keep", "curve", "scores", "claims")
MEANING = {  # of the keys that are no Settings; docs/study.md says the same
    "suite": "a paper's sets, splits and format, or a list of them, in place of `image`, `id` and `ood`",
    "id": "data sets whose training images encoders are trained on and whose test images are ID",
    "ood": "`{near: sets, far: sets}`; `held_out` is what the ID set leaves out; `{near: {ID name: sets}}` "
    "gives each ID set its own",
    "covariate": "sets whose test images are of ID's classes under a covariate shift: full-spectrum numbers count "
    "them as ID; `{ID name: sets}` gives each ID set its own",
    "outliers": "sets that a training method with outliers sees",
    "validation": "OOD sets whose `train` split thresholds and `select` may see",
    "reference": "the ID scores that thresholds are set on: `val` (a tenth of ID train), `{val: share}`, "
    "`train`, `{set: data set}`",
    "training": "how encoders are trained, or where their weights are from",
    "encoder": "the network: a ResNet by name (`width`, `stem`), `timm/NAME` (`img_size`, "
    "`dynamic_img_size`, `global_pool`), or `package.module:function` with the function's own parameters, which are "
    "all that it takes beside `channels` and `size`",
    "recipe": "how an encoder is optimised",
    "precision": "of a training's arithmetic; `auto` is bf16 where the device has units for it, else float32",
    "seed": "of everything that is drawn",
    "space": "which features detectors see",
    "clustering": "what groups training features; detectors are all combinations that make sense",
    "distance": "what scores items by features and clusters",
    "posthoc": "baselines on a classifier's logits, or on the linear probe's",
    "threshold": "what turns scores into decisions",
    "skip": "cells to leave out: a list of mappings from axis to names, `{training: simclr, seed: [1, 2]}`",
    "tables": "by name: `rows` and `columns` (labels), `value` (one or several numbers), `of` (labels to "
    "keep; the columns come in the order of a list), `caption`, `against` (published numbers: a file, a folder, or "
    "`targets`), `short` (for one column of a paper)",
    "select": "`over` (axes whose settings are chosen, not compared), `by` (val_auroc, val_fpr95_id, val_fpr95_ood)",
    "claims": "by name: `says`, `source`, `table` (rows, quality), `value`, `of`, `left` and `right`, `at` "
    "and `than`, or `among` and `winner`; `pick` (mean, best), `relation` (above, at_least, near), "
    "`margin` (0.5 points of per cent where none is said), `over`, `where` (all, most, mean), `ids` "
    "(like these: an ID set of several is one observation; these: the claim is of them alone)",
    "keep": "epochs after which weights are kept: 0 is before the first step, `last` the end",
    "curve": "`of`: the cells that `oodbench curve` follows over the epochs that `keep` names; nothing in it is one "
    "cell of each distance",
    "scores": "`of`: the cells whose scores by image the store keeps, with the images that they are most "
    "wrong about; nothing in it (`scores: {}`) is one cell of each distance",
    "compat": "true: also the numbers that other codebases' rules give",
}
KEYS = {*SETTINGS, *MEANING}
REQUIRED = ("image", "id", "ood", "encoder", "training", "threshold")
GRID_KEYS = {*AXES[AXES.index("space") :], "plugins", "reference", "tables", "select", "compat"}
GRID_REQUIRED = ("threshold",)


def load(source: Source) -> Study:
    """Read a study and check every key, name and parameter of it."""
    values = _values(read(source))
    settings = values.one(Settings, {key: value for key, value in values.top.items() if key in SETTINGS}, ())
    found = Axes(values)
    # first what needs no plugin: importing one may take seconds and half a gigabyte
    name, spaces, precisions, seeds = _name(values.document), found.spaces(), found.precisions(), found.plain("seed")
    encoders = found.encoders()
    found.check_names()
    chosen, tables, claims = declarations.select(values), declarations.tables(values), declarations.claims(values)
    names = dict.fromkeys(name for name, *_ in values.entries(values.get(("training",)), ("training",)))
    variants = recipes.variants(values, list(names))
    ids, setups = suites.setups(found)
    saw = dict.fromkeys(each.label for setup in setups.values() for each in setup.validation)
    first = next(iter(setups.values()))
    with values.document.blame(("encoder",)):
        for each in encoders:
            each.check(settings.image)
    study = Study(
        document=values.document,
        name=name,
        trainings=found.plugins(Training, ("training",)),
        detectors=found.detectors(spaces, first.reference, tuple(saw), "the key 'validation'"),
        settings=settings,
        ids=ids,
        setups=setups,
        encoders=encoders,
        recipes={name: {label: each.recipe for label, each in of.items()} for name, of in variants.items()},
        recipes_shown={name: {label: each.shown for label, each in of.items()} for name, of in variants.items()},
        precisions=precisions,
        seeds=seeds,
        select=chosen,
        skips=found.skips(),
        tables=tables,
        claims=claims,
        curve=declarations.curve(values),
        scores=declarations.scores(values),
        keep=declarations.keep(values),
    )
    _check(study)
    return study


def load_grid(file: Source, saw: tuple[str, ...]) -> Detectors:
    """Read a file of detectors alone, or what would stand in it: the keys that score."""
    values = _values(read(file, "grid"), GRID_KEYS, GRID_REQUIRED)
    found = Axes(values)
    given = values.top.get("reference")
    if isinstance(given, dict) and list(given) == ["set"]:
        values.fail(("reference", "set"), "features come without images; give those of the held-out set with --val")
    return found.detectors(found.spaces(), found.reference(("reference",)), saw, "the option --validation")


def results_of(source: Source) -> Path:
    """Return the folder of a study's results, without checking the rest of the file."""
    return results_root() / _name(read(source))


def store_of(source: Source) -> Path:
    """Return the folder of a study's artifacts, without checking the rest of the file."""
    document = read(source)
    given = document.value.get("store")
    return folder_of(
        document.file, given if isinstance(given, str) else None, "OODBENCH_STORE", results_root() / "store"
    )


def stamp(document: Document) -> str:
    """Return a hash of what decides the rows of a study: what its file says of them, and code that is its own.

    Rows stay a study's when the package changes: they were published, and `run` tells which it would make otherwise.
    """
    values = _values(document)
    said = {key: value for key, value in values.top.items() if key not in (*DECLARED, "name", "learned", "variance")}
    code = own_code(document)
    return digest([said, sorted(sha256(path) for path in code if path.is_file() and os.access(path, os.R_OK))])


def own_code(document: Document) -> set[Path]:
    """Return the files beside a study and its plugins, and what its plugins and its encoder's functions import."""
    values = _values(document)
    found = axes.registry(values)
    plugins = [source for room in ROOMS for source in found.sources(room).values()]
    own = {source.module: source.path for source in plugins if not source.module.startswith("oodbench.")}
    folders = {values.document.file.parent, *(path.parent for path in own.values())} - {PACKAGE}
    for module in re.findall(r"[\w.]+(?=:\w)", json.dumps(values.top.get("encoder"), default=str)):
        axes.look_beside(values.document.file)
        if (path := module_file(module)) is not None:
            own[module] = path
    code = {path for each in folders for path in each.glob("*.py")}
    for module, path in own.items():
        try:
            imported = modules(module, path)
        except PluginError:  # said where the plugin is used
            imported = {module: path}
        code.update(file for name, file in imported.items() if name.partition(".")[0] != "oodbench")
    return code


def check_owner(document: Document, folder: Path, plan: dict[str, Any]) -> None:
    """Raise UserError where a folder of results has the plan of another study that still bears its name."""
    if "features" in plan:
        raise UserError(f"{folder} is of features that were scored, not of {document.file}; give one another name")
    if not plan.get("file"):
        return
    other = (folder / str(plan["file"])).resolve()
    if other == document.file.resolve() or not other.is_file():
        return
    try:
        its = results_of(other)
    except UserError:
        return
    alike = plan.get("of") == stamp(document) and _folders(document) == _folders(read(other))
    if its.resolve() == folder.resolve() and not alike:
        raise UserError(f"{folder} is of the study {other}, not of {document.file}; give one of them another `name:`")


def _folders(document: Document) -> list[Path]:
    """Return the folders that a study names relative to its file."""
    named = [document.value[key] for key in ("data", "store") if isinstance(document.value.get(key), str)]
    return [(document.file.parent / each).resolve() for each in named]


def tables_of(source: Source) -> tuple[dict[str, TableSpec], Select | None, float | None]:
    """Return the tables that a study or a grid declares, what it selects, and below which accuracy nothing was learned.

    No plugin is imported.
    """
    values = _either(source)
    learned: float | None = values.one(Share | None, values.top.get("learned"), ("learned",))  # type: ignore[arg-type]
    return declarations.tables(values), declarations.select(values), learned


def claims_of(source: Source) -> dict[str, ClaimSpec]:
    """Return the claims that a study declares; no plugin is imported."""
    return declarations.claims(_values(read(source)))


def registry_of(source: Source) -> Registry:
    """Return the plugins that a study or a grid may name; none is imported."""
    return axes.registry(_either(source))


def plugins_of(source: Source) -> list[str]:
    """Return the files and folders of plugins that a study or a grid names, from the root of the file system."""
    document = read(source)
    return [str((document.file.parent / each).resolve()) for each in document.value.get("plugins", [])]


def _name(document: Document) -> str:
    """Return the name of a study, which is also a folder's."""
    name = document.value.get("name") or document.file.stem
    if not isinstance(name, str) or not NAME.fullmatch(name) or name == "store":
        document.fail(
            ("name",), f"{name!r} cannot name a folder; 60 letters, digits, blanks and . + - _ can, not 'store'"
        )
    if name.endswith(DRY):
        document.fail(("name",), f"{name!r}: names that end in {DRY} are of dry runs")
    return name


def _either(source: Source) -> Values:
    """Return the values of a study or of a grid."""
    document = read(source)
    return _values(document) if "training" in document.value else _values(document, GRID_KEYS, GRID_REQUIRED)


def _values(document: Document, keys: set[str] = KEYS, required: tuple[str, ...] = REQUIRED) -> Values:
    """Return the values of a document whose keys are known and that lacks none."""
    for key in document.value:
        if key not in keys:
            document.fail((key,), f"there is no such key{suggestion(key, keys)}")
    values = Values(suites.resolve(document))
    for key in required:
        if key not in values.top:
            values.fail((), f"the key '{key}' is missing; wanted are {', '.join(required)}{form((key,))}")
    if not {"distance", "posthoc"} & set(values.top):
        values.fail((), "the key 'distance' is missing, and 'posthoc', too; one of them is needed, or both")
    return values


def _check(study: Study) -> None:
    """Refuse what does not go together."""
    fail = study.document.fail
    if study.settings.variance and study.settings.store:
        fail(("variance",), "a study whose file names its store cannot be run beside itself; use OODBENCH_STORE")
    needy = sorted({training.label for training in study.trainings if training.outliers})
    if needy and not study.outliers:
        fail(("training",), f"{', '.join(needy)} needs outliers; say which with the key 'outliers'")
    for training in study.trainings:
        for recipe in study.recipes[training.name].values():
            if training.mixing is not None and recipe.devices > 1:
                fail(("training",), f"{training.label} mixes images of a batch, which {recipe.devices} devices share")
            if 0 < recipe.epochs < training.least_epochs:
                needs = f"{training.label} warms up and needs {training.least_epochs} epochs, the recipe has"
                fail(("training",), f"{needs} {recipe.epochs}; its last part would never be trained")
    for name, found in study.recipes.items():
        last = min(recipe.epochs for recipe in found.values())
        if late := [each for each in study.keep if each > last]:
            at = ("keep", study.document.value["keep"].index(late[0]))
            fail(at, f"there is no epoch {late[0]}: {name} ends with epoch {last}")
    for key, folder in (("data", study.data), ("store", study.store)):
        if folder.exists() and not folder.is_dir():
            fail((key,), f"{folder} is no folder")
    axes.check_skips(study)
    check_size(study)
