"""Data of a plausible run, from which every section of the report is built."""

import json
from types import SimpleNamespace

import numpy as np
import pytest

from lit_pwm.evaluation.video import Recording, write_video
from lit_pwm.experiments import report
from lit_pwm.provenance import describe_machine

TASKS = ("cartpole-swingup", "cup-catch", "cartpole-balance")


def plausible_rows():
    rng = np.random.default_rng(3)
    centres = {
        "cartpole-swingup": {"random": 60, "data": 150, "best": 740, "last": 690},
        "cup-catch": {"random": 0, "data": 60, "best": 930, "last": 860},
        "cartpole-balance": {"random": 330, "data": 260, "best": 960, "last": 900},
    }
    spread = {"random": 25, "data": 60, "best": 45, "last": 90}
    return [
        report.ResultsRow(
            task,
            {
                method: np.clip(rng.normal(centre, spread[method], 80 if method == "data" else 10), 0, 1000).tolist()
                for method, centre in methods.items()
            },
        )
        for task, methods in centres.items()
    ]


def plausible_world_model_curves():
    rng = np.random.default_rng(4)
    updates = np.arange(40, 1501, 40)

    def falling(start, end, noise=0.04):
        values = end + (start - end) * np.exp(-updates / 300)
        return list(
            zip(updates.tolist(), (values * np.exp(noise * rng.normal(size=len(updates)))).tolist(), strict=True)
        )

    curves = {"train/loss": falling(0.6, 0.12), "val/loss": falling(0.62, 0.14)}
    for k, end in ((1, 0.012), (4, 0.05), (16, 0.18)):
        curves[f"val/latent_error_{k}"] = falling(0.8, end)
        curves[f"val/latent_error_copy_last_{k}"] = falling(1.3, 0.2 * k**0.6)
        curves[f"val/latent_variance_{k}"] = falling(0.01, 0.015)
        curves[f"val/reward_error_{k}"] = falling(0.9, 1.5 * end)
        curves[f"val/reward_error_copy_last_{k}"] = falling(1.5, 0.3 * k**0.5)
    return curves


def plausible_policy_curves():
    rng = np.random.default_rng(5)
    updates = np.arange(0, 801, 80)
    return {
        task: {
            f"round {n}": [
                (int(u), float(np.clip(top * n / 3 * (1 - np.exp(-u / 200)) + rng.normal(0, 30), 0, 1000)))
                for u in updates
            ]
            for n in (1, 2, 3)
        }
        for task, top in zip(TASKS, (750, 930, 950), strict=True)
    }


def plausible_panels():
    rng = np.random.default_rng(6)
    steps = np.arange(33)
    panels = []
    for task in TASKS:
        for quantity in ("reward", "cart position", "pole angle (cosine)"):
            truth = np.sin(steps / rng.uniform(4, 8) + rng.uniform(0, 6)) * rng.uniform(0.3, 1)
            predicted = truth + np.cumsum(rng.normal(0, 0.012, len(steps)))
            panels.append(
                report.OpenLoopPanel(task, quantity, truth.tolist(), predicted.tolist(), [truth[0]] * len(steps))
            )
    return panels


def plausible_ends():
    bins = [(52_000, 4e-5, 0.0), (700, 0.002, 0.004), (90, 0.31, 0.24), (210, 0.93, 0.88)]
    rates = {"transitions": 53_000, "ends": 206, "brier": 0.0021, "base_rate": 0.004, "brier_base_rate": 0.0039}
    return rates | {"bins": [dict(zip(("count", "predicted", "observed"), one, strict=True)) for one in bins]}


def plausible_record():
    return {
        "Run": {
            "command": "lit-pwm demo --seed 1 --out runs/demo",
            "seed": 1,
            "evaluation seeds": {"choosing checkpoints": "10000 to 10009", "reported": "0 to 9"},
        },
        "Versions": {"lit_pwm": "0.1.0", "torch": "2.13.0"},
        "Machine": describe_machine(),
        "Data": {"tasks": list(TASKS), "episodes": 240, "transitions": 120_000},
    }


