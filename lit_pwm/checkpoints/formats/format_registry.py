"""The formats that lit_pwm reads and writes, in the order in which they are asked whose a file is."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lit_pwm.checkpoints.formats.base import Format, TaskNames
from lit_pwm.checkpoints.formats.own_file import OwnFile
from lit_pwm.checkpoints.formats.plain_state_dict import PlainStateDict
from lit_pwm.checkpoints.formats.pwm_model import PWMModel, PWMModule
from lit_pwm.checkpoints.formats.pwm_training import FlowMBPO, PWMTraining
from lit_pwm.checkpoints.formats.tdmpc2_current import TDMPC2Current
from lit_pwm.checkpoints.formats.tdmpc2_original import TDMPC2Original
from lit_pwm.checkpoints.reading import first_line, read_checkpoint
from lit_pwm.errors import LitPWMError, did_you_mean

FORMATS: tuple[Format, ...] = (
    OwnFile(), FlowMBPO(), PWMTraining(), TDMPC2Current(), TDMPC2Original(), PWMModel(), PWMModule(), PlainStateDict(),
)  # fmt: skip


_SHOWN = 8
_WRAPPERS = {"_orig_mod.": "torch.compile", "module.": "DistributedDataParallel"}


def format_named(name: str) -> Format:
    """The format of this name.

    Raises:
        LitPWMError: there is none.
    """
    found = next((one for one in FORMATS if one.name == name), None)
    if found is None:
        raise LitPWMError(
            f"There is no format of checkpoints {name!r}. {did_you_mean(str(name), [one.name for one in FORMATS])}"
        )
    return found


def format_of(raw: Mapping[Any, Any], path: str | Path) -> Format:
    """The format of a file's content.

    Raises:
        LitPWMError: it is of none.
    """
    found = next((one for one in FORMATS if one.recognises(raw)), None)
    if found is None:
        raise LitPWMError(
            f"The checkpoint {str(path)!r} was not written by lit_pwm, and is of no other format that it reads: it "
            f"holds {_shown(raw) or 'nothing'}. {_advice(raw)}It reads {'; '.join(one.title for one in FORMATS)}."
        )
    return found


def _shown(raw: Mapping[Any, Any]) -> str:
    """The first keys, those of what lies under one of them too."""
    inner = [f" (with {', '.join(_listed(value, 3))})" if isinstance(value, Mapping) else "" for value in raw.values()]
    return ", ".join(f"{key}{within}" for key, within in zip(_listed(raw, _SHOWN), inner, strict=False))


def _listed(keys: Mapping[Any, Any], count: int) -> list[str]:
    return [f"{key!r:.60}" for key in list(keys)[:count]]


def _advice(raw: Mapping[Any, Any]) -> str:
    """What is to be said of keys that only a wrapper's name keeps from being known."""
    for prefix, wrapper in _WRAPPERS.items():
        bare = _without(prefix, {key: _without(prefix, value) for key, value in raw.items()})
        if (found := next((one for one in FORMATS if one.recognises(bare)), None)) is not None:
            return (
                f"Keys begin with {prefix!r}, the name that {wrapper} gives to the module which it wraps, and without "
                f"it they are those of {found.title}: save the weights of that module. "
            )
    return ""


def _without(prefix: str, level: Any) -> Any:
    """A mapping by its keys without a prefix; anything else as it is."""
    if not isinstance(level, Mapping):
        return level
    return {key.removeprefix(prefix) if isinstance(key, str) else key: value for key, value in level.items()}


def read_any(
    path: str | Path, tasks: TaskNames | None = None, otherwise_tasks: TaskNames | None = None
) -> dict[str, Any]:
    """Read a checkpoint of any format as a native one, without running any code that it might contain.

    Args:
        path: the file.
        tasks: names of its tasks in the order of its rows, where the file does not say them.
        otherwise_tasks: the same, and nothing where it says them.

    Raises:
        LitPWMError: it is missing, unreadable, of no known format, not as its format says, or its tasks need names.
    """
    raw, form = read_raw(path)
    named = tasks if tasks is not None or isinstance(form, OwnFile) else otherwise_tasks
    try:
        return form.read(raw, path, named)
    except LitPWMError:
        raise
    except Exception as error:  # a damaged file may hold anything under the keys that it is recognised by
        raise LitPWMError(
            f"The checkpoint {str(path)!r} is not what {form.title} holds ({type(error).__name__}: "
            f"{first_line(error)[:200]}). Nothing of it was loaded; use a whole file of that format."
        ) from error


def read_raw(path: str | Path) -> tuple[dict[str, Any], Format]:
    """A checkpoint's content as it lies in the file, and its format.

    Raises:
        LitPWMError: it is missing, unreadable, or of no known format.
    """
    raw = read_checkpoint(path, stubs=[stub for one in FORMATS for stub in one.stubs])
    return raw, format_of(raw, path)
