"""What `--ckpt_path` means: a file, or a checkpoint of this run found by name."""

from __future__ import annotations

import re
import sys
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from callbacks.stop_on_signals import evaluation_is_owed
from lit_pwm.checkpoints.native import DESCRIPTION_KEY, description_of
from lit_pwm.checkpoints.reading import read_checkpoint
from lit_pwm.checkpoints.wholeness import damaged_part
from lit_pwm.cli.run_settings import (
    BEGAN_KEY,
    ORIGINS,
    SETTINGS_KEY,
    Difference,
    differences,
    place_of,
    settings_in,
)
from lit_pwm.errors import LitPWMError
from lit_pwm.paths import expanded, is_url

FOUND_BY_NAME = ("last", "auto")
# A run's checkpoints lie in its folder of logs, and a run of the same command beside it in the next version's.
_PLACES = ("", "checkpoints/", "version_*/", "version_*/checkpoints/", "*/version_*/", "*/version_*/checkpoints/")
_LIGHTNINGS_OWN = re.compile(r"best|hpc|registry(:.*)?")
_KINDS: dict[str, type] = {
    **dict.fromkeys(("state_dict", "callbacks", "hyper_parameters", "loops", SETTINGS_KEY), dict),
    **dict.fromkeys(("optimizer_states", "lr_schedulers"), list),
}


@dataclass(frozen=True)
class Resumption:
    """A checkpoint to go on from.

    Attributes:
        path: the file.
        global_step: its updates.
        by_name: whether it was found by name, as a part of this same run.
        owes_evaluation: whether the run was stopped in an evaluation, which is still to be done.
    """

    path: Path
    global_step: int
    by_name: bool
    owes_evaluation: bool = False

    @property
    def version(self) -> int | None:
        """The number of the version folder that the file lies in."""
        for folder in self.path.parents[:2]:
            if found := re.fullmatch(r"version_(\d+)", folder.name):
                return int(found[1])
        return None


@dataclass(frozen=True)
class _Candidate:
    path: Path
    global_step: int
    differences: tuple[Difference, ...]
    settings: Mapping[str, Any]
    owes_evaluation: bool
    began_with: str | None

    def rank(self) -> tuple[int, bool, float]:
        return self.global_step, self.path.stem.startswith("last"), self.path.stat().st_mtime

    def refused_for(self) -> list[Difference]:
        return [difference for difference in self.differences if not difference.is_free]


def resolve(asked: str, verb: str, root: Path, kind: str | None, settings: Mapping[str, Any]) -> Resumption | None:
    """Find the checkpoint that is asked for, compare its settings with this run's, and say on stderr what was found.

    Args:
        asked: a file, `last`, or `auto`.
        verb: `fit`, `validate` or `test`.
        root: the run's folder, whose version folders are looked through.
        kind: what a checkpoint of this kind of module holds (`"policy"`, `"world model"`); None for another's module.
        settings: this run's (`lit_pwm.cli.run_settings.settings_of`).

    Returns:
        What to go on from; None for a fresh start, which only `auto` makes.

    Raises:
        LitPWMError: no such file or name; nothing to be found; or what is found is of another run.
    """
    if is_url(asked):
        raise LitPWMError(
            f"--ckpt_path is {asked!r}, and a run goes on from a file beside its own: copy the checkpoint here, and "
            f"name the copy. To start a new run with the weights in it, give the URL as model.initial_checkpoint or "
            f"model.initial_policy_checkpoint."
        )
    path = expanded(asked)
    if path.is_file() or asked not in FOUND_BY_NAME:
        if _LIGHTNINGS_OWN.fullmatch(asked) and not path.is_file():
            raise LitPWMError(_refusal(asked, root))
        return _named(path, verb, kind, settings)
    return _searched(asked, verb, root, kind, settings)


