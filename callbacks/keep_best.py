"""Which checkpoint was best so far, when a run is resumed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint

from lit_pwm.paths import absolute


class KeepBest(Callback):
    """Lets a resumed run go on with the best checkpoints and their scores, also in another folder.

    Lightning forgets both where the folder's name has changed, so that the first evaluation after it counts as the
    best. A file that has moved, or was copied, along with the checkpoint that is resumed from is the one beside it; one
    that is gone is no longer counted. A callback is the same if its class, metric and mode are, whatever its intervals.
    Hook: `on_load_checkpoint`.
    """

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Make the states of the callbacks that keep checkpoints this run's."""
        # In full, because a run that goes on from this one may do so in another working directory.
        beside = absolute(str(trainer.ckpt_path)).parent if trainer.ckpt_path else None
        kept = [one for one in trainer.checkpoint_callbacks if isinstance(one, ModelCheckpoint)]
        states = checkpoint.get("callbacks", {})
        _rename_states(states, [callback.state_key for callback in kept])
        for callback in kept:
            if (state := states.get(callback.state_key)) is not None:
                _make_ours(state, callback, beside)
                callback.current_score = state.get("current_score")  # which Lightning saves, and does not restore


def _rename_states(states: dict[str, object], keys: list[str]) -> None:
    """Give states the keys that callbacks have now, where they differ in intervals alone.

    Only where one state and one callback are left of a kind: of several, nothing tells which is whose.
    """
    lone, new = [key for key in states if key not in keys], [key for key in keys if key not in states]
    for key in new:
        former = [other for other in lone if _without_intervals(other) == _without_intervals(key)]
        rivals = [other for other in new if _without_intervals(other) == _without_intervals(key)]
        if len(former) == len(rivals) == 1:
            states[key] = states.pop(former[0])


def _without_intervals(state_key: object) -> str:
    """Class, metric and mode of a `ModelCheckpoint`, which its key says before its intervals."""
    return str(state_key).partition(", 'every_n_train_steps'")[0]


def _make_ours(state: dict[str, Any], callback: ModelCheckpoint, beside: Path | None) -> None:
    scores = {_now_at(path, beside): score for path, score in state.get("best_k_models", {}).items()}
    scores = {path: score for path, score in scores.items() if path}
    state["best_k_models"] = scores
    better = min if callback.mode == "min" else max
    worse = max if callback.mode == "min" else min
    state["best_model_path"] = (
        better(scores, key=scores.__getitem__) if scores else _now_at(state["best_model_path"], beside)
    )
    state["best_model_score"] = scores[state["best_model_path"]] if scores else None
    state["kth_best_model_path"] = worse(scores, key=scores.__getitem__) if scores else ""
    if scores:
        state["kth_value"] = scores[state["kth_best_model_path"]]
    state["last_model_path"] = _now_at(state.get("last_model_path", ""), beside)
    state["dirpath"] = callback.dirpath


def _now_at(path: str, beside: Path | None) -> str:
    """Where the file is; nothing if it is gone."""
    if not path:
        return path
    places = [Path(path)]
    if beside is not None:  # before where it was, if the whole folder may have been copied
        places.insert(int(beside.name != Path(path).parent.name), beside / Path(path).name)
    return next((str(place) for place in places if place.is_file()), "")
