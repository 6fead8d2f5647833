"""Reads a sweep file from YAML, and refuses what is no sweep before anything runs."""

from __future__ import annotations

import graphlib
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import NoReturn

import yaml
from yaml.constructor import ConstructorError

from lit_pwm.errors import LitPWMError, did_you_mean
from lit_pwm.experiments.engine import ordered
from lit_pwm.experiments.sweep.entries import RecordEntry, StageEntry, SweepEntry, as_text, read_entry
from lit_pwm.experiments.sweep.filling import placeholders, words_of
from lit_pwm.experiments.sweep.plan import FOLDER, WORDS, RecordPlan, Stage, Sweep
from lit_pwm.paths import find_config

_NAME = re.compile(r"[a-z][a-z0-9_]*")
_LABEL = re.compile(r"[\w.+-]+")
RECORDS = "records"
"""The folder of a sweep's records in its own."""


def read_sweep(name: str, variables: Mapping[str, str] | None = None) -> Sweep:
    """Read and check a sweep file.

    Args:
        name: a path, or a shipped file such as `configs/sweeps/factorial.yaml`.
        variables: values that replace those of the file.

    Raises:
        LitPWMError: the file is missing or not a sweep: an unknown key, axis, stage or placeholder, or a cycle.
    """
    path = find_config(name)
    try:
        found = yaml.load(path.read_text(encoding="utf-8"), _Loader)
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        raise LitPWMError(
            f"The sweep {str(path)!r} cannot be read as YAML: {' '.join(str(error).split())}. Mend the file."
        ) from error
    return _Reader(f"The sweep {str(path)!r}", path.stem).read(found, variables or {})


