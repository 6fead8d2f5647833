"""A run's settings, as its checkpoints keep them: what a run that resumes from one is compared with."""

from __future__ import annotations

import argparse
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from lit_pwm.checkpoints.migration import SETTINGS_KEY
from lit_pwm.errors import LitPWMError
from lit_pwm.paths import expanded, is_url

BEGAN_KEY = "lit_pwm_began_with"
"""The file that a run's command line named to resume from, in its checkpoints."""
BATCH_SIZES, RANKS = ("data.batch_size", "data.second.batch_size"), "ranks"

# Of the Trainer's options, those that say what is computed or for how long; the others say where and what is shown.
_KEPT_OF_TRAINER = re.compile(
    r"trainer\.(precision|deterministic|overfit_batches|reload_dataloaders_every_n_epochs|max_\w+|min_\w+|limit_\w+"
    r"|val_check_interval|check_val_every_n_epoch|callbacks\..*)"
)
# Limits, intervals and what changes no number: a run found by name may differ in these.
_FREE = re.compile(
    r"trainer\.(max_\w+|min_\w+|limit_(val|test|predict)_batches|val_check_interval|check_val_every_n_epoch)"
    r"|trainer\.callbacks\.(RunProgress|\w*ProgressBar|LastCheckpoint|StopOnSignals|KeepBest|RNGState|NonFiniteGuard|RunLock)\b.*"
    r"|trainer\.callbacks\.CheckpointAdapter\b.*"
    r"|trainer\.callbacks\.(?!FinetuneSchedule\b).*\.every_\w+"
    r"|model\.save_world_model"
    rf"|data\.(num_workers|storage)|{'|'.join(map(re.escape, BATCH_SIZES))}|{RANKS}"
)
# Below these, names are the user's own: which there are is a setting too.
_NAMES = re.compile(r"(.+\.(?:FinetuneSchedule(?:_\d+)?\.parts|new_tasks|heads|coefficients))\.([^.]+).*")
_CLASH = "\u200b"  # before names that jsonargparse's own methods have, such as `update`
# Where the networks come from; a resumed run has the checkpoint's.
ORIGINS = ("model.initial_checkpoint", "model.initial_policy_checkpoint", "model.world_model_checkpoint")


def plain(value: Any) -> Any:
    """Tuples as lists, namespaces as dictionaries and paths as text, for comparing and keeping."""
    if isinstance(value, argparse.Namespace):
        return {key.removeprefix(_CLASH): plain(item) for key, item in vars(value).items()}
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    return value if isinstance(value, (str, int, float, bool, type(None))) else str(value)


def settings_of(config: Any, ranks: int) -> dict[str, Any]:
    """Option → plain value, of the configuration of one verb."""
    content = plain(config)
    flat: dict[str, Any] = {RANKS: ranks}
    for part in ("seed_everything", "model", "data", "trainer"):
        _flatten(content.get(part), part, flat)
    kept = {key: value for key, value in flat.items() if not key.startswith("trainer.") or _KEPT_OF_TRAINER.match(key)}
    kept = _with_whole_origins(kept)
    if "data.store" in kept:
        stores = kept["data.store"] if isinstance(kept["data.store"], list) else [kept["data.store"]]
        kept["data.store"] = [place_of(str(store)) for store in stores]
    return kept


def _with_whole_origins(settings: dict[str, Any]) -> dict[str, Any]:
    """The settings with paths of checkpoints that mean the same in any folder."""
    return settings | {key: place_of(settings[key]) for key in ORIGINS if isinstance(settings.get(key), str)}


def place_of(path: str) -> str:
    """The file that a path means, by whatever name and links it is reached; an empty one and a URL stay."""
    return os.path.realpath(expanded(path)) if path and not is_url(path) else path


def _flatten(value: Any, key: str, flat: dict[str, Any]) -> None:
    if isinstance(value, dict):
        for name, item in value.items():
            within = key if name in ("init_args", "dict_kwargs") else f"{key}.{name}"
            _flatten(item, within, flat)
    elif isinstance(value, list) and value and all(isinstance(item, dict) and "class_path" in item for item in value):
        seen: dict[str, int] = {}
        for item in value:
            name = item["class_path"].rsplit(".", 1)[-1]
            seen[name] = seen.get(name, 0) + 1
            _flatten(item, f"{key}.{name}" + (f"_{seen[name]}" if seen[name] > 1 else ""), flat)
    else:
        flat[key] = value


@dataclass(frozen=True)
class Difference:
    """An option that a checkpoint and this run give different values.

    Attributes:
        option: its name.
        theirs: the checkpoint's value.
        ours: this run's.
        is_free: whether a run found by name may differ in it.
    """

    option: str
    theirs: Any
    ours: Any
    is_free: bool

    def __str__(self) -> str:
        return f"{self.option}: {self.theirs!r} in the checkpoint, {self.ours!r} in this run"