@pytest.fixture(scope="session")
def recordings(tmp_path_factory):
    """One real video file, and a recording that could not be made."""
    path = tmp_path_factory.mktemp("videos") / "ramp.mp4"
    frames = (np.full((48, 64, 3), 8 * i, np.uint8) for i in range(20))
    write_video(path, frames, 20)
    missing = Recording("cartpole-balance", 3, 412.5, None, "No video of cartpole-balance: nothing here can render.")
    return [Recording("cup-catch", 3, 958.0, path), missing]


@pytest.fixture
def all_sections(recordings):
    return [
        report.ResultsSection(plausible_rows(), note="10 episodes of 500 steps, on seeds that chose nothing."),
        report.VideosSection(recordings),
        report.PolicyCurvesSection(
            plausible_policy_curves(), {task: {"data, mean": 150.0, "random policy": 60.0} for task in TASKS}
        ),
        report.WorldModelCurvesSection(plausible_world_model_curves()),
        report.OpenLoopSection(plausible_panels()),
        report.ReliabilitySection({"cartpole-dash": plausible_ends()}),
        report.StagesSection(
            {"collect noise": 41.2, "round 1: world model": 63.9, "round 1: policies": 95.0, "evaluate": 21.4}
        ),
        report.RunRecordSection(plausible_record()),
    ]


# -- records, small ones ---------------------------------------------------------------------------------------------
LABELS = {"policy": ("mlp", "flow"), "task": ("cup-catch", "walker-run"), "seed": ("0", "1", "2")}


def cell(policy, task, seed, updates=100, shift=0.0):
    """A sweep's record, as an older version wrote it."""
    command = f"lit-pwm fit --config configs/policy/{policy}_tiny.yaml --data.tasks [{task}] --seed_everything {seed} "
    return {
        "kind": "sweep", "format": 1, "sweep": "small",
        "labels": {"policy": policy, "task": task, "seed": seed},
        "axes": {axis: list(labels) for axis, labels in LABELS.items()},
        "returns": {"best": {"tasks": {task: {"returns": [100.0 + 7 * int(seed) + shift, 120.0 + len(policy)]}}}},
        "cells": {"policy": {"command": f"{command}--trainer.max_steps {updates}", "seconds": 3.0, "started": "2026",
                             "configs": {f"configs/policy/{policy}_tiny.yaml": policy}}},
        "versions": {},
    }  # fmt: skip


def write(folder, record, name=None):
    folder.mkdir(parents=True, exist_ok=True)
    name = name or ",".join(f"{axis}={label}" for axis, label in record["labels"].items())
    (folder / f"{name}.record.json").write_text(json.dumps(record))


def demo(seed, shift=0.0, minutes=1, order=1):
    tasks = [
        {
            "task": task, "returns": {kind: [10.0 + seed + shift, 20.0] for kind in ("random", "data", "best", "last")},
            "open_loop": {"series": []}, "video": None, "video_return": 1.0, "notice": "none",
        }
        for task in ("one", "two")[::order]
    ]  # fmt: skip
    return {
        "kind": "demo", "format": 1, "seed": seed, "command": "lit-pwm demo", "plan": {"minutes": minutes},
        "seconds": {"all": 3.0}, "versions": {}, "machine": {}, "tasks": tasks, "world_model_curves": {},
        "policy_curves": {"one": {}, "two": {}},
    }  # fmt: skip


def write_demo(folder, record):
    folder.mkdir(parents=True)
    (folder / "record.json").write_text(json.dumps(record))


@pytest.fixture(scope="session")
def made():
    """Makes records of a small sweep and of demos, and writes them."""
    return SimpleNamespace(cell=cell, write=write, demo=demo, write_demo=write_demo, ends=plausible_ends, LABELS=LABELS)