class _Loader(yaml.SafeLoader):
    """Refuses a name that is given twice, of which YAML's own would take the last without a word."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[object, object]:
        names = [self.construct_object(key, deep=True) for key, _ in node.value if key.tag != "tag:yaml.org,2002:merge"]
        for place, name in enumerate(names):
            if name in names[:place]:
                raise ConstructorError(None, None, f"the name {name!r} is given twice", node.value[place][0].start_mark)
        return super().construct_mapping(node, deep)


class _Reader:
    """Makes a sweep of a file's entries, and refuses what does not fit together."""

    def __init__(self, source: str, stem: str) -> None:
        self.source, self.stem = source, stem

    def read(self, found: object, overrides: Mapping[str, str]) -> Sweep:
        top = read_entry(SweepEntry, found, self.source)
        axes = {axis: self._labelled(axis, values) for axis, values in top.axes.items()}
        variables: dict[str, str] = {str(name): value for name, value in top.variables.items()}
        for key, value in overrides.items():
            if key not in variables:
                self._refuse(f"has no variable {key!r} that could be set. {did_you_mean(key, variables)}")
            variables[key] = value
        stages = self._stages(top.stages, axes, variables)
        self._check_names(axes, variables)
        record = None if top.record is None else self._record(top.record, stages)
        wanted = {*record.runs.values(), *record.returns.values()} if record else set(stages)
        name = self.stem if top.name is None else top.name
        if not _LABEL.fullmatch(name) or name.startswith((".", "-")):
            self._refuse(
                f"has the name {name!r}, which names its folder; a name is made of letters, digits and . _ + -, and "
                f"begins with a letter, a digit or _."
            )
        return Sweep(name, axes, variables, self._ordered(stages, wanted), record, self.source)

    def _labelled(self, axis: str, values: Mapping[str, str] | Sequence[str]) -> dict[str, str]:
        """An axis' labels and what they stand for."""
        pairs = list(values.items()) if isinstance(values, Mapping) else [(value, value) for value in values]
        labelled = {str(as_text(label)): str(value) for label, value in pairs}
        if len(set(labelled.values())) < len(pairs):
            self._refuse(
                f"gives the axis {axis!r} the same value or label twice, so that one run would count as two: "
                f"{', '.join(value for _, value in pairs)}. Name each once."
            )
        if not labelled:
            self._refuse(f"gives the axis {axis!r} no values; write a list, or a mapping of labels to values.")
        for label in labelled:
            if not _LABEL.fullmatch(label):
                self._refuse(
                    f"gives the axis {axis!r} the label {label!r}, which names folders and is made of letters, digits "
                    f"and . _ + - only; write the axis as a mapping of labels to values."
                )
        return labelled

    def _stages(
        self, declared: Mapping[str, object], axes: Mapping[str, Mapping[str, str]], variables: Mapping[str, str]
    ) -> dict[str, Stage]:
        if not declared:
            self._refuse("has no stages; write at least one, with over and run.")
        stages: dict[str, Stage] = {}
        for name, body in declared.items():
            if not _NAME.fullmatch(str(name)) or name == RECORDS:
                self._refuse(
                    f"names the stage {name!r}; a stage's name is made of lower-case letters, digits and underscores, "
                    f"and is not {RECORDS!r}, which is where a sweep's records go."
                )
            entry = read_entry(StageEntry, body, self.source, whose=f" of the stage {name!r}")
            if not entry.run:
                self._refuse(f"has an empty list `run` of the stage {name!r}; write the command line after lit-pwm.")
            for axis in entry.over:
                if axis not in axes:
                    self._refuse(
                        f"lets the stage {name!r} run over the unknown axis {axis!r}. {did_you_mean(axis, axes)}"
                    )
            over, run = map(str, dict.fromkeys(entry.over)), map(str, entry.run)
            stages[name] = Stage(name, tuple(over), tuple(run))
        return {name: self._with_needs(stage, stages, axes, variables) for name, stage in stages.items()}

    def _with_needs(
        self,
        stage: Stage,
        stages: Mapping[str, Stage],
        axes: Mapping[str, Mapping[str, str]],
        variables: Mapping[str, str],
    ) -> Stage:
        needs: dict[str, None] = {}
        known = [*axes, *variables, FOLDER, *(f"{FOLDER}:{name}" for name in stages)]
        for text in self._all_words(stage, axes):
            for placeholder in self._placeholders(text, stage, variables):
                if placeholder not in known:
                    self._refuse(
                        f"has the unknown placeholder {{{placeholder}}} in the command of the stage {stage.name!r}. "
                        f"{did_you_mean(placeholder, known)} Braces that mean themselves are written twice."
                    )
                if placeholder in axes and placeholder not in stage.over:
                    self._refuse(
                        f"uses the axis {{{placeholder}}} in the command of the stage {stage.name!r}, which runs over "
                        f"{list(stage.over)}; add the axis to its `over`."
                    )
                if placeholder.startswith(f"{FOLDER}:"):
                    other = stages[placeholder.removeprefix(f"{FOLDER}:")]
                    extra = [axis for axis in other.over if axis not in stage.over]
                    if extra:
                        self._refuse(
                            f"lets the stage {stage.name!r} use a folder of the stage {other.name!r}, which runs over "
                            f"{extra} besides, so that there is no single such folder; add the axis to the `over` of "
                            f"{stage.name!r}."
                        )
                    needs[other.name] = None
        return replace(stage, needs=tuple(needs))

    def _all_words(self, stage: Stage, axes: Mapping[str, Mapping[str, str]]) -> Iterator[str]:
        """The arguments of all the stage's cells, with their placeholders."""
        for argument in stage.run:
            axis = argument.removeprefix("{").removesuffix(f":{WORDS}}}")
            if argument != f"{{{axis}:{WORDS}}}" or axis not in stage.over:
                yield argument
                continue
            for label, value in axes[axis].items():
                try:
                    yield from words_of(argument, {axis: value})
                except ValueError as error:
                    self._refuse(
                        f"gives the label {label!r} of the axis {axis!r} a value that does not split into words "
                        f"({error}): {value!r}. Close its quotes."
                    )

    def _placeholders(self, text: str, stage: Stage, variables: Mapping[str, str]) -> Iterator[str]:
        found = self._parsed(text, stage)
        for placeholder in found:
            yield placeholder
            if placeholder in variables:
                for inner in self._parsed(variables[placeholder], stage):
                    if inner in variables:
                        self._refuse(
                            f"has the variable {placeholder!r} refer to the variable {inner!r}; variables may refer to "
                            f"axes and folders only."
                        )
                    yield inner

    def _parsed(self, text: str, stage: Stage) -> list[str]:
        try:
            return list(placeholders(text))
        except ValueError as error:
            self._refuse(
                f"has {text!r} in the command of the stage {stage.name!r}, whose braces do not match ({error}). Braces "
                f"that mean themselves are written twice."
            )

    def _check_names(self, axes: Iterable[str], variables: Iterable[str]) -> None:
        names = [*axes, *variables]
        for name in names:
            if not _NAME.fullmatch(str(name)) or name == FOLDER or names.count(name) > 1:
                self._refuse(
                    f"has an axis or a variable named {name!r}; names are of lower-case letters, digits and "
                    f"underscores, each once, and not {FOLDER!r}."
                )

    def _record(self, found: object, stages: Mapping[str, Stage]) -> RecordPlan:
        entry = read_entry(RecordEntry, found, self.source, place="record.")
        for task, value in entry.discovery.items():
            if not math.isfinite(value):
                self._refuse(
                    f"gives {value!r} for {task!r} in record.discovery; write the return, a number, from which an "
                    f"episode has found what the task is about."
                )
        runs = {"world_model": entry.world_model, "policy": entry.policy}
        runs = {role: str(stage) for role, stage in runs.items() if stage is not None}
        returns = {str(label): str(stage) for label, stage in entry.returns.items()}
        for stage in (*runs.values(), *returns.values()):
            if stage not in stages:
                self._refuse(f"makes its record of the unknown stage {stage!r}. {did_you_mean(stage, stages)}")
        if not returns or len({frozenset(stages[stage].over) for stage in returns.values()}) > 1:
            self._refuse(
                "needs in record.returns at least one stage that evaluates, and all of them over the same axes."
            )
        over = stages[next(iter(returns.values()))].over
        for role, stage in runs.items():
            if not set(stages[stage].over) <= set(over):
                self._refuse(
                    f"makes its record's {role} of the stage {stage!r}, which runs over axes that the stages of "
                    f"returns do not run over ({list(over)})."
                )
        return RecordPlan(runs, returns, {str(task): float(value) for task, value in entry.discovery.items()})

    def _ordered(self, stages: Mapping[str, Stage], wanted: Iterable[str]) -> dict[str, Stage]:
        """The wanted stages and those they need, each after what it needs."""
        try:
            order = ordered({name: stage.needs for name, stage in stages.items()})
        except graphlib.CycleError as error:
            circle = error.args[1][:0:-1]  # each needs the next
            start = min(range(len(circle)), key=lambda place: list(stages).index(circle[place]))
            told = " needs ".join([*circle[start:], *circle[:start], circle[start]])
            self._refuse(f"has stages that wait for each other: {told}. Let one of them do without the other.")
        kept = set(wanted)
        for name in reversed(order):
            kept |= set(stages[name].needs) if name in kept else set()
        return {name: stages[name] for name in order if name in kept}

    def _refuse(self, reason: str) -> NoReturn:
        raise LitPWMError(f"{self.source} {reason}")
