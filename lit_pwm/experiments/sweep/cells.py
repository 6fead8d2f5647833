"""The cells of a sweep: each one command line, one folder, and what has to be there before it."""

from __future__ import annotations

import hashlib
import itertools
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from lit_pwm.errors import LitPWMError
from lit_pwm.experiments.sweep.filling import fill, put, words_of
from lit_pwm.experiments.sweep.plan import FOLDER, Stage, Sweep
from lit_pwm.paths import find_config

OUT = "$OUT"
"""Stands for the sweep's folder in a cell's command, so that a sweep that was moved is still the same sweep."""

_REPEATED = ("--config", "--import", "--set", "--only", "--ignore-options")
"""Options that mean something when they are given several times."""

_LONGEST = 200
"""Bytes of a cell's name, of which folders and files (with a few letters more) are named; systems allow 255."""


@dataclass(frozen=True)
class Cell:
    """One step of a sweep.

    Attributes:
        stage: its stage.
        labels: axis → label, of the axes that the stage runs over.
        arguments: the command line after `lit-pwm`, with `$OUT` for the sweep's folder and patterns as they are.
        needs: keys of the cells that come before.
        configs: name of each config file in the command → a digest of its content.
        fingerprint: digest of the command, the configs, and the fingerprints of the cells before: equal fingerprints
            mean the same work.
    """

    stage: str
    labels: Mapping[str, str]
    arguments: tuple[str, ...]
    needs: tuple[str, ...]
    configs: Mapping[str, str] = field(default_factory=dict)
    fingerprint: str = ""

    @property
    def key(self) -> str:
        """The cell's name and its folder under the sweep's, such as `policy/policy=mlp,seed=0`."""
        return f"{self.stage}/{label_of(self.labels)}"

    def folder(self, out: Path) -> Path:
        """The cell's folder."""
        return out / self.key

    def command(self, out: Path) -> list[str]:
        """The command line after `lit-pwm`; arguments with patterns name the files that match now.

        Raises:
            LitPWMError: a pattern does not match exactly one file.
        """
        return [_resolved(argument, out) for argument in self.arguments]

    def shown(self, out: Path) -> list[str]:
        """The command line as it can be known before the cell runs."""
        return ["lit-pwm", *(put(argument, {OUT: str(out)}) for argument in self.arguments)]


def label_of(labels: Mapping[str, str]) -> str:
    """A readable name of a combination of labels, for folders and files."""
    return ",".join(f"{axis}={label}" for axis, label in labels.items()) or "all"


def cells_of(sweep: Sweep) -> dict[str, Cell]:
    """Every cell of a sweep by its key, each after those it needs.

    Raises:
        LitPWMError: a config file that a command names does not exist, a command gives an option twice, or a cell's
            name is too long for a folder.
    """
    cells: dict[str, Cell] = {}
    for stage in sweep.stages.values():
        for combination in itertools.product(*(sweep.axes[axis] for axis in stage.over)):
            chosen = dict(zip(stage.over, combination, strict=True))
            labels = {axis: chosen[axis] for axis in sweep.axes if axis in chosen}
            if len(os.fsencode(label_of(labels))) > _LONGEST:
                raise LitPWMError(
                    f"A cell of the stage {stage.name!r} would have the folder {label_of(labels)!r}, whose name is "
                    f"longer than {_LONGEST} bytes. Shorten labels, or names of axes."
                )
            cell = _cell(sweep, stage, labels, cells)
            cells[cell.key] = cell
    return cells


def _cell(sweep: Sweep, stage: Stage, labels: Mapping[str, str], before: Mapping[str, Cell]) -> Cell:
    values = {axis: sweep.axes[axis][label] for axis, label in labels.items()}
    run = [word for argument in stage.run for word in words_of(argument, values)]
    values[FOLDER] = f"{OUT}/{stage.name}/{label_of(labels)}"
    variables = {name: text for name, text in sweep.variables.items() if any(f"{{{name}}}" in word for word in run)}
    needs = []
    for name in stage.needs:
        if not any(f"{{{FOLDER}:{name}}}" in text for text in (*run, *variables.values())):
            continue  # which cells with other labels need
        own = {axis: label for axis, label in labels.items() if axis in sweep.stages[name].over}
        needs.append(f"{name}/{label_of(own)}")
        values[f"{FOLDER}:{name}"] = f"{OUT}/{needs[-1]}"
    values |= {name: fill(text, values) for name, text in variables.items()}
    arguments = tuple(fill(argument, values) for argument in run)
    _refuse_repeated(sweep, stage, arguments)
    configs = {name: _digest(find_config(name).read_bytes()) for name in _config_names(arguments)}
    marks = [arguments, configs, [before[need].fingerprint for need in needs]]
    return Cell(stage.name, labels, arguments, tuple(needs), configs, _digest(json.dumps(marks).encode()))


def _refuse_repeated(sweep: Sweep, stage: Stage, arguments: tuple[str, ...]) -> None:
    """Refuse an option that is there twice, in the file or by what its placeholders stand for."""
    given = [argument.partition("=")[0] for argument in arguments if argument.startswith("--")]
    plain = [option.replace(".init_args.", ".").removesuffix(".class_path") for option in given]
    options = [option for option in plain if not option.endswith("+")]  # which appends
    for option in options:
        if options.count(option) > 1 and option not in _REPEATED:
            raise LitPWMError(
                f"{sweep.source} gives the option {option} twice in the command of the stage {stage.name!r}; the last "
                f"would win without a word. Write it once."
            )


def _config_names(arguments: tuple[str, ...]) -> list[str]:
    names = [after for argument, after in itertools.pairwise(arguments) if argument in ("--config", "-c")]
    return names + [argument.partition("=")[2] for argument in arguments if argument.startswith(("--config=", "-c="))]


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]


def _resolved(argument: str, out: Path) -> str:
    if not (argument.startswith(f"{OUT}/") and "*" in argument):
        return put(argument, {OUT: str(out)})
    pattern = argument.removeprefix(f"{OUT}/")
    found = sorted(out.glob(pattern))
    if len(found) != 1:
        names = f": {', '.join(path.name for path in found[:4])}" if found else ""
        raise LitPWMError(
            f"The pattern {str(out / pattern)!r} in a sweep's command should match one file, and matches "
            f"{len(found)}{names}. Make the pattern in the sweep file fit what the stage before leaves."
        )
    return str(found[0])
