"""Exceptions of other libraries, and of the system, as one paragraph: the one place that decides which they are.

A user can mend what Lightning, a parser or the system refuses, and that ends in a paragraph and exit code 2. A fault of
ours keeps its traceback and exit code 1. Which it is, is decided by the exception's type and by where it was raised,
never by its words:

- an error of ours that a parser wrapped into its own, while it made an object, is that error;
- `OSError` is the system's: files, folders, disks, addresses;
- `yaml.YAMLError` is a text that is no YAML;
- `MisconfigurationException` is Lightning's word for options that do not go together; so is any other exception of
  `_REFUSALS` that a `raise` statement within Lightning or the parser raised (and not a call, an index or an operation
  there that failed), unless it wraps a fault in a line of ours or of a user's component;
- what was raised while Lightning restored a checkpoint is the checkpoint's: it may hold anything;
- too little memory, of the host or a device;
- what torch's DataLoader raises by itself: a process that made batches was killed.

All else, and everything that our own lines raise that is no `LitPWMError`, is a fault of ours.
"""

from __future__ import annotations

import linecache
import sys
import sysconfig
import traceback
from collections.abc import Sequence
from pathlib import Path

import yaml

from lit_pwm.cli.given import COMMAND_LINE, Option
from lit_pwm.errors import LitPWMError

_LIBRARIES = ("lightning", "lightning_fabric", "pytorch_lightning", "jsonargparse")
_REFUSALS = (ValueError, TypeError, RuntimeError, NotImplementedError, ModuleNotFoundError)
_OURS_INSTEAD = {
    "gradient_clip_val": "The modules clip by themselves: set model.optimizer.clip_norm, or a policy's "
    "model.actor_optimizer.clip_norm and model.critic_optimizer.clip_norm.",
    "accumulate_grad_batches": "Set data.batch_size to the number of slices of an update.",
    "val_check_interval": "Give a whole number of updates.",
    "strategy": "configs/trainer/ddp.yaml names one for several processes.",
}


def explain(error: BaseException, options: Sequence[Option] = ()) -> LitPWMError | None:
    """What to tell a user of `error`, or None where it is a fault of ours that needs its traceback.

    The rule is this module's docstring.

    Args:
        error: what was caught.
        options: what the run was given, to name those that a library's error is about.
    """
    if (own := own_error(error)) is not None:
        return own
    if isinstance(error, OSError):
        return _system_error(error)
    if isinstance(error, yaml.YAMLError):
        return LitPWMError(f"A file is no YAML: {' '.join(str(error).split())}. Mend it.")
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return LitPWMError(
            f"There is too little memory: {_words(error) or type(error).__name__}. Lower data.batch_size, or choose a "
            f"smaller model; data.storage memmap leaves the data in its file."
        )
    if isinstance(error, RuntimeError) and _of_data_workers(error):
        return LitPWMError(
            f"A process that made batches (data.num_workers) ended: {_words(error)[:300].rstrip('.')}. It was killed, "
            f"perhaps for lack of memory. Go on with --ckpt_path auto, and lower data.num_workers if it happens again; "
            f"0 makes batches in the main process."
        )
    if isinstance(error, Exception) and _while_restoring(error):
        given = [str(option.value) for option in options if option.path == ("ckpt_path",)]
        return LitPWMError(
            f"The checkpoint{f' {given[-1]!r}' if given else ''} cannot be resumed from: restoring it ended in "
            f"{type(error).__name__}: {_words(error)[:300].rstrip('.')}. The file is damaged, or was written by "
            f"another version of a class; use a checkpoint as a run wrote it. --debug shows where."
        )
    refused = isinstance(error, _REFUSALS) and _raised_by_statement(error) and not _wraps_a_fault(error)
    if refused or type(error).__name__ == "MisconfigurationException":
        return _library_error(_lightnings_own(error) or error, options)
    return None


def own_error(error: BaseException) -> LitPWMError | None:
    """`error`, or the error of ours that a parser met while it made an object and wrapped into an error of its own."""
    seen: BaseException | None = error
    for _ in range(20):
        if seen is None or isinstance(seen, LitPWMError):
            return seen
        if _library_of(seen) != "jsonargparse":
            return None
        seen = seen.__cause__ or seen.__context__
    return None


def _lightnings_own(error: BaseException) -> BaseException | None:
    """What Lightning refused while a parser made an object of it, which wraps that into a list of all it has tried."""
    seen: BaseException | None = error
    for _ in range(20):
        if seen is None or _library_of(seen) != "jsonargparse":
            break
        seen = seen.__cause__ or seen.__context__
    return seen if seen is not None and seen is not error and _raised_by_statement(seen) else None


