"""Reads a sweep file from YAML, and refuses what is no sweep before anything runs."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

import yaml
from yaml.constructor import ConstructorError

from lit_pwm.errors import LitPWMError, did_you_mean
from lit_pwm.experiments.sweep.filling import placeholders
from lit_pwm.experiments.sweep.plan import FOLDER, RecordPlan, Stage, Sweep
from lit_pwm.paths import find_config

_NAME = re.compile(r"[a-z][a-z0-9_]*")
_LABEL = re.compile(r"[\w.+-]+")
RECORDS = "records"
"""The folder of a sweep's records in its own."""
_KEYS = ("name", "axes", "variables", "stages", "record")


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
    return _Reader(f"The sweep {str(path)!r}", path).read(found, variables or {})


class _Loader(yaml.SafeLoader):
    """Refuses a name that is given twice, of which YAML's own would take the last without a word."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        names = [self.construct_object(key, deep=True) for key, _ in node.value if key.tag != "tag:yaml.org,2002:merge"]
        for place, name in enumerate(names):
            if name in names[:place]:
                raise ConstructorError(None, None, f"the name {name!r} is given twice", node.value[place][0].start_mark)
        return super().construct_mapping(node, deep)


class _Reader:
    def __init__(self, source: str, path: Path) -> None:
        self.source, self.path = source, path

    def read(self, found: Any, overrides: Mapping[str, str]) -> Sweep:
        top = self._mapping(found, "the file", "name, axes, variables, stages and record")
        for key in top:
            if key not in _KEYS:
                self._refuse(f"has the unknown key {key!r}. {did_you_mean(key, _KEYS)}")
        axes = self._axes(top.get("axes", {}))
        variables = {
            str(key): _text(value)
            for key, value in self._mapping(top.get("variables", {}), "variables", "names and values").items()
        }
        for key, value in overrides.items():
            if key not in variables:
                self._refuse(f"has no variable {key!r} that could be set. {did_you_mean(key, variables)}")
            variables[key] = value
        stages = self._stages(top.get("stages", {}), axes, variables)
        self._check_names(axes, variables)
        record = self._record(top.get("record"), stages)
        wanted = {*record.runs.values(), *record.returns.values()} if record else set(stages)
        name = str(top.get("name", self.path.stem))
        if not _LABEL.fullmatch(name) or name.startswith((".", "-")):
            self._refuse(
                f"has the name {name!r}, which names its folder; a name is made of letters, digits and . _ + -, and "
                f"begins with a letter, a digit or _."
            )
        return Sweep(name, axes, variables, self._ordered(stages, wanted), record, self.source)

    def _axes(self, found: Any) -> dict[str, dict[str, str]]:
        axes = {}
        for axis, values in self._mapping(found, "axes", "axis names and their values").items():
            pairs = list(values.items()) if isinstance(values, Mapping) else []
            if isinstance(values, list):
                pairs = [(value, value) for value in values]
            labelled = {_text(label): _text(value) for label, value in pairs}
            if len(set(labelled.values())) < len(pairs):
                self._refuse(
                    f"gives the axis {axis!r} the same value or label twice, so that one run would count as two: "
                    f"{', '.join(_text(value) for _, value in pairs)}. Name each once."
                )
            if not labelled:
                self._refuse(f"gives the axis {axis!r} no values; write a list, or a mapping of labels to values.")
            for label in labelled:
                if not _LABEL.fullmatch(label):
                    self._refuse(
                        f"gives the axis {axis!r} the label {label!r}, which names folders and is made of letters, "
                        f"digits and . _ + - only; write the axis as a mapping of labels to values."
                    )
            axes[axis] = labelled
        return axes

    def _stages(self, found: Any, axes: Mapping[str, Any], variables: Mapping[str, str]) -> dict[str, Stage]:
        stages: dict[str, Stage] = {}
        declared = self._mapping(found, "stages", "stage names, each with over and run")
        if not declared:
            self._refuse("has no stages; write at least one, with over and run.")
        for name, body in declared.items():
            what = f"the stage {name!r}"
            if not _NAME.fullmatch(str(name)):
                self._refuse(f"names {what}; a stage's name is made of lower-case letters, digits and underscores.")
            body = self._mapping(body, what, "over and run")
            for key in body:
                if key not in ("over", "run"):
                    self._refuse(f"has the unknown key {key!r} in {what}. {did_you_mean(key, ('over', 'run'))}")
            over, run = body.get("over", []), body.get("run")
            if not isinstance(over, list) or not isinstance(run, list) or not run:
                self._refuse(f"has no list of axes `over` and list of arguments `run` in {what}; write both.")
            for axis in over:
                if str(axis) not in axes:
                    self._refuse(f"lets {what} run over the unknown axis {axis!r}. {did_you_mean(str(axis), axes)}")
            if name == RECORDS:
                self._refuse(f"names {what}, which is where a sweep's records go; give the stage another name.")
            arguments = tuple(_text(argument) for argument in run)
            stages[name] = Stage(name, tuple(dict.fromkeys(map(str, over))), arguments)
        return {name: self._with_needs(stage, stages, axes, variables) for name, stage in stages.items()}

    def _with_needs(
        self, stage: Stage, stages: Mapping[str, Stage], axes: Mapping[str, Any], variables: Mapping[str, str]
    ) -> Stage:
        needs: dict[str, None] = {}
        known = [*axes, *variables, FOLDER, *(f"{FOLDER}:{name}" for name in stages)]
        for text in stage.run:
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

    def _record(self, found: Any, stages: Mapping[str, Stage]) -> RecordPlan | None:
        if found is None:
            return None
        body = dict(self._mapping(found, "record", "world_model, policy, returns and discovery"))
        discovery = self._mapping(body.pop("discovery", {}), "record.discovery", "tasks and returns")
        for task, value in discovery.items():
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
                self._refuse(
                    f"gives {value!r} for {task!r} in record.discovery; write the return, a number, from which an "
                    f"episode has found what the task is about."
                )
        returns = self._mapping(body.pop("returns", {}), "record.returns", "labels and the stages that evaluate")
        for key in body:
            if key not in ("world_model", "policy"):
                self._refuse(
                    f"has the unknown key {key!r} in record; accepted: world_model, policy, returns, discovery."
                )
        for stage in (*body.values(), *returns.values()):
            if str(stage) not in stages:
                self._refuse(f"makes its record of the unknown stage {stage!r}. {did_you_mean(str(stage), stages)}")
        if not returns or len({frozenset(stages[stage].over) for stage in returns.values()}) > 1:
            self._refuse(
                "needs in record.returns at least one stage that evaluates, and all of them over the same axes."
            )
        over = stages[next(iter(returns.values()))].over
        for role, stage in body.items():
            if not set(stages[stage].over) <= set(over):
                self._refuse(
                    f"makes its record's {role} of the stage {stage!r}, which runs over axes that the stages of "
                    f"returns do not run over ({list(over)})."
                )
        return RecordPlan(body, dict(returns), {str(task): float(value) for task, value in discovery.items()})

    def _ordered(self, stages: Mapping[str, Stage], wanted: Iterable[str]) -> dict[str, Stage]:
        """The wanted stages and those they need, each after what it needs."""
        ordered: dict[str, Stage] = {}

        def visit(name: str, path: tuple[str, ...]) -> None:
            if name in path:
                circle = " needs ".join([*path[path.index(name) :], name])
                self._refuse(f"has stages that wait for each other: {circle}. Let one of them do without the other.")
            if name not in ordered:
                for need in stages[name].needs:
                    visit(need, (*path, name))
                ordered[name] = stages[name]

        for name in stages:
            if name in set(wanted):
                visit(name, ())
        return ordered

    def _mapping(self, found: Any, what: str, expected: str) -> Mapping[str, Any]:
        if not isinstance(found, Mapping):
            kind = {type(None): "nothing", list: "a list", str: "text"}.get(type(found), repr(found))
            self._refuse(f"has {kind} where {what} should be a mapping of {expected}.")
        return found

    def _refuse(self, reason: str) -> NoReturn:
        raise LitPWMError(f"{self.source} {reason}")


def _text(value: Any) -> str:
    """A scalar of the file as commands get it."""
    return "null" if value is None else str(value)