def resolve_restarted(asked: str, root: Path, kind: str | None, settings: Mapping[str, Any]) -> Resumption | None:
    """As `resolve`, for a job that was started again with the same command line, which names a file to resume from.

    It goes on from its own newest checkpoint: beginning with the file once more would lose what it has done since.
    """
    began = place_of(asked)
    if asked not in FOUND_BY_NAME:
        own = [one for one in _candidates("fit", root, kind, settings) if one.began_with == began]
        if (best := _newest_whole([one for one in own if not one.refused_for()])) is not None:
            print(
                f"The job was started again: resuming from {best.path} at update {best.global_step}.", file=sys.stderr
            )
            return Resumption(best.path, best.global_step, by_name=True, owes_evaluation=best.owes_evaluation)
    return resolve(asked, "fit", root, kind, settings)


def _refusal(asked: str, root: Path) -> str:
    files = sorted(path for path in _files(root) if path.stem.startswith(asked))
    shown = f" For example: {', '.join(map(str, files[-3:]))}." if files else ""
    return (
        f"--ckpt_path {asked!r} names no file, and lit_pwm finds checkpoints by the names "
        f"{' and '.join(FOUND_BY_NAME)} only. Give the path of the checkpoint.{shown}"
    )


def _named(path: Path, verb: str, kind: str | None, settings: Mapping[str, Any]) -> Resumption:
    checkpoint = read_checkpoint(path)
    _refuse_other_kinds(checkpoint, path)
    if kind is not None:
        description_of(checkpoint, path)
    if verb == "fit" and not _can_be_resumed(checkpoint):
        raise LitPWMError(
            f"The checkpoint {str(path)!r} holds weights alone, without the state of a training run, so that training "
            f"cannot go on from it. Start a new run with its weights (model.initial_checkpoint), or name a last.ckpt."
        )
    found = differences(settings_in(checkpoint), settings)
    if verb == "fit" and (other := [one for one in found if one.option in ORIGINS]):
        raise LitPWMError(
            f"The checkpoint {str(path)!r} goes on with its own networks, but this run names others: "
            f"{'; '.join(map(str, other))}. Leave the option out to resume, or leave --ckpt_path out to start anew."
        )
    print(f"Resuming from {path}: weights, optimizer moments and counters are the checkpoint's.", file=sys.stderr)
    if found:
        print("These settings differ; this run's win:", *(f"  {one}" for one in found), sep="\n", file=sys.stderr)
    elif any(key.startswith("data.") for key in settings_in(checkpoint)):
        print("All settings are those of the checkpoint.", file=sys.stderr)
    else:
        print("The module's settings are those of the checkpoint, which does not hold others.", file=sys.stderr)
    owed = verb == "fit" and evaluation_is_owed(checkpoint)
    step = checkpoint.get("global_step", 0)
    return Resumption(path, step if isinstance(step, int) else 0, by_name=False, owes_evaluation=owed)


def _refuse_other_kinds(checkpoint: Mapping[str, Any], path: Path) -> None:
    """Refuse parts that are something else than all their readers take them for."""
    for part, kind in _KINDS.items():
        if part in checkpoint and not isinstance(checkpoint[part], kind):
            raise LitPWMError(
                f"The checkpoint {str(path)!r} holds {type(checkpoint[part]).__name__} as {part!r}, where "
                f"{kind.__name__} is expected: the file is damaged. Use a checkpoint as a run wrote it."
            )


def _can_be_resumed(checkpoint: Mapping[str, Any]) -> bool:
    """Whether it holds the state of a training run."""
    loops, step = checkpoint.get("loops"), checkpoint.get("global_step")
    fit_loop = loops.get("fit_loop") if isinstance(loops, Mapping) else None
    return (
        isinstance(step, int)
        and step >= 0
        and isinstance(fit_loop, Mapping)
        and "epoch_loop.val_loop.batch_progress" in fit_loop
        and isinstance(checkpoint.get("optimizer_states"), list)
        and isinstance(checkpoint.get(SETTINGS_KEY, {}), Mapping)
    )


def _files(root: Path) -> list[Path]:
    return [path for place in _PLACES for path in root.glob(f"{place}*.ckpt") if path.is_file()]