def differences(theirs: Mapping[str, Any], ours: Mapping[str, Any]) -> list[Difference]:
    """Options that both know and give different values; those of other versions of a class cannot be compared."""
    found = [
        Difference(key, theirs[key], ours[key], bool(_FREE.fullmatch(key)))
        for key in theirs
        if key in ours and theirs[key] != ours[key] and (key not in ORIGINS or (theirs[key] and ours[key]))
    ]
    # Where only one of them gives a class or a mapping, the other's value has no counterpart of its name.
    for key in dict.fromkeys((*theirs, *ours)):
        sides = [settings.get(key, _given_below(key, settings)) for settings in (theirs, ours)]
        if (key in theirs) != (key in ours) and _NOTHING not in sides and sides[0] != sides[1]:
            found.append(Difference(key, *sides, is_free=bool(_FREE.fullmatch(key))))
    found += _other_names(theirs, ours)
    for stream in BATCH_SIZES:
        counts = [(settings.get(stream), settings.get(RANKS)) for settings in (theirs, ours)]
        whole = [size * ranks for size, ranks in counts if isinstance(size, int) and isinstance(ranks, int)]
        if len(whole) == 2 and whole[0] != whole[1]:
            found.append(Difference(f"{stream} × ranks", whole[0], whole[1], is_free=False))
    return found + _other_callbacks(theirs, ours)


def _other_names(theirs: Mapping[str, Any], ours: Mapping[str, Any]) -> list[Difference]:
    """Mappings in which they do not give the same names, such as parts of a schedule."""
    names: list[dict[str, set[str]]] = []
    for settings in (theirs, ours):
        names.append({})
        for match in filter(None, map(_NAMES.fullmatch, settings)):
            names[-1].setdefault(match[1], set()).add(match[2])
    both = [option for option in names[0] if option in names[1]]
    pairs = ((option, sorted(names[0][option]), sorted(names[1][option])) for option in both)
    return [Difference(option, *pair, is_free=False) for option, *pair in pairs if pair[0] != pair[1]]


_NOTHING = "\0nothing"


def _given_below(key: str, settings: Mapping[str, Any]) -> Any:
    """The class, or the mapping, that settings give for an option; nothing if they do not have the option."""
    below = {name.removeprefix(f"{key}."): value for name, value in settings.items() if name.startswith(f"{key}.")}
    return below.get("class_path", below or _NOTHING)


def _other_callbacks(theirs: Mapping[str, Any], ours: Mapping[str, Any]) -> list[Difference]:
    """Callbacks that only one of them has."""
    prefix, suffix = "trainer.callbacks.", ".class_path"
    names = [
        {key.removesuffix(suffix) for key in settings if key.startswith(prefix) and key.endswith(suffix)}
        for settings in (theirs, ours)
    ]
    if RANKS not in theirs:  # an older checkpoint, which names no callbacks
        return []
    lone = sorted(names[0] ^ names[1])
    return [
        Difference(name, *("used" if name in held else "not used" for held in names), bool(_FREE.fullmatch(name + ".")))
        for name in lone
    ]


def settings_in(checkpoint: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that a checkpoint holds; of one without, its module's options."""
    if SETTINGS_KEY in checkpoint:
        return {str(key).replace(_CLASH, ""): value for key, value in checkpoint[SETTINGS_KEY].items()}
    flat: dict[str, Any] = {}
    held = {key: value for key, value in checkpoint.get("hyper_parameters", {}).items() if not key.startswith("_")}
    _flatten(plain(held), "model", flat)
    return _with_whole_origins(flat)


class KeepSettings(Callback):
    """Writes the run's settings into its checkpoints, and makes sure that all ranks go on from the same one.

    Args:
        settings: this run's.
        resumes_from: the checkpoint that this rank has found.
        began_with: the file that the command line names to resume from.

    Raises:
        LitPWMError: rank zero has found another.
    """

    def __init__(
        self, settings: Mapping[str, Any], resumes_from: str | None = None, began_with: str | None = None
    ) -> None:
        self.settings, self.resumes_from, self.began_with = dict(settings), resumes_from, began_with

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Compare with rank zero, which decides."""
        decided = trainer.strategy.broadcast(self.resumes_from)
        if decided != self.resumes_from:
            raise LitPWMError(
                f"Rank {trainer.global_rank} found {self.resumes_from or 'no checkpoint'} to resume from, and rank 0 "
                f"{decided or 'none'}: the folder of the run must be the same for all ranks. Put it on a disk that all "
                f"nodes share, or name the file with --ckpt_path."
            )

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Add them."""
        checkpoint[SETTINGS_KEY] = self.settings | {RANKS: trainer.world_size}
        checkpoint[BEGAN_KEY] = self.began_with


def planned_ranks(trainer: Mapping[str, Any]) -> int:
    """How many processes a Trainer of these options will have."""
    if os.environ.get("WORLD_SIZE", "").isdigit():
        return int(os.environ["WORLD_SIZE"])
    devices, nodes = trainer.get("devices", "auto"), int(trainer.get("num_nodes") or 1)
    if isinstance(devices, str) and devices.lstrip("-").isdigit():
        devices = int(devices)
    if isinstance(devices, Sequence) and not isinstance(devices, str):
        return nodes * len(devices)
    if isinstance(devices, int) and devices > 0:
        return nodes * devices
    if trainer.get("accelerator", "auto") in ("auto", "gpu", "cuda"):
        import torch

        return nodes * max(1, torch.cuda.device_count())
    return nodes
