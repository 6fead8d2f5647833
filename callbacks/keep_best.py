"""Which checkpoint was best so far, when a run is resumed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint


class KeepBest(Callback):
    """Lets a resumed run go on with the best checkpoints and their scores, also in another folder.

    Lightning forgets both where the folder's name has changed, so that the first evaluation after it counts as the
    best. A file that has moved, or was copied, along with the checkpoint that is resumed from is the one beside it; one
    that is gone is no longer counted. Hook: `on_load_checkpoint`.
    """

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Make the states of the callbacks that keep checkpoints this run's."""
        beside = Path(str(trainer.ckpt_path)).parent if trainer.ckpt_path else None
        for callback in trainer.checkpoint_callbacks:
            state = checkpoint.get("callbacks", {}).get(callback.state_key)
            if isinstance(callback, ModelCheckpoint) and state is not None:
                _make_ours(state, callback, beside)


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
