"""What is looked at before a study does any work: what cannot work is said with its place in the study's file."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from importlib.util import find_spec
from typing import Any, TypeVar

from oodbench.api import Plugin
from oodbench.data import duplicates
from oodbench.errors import UserError, suggestion
from oodbench.execution import audit
from oodbench.execution.pipeline import Pipeline
from oodbench.report.claims.unmet import unmet
from oodbench.study.class_protocol import family
from oodbench.study.document import Trail
from oodbench.study.grid import LAYER_HEAD, Plan, Run, Work, has_shifted, needs_classes
from oodbench.training import augment, batches, distributed, embed, networks

T = TypeVar("T")


class Checks:
    """The checks of a plan, which may be a part of the whole study's; each raises UserError."""

    def __init__(self, pipeline: Pipeline, plan: Plan, whole: Plan) -> None:
        self.study, self.fail, self.warn = pipeline.study, pipeline.study.document.fail, pipeline.watch.warn
        self.pipeline, self.library, self.encoders = pipeline, pipeline.library, pipeline.encoders
        self.plan, self.whole = plan, whole

    def check(self) -> None:
        """Prepare the data and refuse what cannot work, before anything is trained."""
        self.check_study()
        self._check_splits()
        for work in self.plan.work:
            self.library.prepared(work.run.id, "test")
            self._check_sizes(work)
            self._check_reference(work.run)
            for each in work.run.covariate:
                self._checked(("covariate",), partial(self.library.shifted_labels, each, work.run.id))
                if self.library.prepared(each, "test").content == self.library.prepared(work.run.id, "test").content:
                    self.fail(("covariate",), f"{each.label} is ID test itself: none of its images is shifted")
        self._check_overlap()

    def _check_splits(self) -> None:
        """Refuse class splits that are one: a table would take them for several runs."""
        seen: dict[tuple[str, ...], str] = {}
        for id_ in dict.fromkeys(work.run.id for work in self.plan.work):
            contents = (self.library.prepared(id_, "train").content, self.library.prepared(id_, "test").content)
            same = (family(id_), self.study.setups[id_.label].suite, *contents)
            if (other := seen.setdefault(same, id_.label)) != id_.label:
                self.fail(("id",), f"{other} and {id_.label} are the same images of the same classes")

    def check_study(self) -> None:
        """Refuse what cannot work whatever is in the data; read none."""
        if not self.plan.work:
            self.fail((), f"no cell is left: {'; '.join(self.plan.left_out)}")
        self.check_tables()
        self._check_claims()
        for recipe in {work.run.recipe for work in self.plan.work}:
            if 0 < recipe.epochs <= recipe.warmup:
                self.warn(f"the warm-up takes {recipe.warmup} of {recipe.epochs} epochs: the rate never gets to lr")
        self._check_installed()
        for run in (work.run for work in self.plan.work):
            self._checked(("recipe",), partial(augment.check, run.recipe.augment, run.image.channels))
            self._feature_dim(run)

    def check_tables(self) -> None:
        """Refuse a declared table, a curve, or scores to keep, of what no row will have."""
        labels: dict[str, set[str]] = {}
        for each in (*(work.run.labels for work in self.whole.work), *(each.labels for each in self.whole.detectors)):
            for column, label in each.items():
                labels.setdefault(column, set()).add(str(label))
        declared = [self.study.setups[work.run.id.label].ood for work in self.whole.work]  # missing sets, too
        sets = [(name, group) for ood in declared for group, members in ood.items() for name in members]
        labels |= {"ood": {name for name, _ in sets}, "group": {group for _, group in sets}}
        chosen: dict[Trail, dict[str, Any]] = {("tables", name): spec.of for name, spec in self.study.tables.items()}
        chosen |= {("curve",): self.study.curve.of, ("scores",): self.study.scores.of if self.study.scores else {}}
        for trail, of in chosen.items():
            for column, wanted in of.items():
                for each in wanted if isinstance(wanted, list) else [wanted]:
                    if str(each) not in labels[column]:
                        hint = suggestion(each, labels[column])
                        self.fail((*trail, "of", column), f"no row has {column} '{each}'{hint}")

    def _check_claims(self) -> None:
        """Refuse a claim with a side that no row will be of; a dry run and a unit have a part of the rows.

        Where `--set` changes the study that is warned of: its file may be right.
        """
        if self.study.cells is not None or self.study.runs is not None:
            return
        for trail, said in dict.fromkeys(unmet(self.study, self.whole)):
            if not self.study.document.changes:
                self.fail(trail, said)
            self.warn(f"{self.study.document.where(trail)}: {'.'.join(map(str, trail))}: {said}")

    def _check_sizes(self, work: Work) -> None:
        run, train = work.run, self.library.prepared(work.run.id, "train")
        fit = train.y[self.encoders.split(run)[0]]
        items, classes = len(fit), len(train.classes)
        self._checked(("recipe",), lambda: batches.check(run.recipe, items))
        if classes == 1 and (needy := needs_classes(run.training)):
            self.fail(("training",), f"{needy}, {run.id.label} has one class ({train.classes[0]})")
        missing = [name for k, name in enumerate(train.classes) if not (fit == k).any()]
        if missing:
            self.fail(("reference",), f"{run.id.label}: {run.reference.label} leaves no training image of {missing[0]}")
        if not self.encoders.has_weights(run):
            trail = ("recipe", "devices")
            self._checked(trail, lambda: distributed.check(run.recipe, items, self.pipeline.device))
        heads = {layer: form for layer, head in LAYER_HEAD.items() if (form := run.training.heads.get(head))}
        widths = {
            layer: self._checked(("training",), partial(networks.head_dim, form, classes))
            for layer, form in heads.items()
        }
        widths["penultimate"] = self._feature_dim(run)
        if has_shifted(run.training):
            widths["shifted"] = embed.shifted_dim(run.training, classes)
        self._checked(("training",), lambda: self.encoders.check_weights(run))
        for space in {cell.detector.space for cell in work.cells}:
            if space.pca is not None and space.pca > min(widths[space.layer], items):
                self.fail(
                    ("space",),
                    f"pca={space.pca} is wider than the features: {run.title} has {widths[space.layer]} {space.layer} "
                    f"dimensions and {items} training items",
                )

    def _check_reference(self, run: Run) -> None:
        """Refuse a reference set of other classes than the ID set's: its labels would mean other things."""
        if run.reference.held_out:
            mine = self.library.prepared(run.id, "train").classes
            its = self.library.reference_set(run.reference.held_out).classes
            if its != mine:
                its_text, mine_text = (", ".join(each[:5]) + ", ..." * (len(each) > 5) for each in (its, mine))
                what = f"the {len(its)} classes of {run.reference.held_out.label} ({its_text}) are not the {len(mine)}"
                self.fail(("reference",), f"{what} of {run.id.label} ({mine_text})")

    def _check_installed(self) -> None:
        """Refuse plugins whose modules are not installed."""
        plugins: list[Plugin | None] = [*self.study.datasets, *(work.run.training for work in self.plan.work)]
        for each in self.plan.detectors:
            plugins += [each.clustering, each.distance, each.posthoc, each.threshold]
        for plugin in filter(None, plugins):
            for module, how in plugin.requires.items():
                if find_spec(module) is None:
                    raise UserError(f"{self.study.file}: {plugin.label} needs {module}: {how}")

    def _feature_dim(self, run: Run) -> int:
        return self._checked(("encoder",), lambda: self.encoders.feature_dim(run))

    def _checked(self, trail: Trail, look: Callable[[], T]) -> T:
        """Return what is found, or say where in the study the mistake is."""
        try:
            return look()
        except UserError as error:
            self.fail(trail, str(error))

    def _check_overlap(self) -> None:
        """Refuse, or warn of, equal images in two sets that must share none."""
        pairs = audit.pairs(work.run for work in self.plan.work)
        wanted = [each for each in pairs if audit.refused(*each)]
        found = [(message, is_known) for each in wanted for message, is_known in self._overlap(*each)]
        strange = [message for message, is_known in found if not is_known]
        if strange and not self.study.settings.allow_overlap:
            self.fail((), f"{'; '.join(strange)}; `allow_overlap: true` goes on all the same")
        for message, _ in found:
            self.warn(message)

    def _overlap(self, one: audit.Side, other: audit.Side) -> Iterator[tuple[str, bool]]:
        """Yield what two sets share, if anything, and whether they do so as they are published."""
        _, same = duplicates.exact(*(self.library.prepared(each.dataset, each.split).digest for each in (one, other)))
        if not len(same):
            return
        shown = ", ".join(str(i) for i in same[:5]) + (", ..." if len(same) > 5 else "")
        is_known = len(same) <= duplicates.known(one.dataset.label, one.split, other.dataset.label, other.split)
        said = f"{len(same)} images of {other.name} are also in {one.name} (positions {shown})"
        yield said + ", as the two are published" * is_known, is_known