def _candidates(verb: str, root: Path, kind: str | None, settings: Mapping[str, Any]) -> list[_Candidate]:
    """The checkpoints under a folder from which a run of this kind could go on."""
    candidates = []
    for path in _files(root):
        if path.stem.startswith("last_good"):
            continue
        checkpoint = _glance(path)
        if checkpoint is None or not _can_be_resumed(checkpoint):
            continue
        if checkpoint[DESCRIPTION_KEY].get("kind") != kind:
            continue
        theirs = settings_in(checkpoint)
        found = [one for one in differences(theirs, settings) if verb == "fit" or one.option.startswith("model.")]
        step, owed = int(checkpoint["global_step"]), evaluation_is_owed(checkpoint)
        candidates.append(_Candidate(path, step, tuple(found), theirs, owed, checkpoint.get(BEGAN_KEY)))
    return candidates


def _searched(asked: str, verb: str, root: Path, kind: str | None, settings: Mapping[str, Any]) -> Resumption | None:
    candidates = _candidates(verb, root, kind, settings)
    if (best := _newest_whole(candidates)) is None:
        if asked == "auto" and verb == "fit":
            print(f"There is no checkpoint of this kind of run under {str(root)!r}: starting anew.", file=sys.stderr)
            return None
        raise LitPWMError(
            f"--ckpt_path {asked} looks for a checkpoint of this kind of run under {str(root)!r} and its version "
            f"folders, and there is none. Give the folder of the run with --trainer.default_root_dir, or a file; "
            f"--ckpt_path auto starts anew where there is none."
        )
    _check_one_run(candidates, best, root)
    print(f"Resuming from {best.path} at update {best.global_step}.", file=sys.stderr)
    if best.differences and verb == "fit":
        print("These settings differ:", *(f"  {one}" for one in best.differences), sep="\n", file=sys.stderr)
    return Resumption(best.path, best.global_step, by_name=True, owes_evaluation=best.owes_evaluation)


def _newest_whole(candidates: list[_Candidate]) -> _Candidate | None:
    """The one with most updates whose bytes are those that were written; those that are not are dropped."""
    candidates.sort(key=_Candidate.rank)
    while candidates:
        if (part := damaged_part(candidates[-1].path)) is None:
            return candidates[-1]
        print(f"{candidates.pop().path} is passed over: {part!r} in it is damaged.", file=sys.stderr)
    return None


def _check_one_run(candidates: Sequence[_Candidate], best: _Candidate, root: Path) -> None:
    """Refuse checkpoints of several runs, or of another than this one."""
    for other in candidates:
        between = [one for one in differences(other.settings, best.settings) if not one.is_free]
        if between:
            shown = "; ".join(
                f"{one.option} is {one.theirs!r} in the first, {one.ours!r} in the second" for one in between
            )
            raise LitPWMError(
                f"Under {str(root)!r} lie checkpoints of several configurations, {str(other.path)!r} and "
                f"{str(best.path)!r}: {shown}. Name the file to resume from, or give each run a folder of its own with "
                f"--trainer.default_root_dir."
            )
    if refused := best.refused_for():
        raise LitPWMError(
            f"The checkpoint {str(best.path)!r} belongs to a run with other settings: "
            f"{'; '.join(map(str, refused))}. Give the settings that it was trained with, name the file to resume from "
            f"it with these, or start anew in another folder (--trainer.default_root_dir)."
        )


def _glance(path: Path) -> dict[str, Any] | None:
    """A checkpoint without its tensors' contents; None for a file that is no whole checkpoint of ours."""
    try:
        with warnings.catch_warnings(action="ignore"):
            content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except Exception:  # damaged or foreign bytes make the reader fail in any way
        print(f"{path} is passed over: it is no whole checkpoint that lit_pwm wrote.", file=sys.stderr)
        return None
    ours = isinstance(content, dict) and isinstance(content.get(DESCRIPTION_KEY), Mapping)
    return content if ours else None