def _system_error(error: OSError) -> LitPWMError:
    named = " and ".join(repr(str(name)) for name in (error.filename, error.filename2) if name is not None)
    reason = error.strerror or _words(error) or type(error).__name__
    return LitPWMError(
        f"The system refused {f'to use {named}' if named else 'an operation'}: {reason}. Check that the path is as "
        f"meant, that you may use it, and that its disk has space."
    )


def parser_error(error: BaseException) -> str:
    """A paragraph around what the Trainer verbs' parser says, for what `lit_pwm.cli.diagnosis` does not know."""
    return (
        f"The command line or a config file is not accepted: {_words(error)[:600].rstrip('.')}. Mend it, and see "
        f"`lit-pwm fit --help` for the options and their types."
    )


def _library_error(error: BaseException, options: Sequence[Option]) -> LitPWMError:
    from lightning.pytorch import Trainer

    from lit_pwm.options import hints_of

    words = _words(error)
    names = set("".join(letter if letter.isalnum() or letter == "_" else " " for letter in words).split())
    given = [option for option in options if option.path[0] == "trainer" and len(option.path) > 1]
    named = [option.name for option in given if len(option.path) > 2 and option.path[-1] in names]
    named = named or [f"trainer.{name}" for name in hints_of(Trainer.__init__) if name in names]
    if not named:  # Lightning says the value only, or what it did with it
        values = {name for name in names if name.isalpha()} | {word.strip("`'\".,!()") for word in words.split()}
        named = [option.name for option in given if str(option.value) in values]
    named = named or [option.name for option in reversed(given) if option.source == COMMAND_LINE]
    named = list(dict.fromkeys(named))[:6]
    advice = [_OURS_INSTEAD[last] for name in named if (last := name.rpartition(".")[2]) in _OURS_INSTEAD]
    if named:
        advice.insert(0, f"Look at {' and '.join(named)}.")
    library = "The command line's parser" if _library_of(error) == "jsonargparse" else "Lightning"
    return LitPWMError(
        f"{library} does not accept what this run was given: {words[:600].rstrip('.')}. {' '.join(advice)} See "
        f"`lit-pwm fit --help` for the options."
    )


def _words(error: BaseException) -> str:
    return " ".join(str(error).split())


def _library_of(error: BaseException) -> str | None:
    """The library of `_LIBRARIES` whose line raised `error`, if any."""
    frames = traceback.extract_tb(error.__traceback__)
    return _package(frames[-1].filename) if frames else None


def _package(filename: str) -> str | None:
    for name in _LIBRARIES:
        module = sys.modules.get(name)
        origin = getattr(module, "__file__", None)
        if origin and Path(filename).is_relative_to(Path(origin).parent):
            return name
    return None


def _of_data_workers(error: BaseException) -> bool:
    """Whether torch's DataLoader found that one of its processes has ended; errors in them are raised elsewhere."""
    frames = traceback.extract_tb(error.__traceback__)
    places = ("dataloader.py", "signal_handling.py")
    return bool(frames) and "data" in Path(frames[-1].filename).parts and Path(frames[-1].filename).name in places


def _while_restoring(error: BaseException) -> bool:
    """Whether Lightning was putting a checkpoint's content in its places."""
    return any(
        Path(frame.filename).name == "checkpoint_connector.py"
        and _package(frame.filename) is not None
        and frame.name.startswith(("restore", "_restore", "resume"))
        for frame in traceback.extract_tb(error.__traceback__)
    )


def _raised_by_statement(error: BaseException) -> bool:
    """Whether a `raise` statement of one of `_LIBRARIES` raised it."""
    frames = traceback.extract_tb(error.__traceback__)
    if not frames or _package(frames[-1].filename) is None:
        return False
    line = linecache.getline(frames[-1].filename, frames[-1].lineno or 0)
    return line.strip().startswith("raise")


def _wraps_a_fault(error: BaseException) -> bool:
    """Whether it was raised from an exception of a line that is neither Lightning's, nor a parser's, nor Python's."""
    seen = error.__cause__ or error.__context__
    for _ in range(20):
        if seen is None:
            return False
        frames = traceback.extract_tb(seen.__traceback__)
        if frames and not _parses(frames[-1].filename):
            return True
        seen = seen.__cause__ or seen.__context__
    return False


def _parses(filename: str) -> bool:
    file, standard = Path(filename), Path(sysconfig.get_path("stdlib"))
    installed = "site-packages" in file.parts or "dist-packages" in file.parts
    return (
        filename.startswith("<")
        or _package(filename) is not None
        or file.is_relative_to(Path(yaml.__file__).parent)
        or (file.is_relative_to(standard) and not installed)
    )
