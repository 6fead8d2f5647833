"""The study of terminations: its arms differ in what they believe of ends, and its criteria can fail."""

import argparse
import json

import pytest
from joint_study import controls
from policy_study import parser_of
from termination_arms import ARMS, HEAD, IGNORING, MODEL_OPTIONS, MODELS, TASKS
from termination_data import SEED, collected
from termination_figure import figure, pooled
from termination_study import RESULTS, model_record, studies, work_in
from termination_table import NONE, criteria_table, in_order, read_heads, sections

from datamodules import EpisodeStore, collect
from lit_pwm.errors import LitPWMError
from lit_pwm.experiments.recipes import Recipe

TASK = "cartpole-dash"


def given(stores, folder, **options) -> argparse.Namespace:
    parser = parser_of("", str(folder / "runs"), RESULTS, TASKS, ARMS)
    arguments = parser.parse_args(["--stores", *map(str, stores), "--results", str(folder / "results")])
    return argparse.Namespace(**{**vars(arguments), **options})


def test_the_arms_differ_in_their_discounting_alone():
    recipes = {name: Recipe(arm.configs, {"data.store": "x.h5", **arm.options}) for name, arm in ARMS.items()}
    classes = {name: recipe["model.discounting"]["class_path"].split(".")[-1] for name, recipe in recipes.items()}
    assert classes == {HEAD: "ContinuationDiscount", IGNORING: "ConstantDiscount"}
    for recipe in recipes.values():
        recipe["model.discounting"] = None
    plain = [recipe.parsed.as_dict() for recipe in recipes.values()]
    assert [one["trainer"] for one in plain[1:]] == [one["trainer"] for one in plain[:-1]]
    assert plain[0]["model"] == plain[1]["model"]
    assert plain[0]["data"] == plain[1]["data"]
    assert len({arm.model for arm in ARMS.values()}) == 1, "both on one world model"
    Recipe(MODELS["model"], {"data.store": "x.h5", **MODEL_OPTIONS})


def test_a_task_is_studied_on_the_stores_that_hold_it(tmp_path):
    stores = [tmp_path / f"{task}.h5" for task in TASKS]
    for task, store in zip(TASKS, stores, strict=True):
        collect((task,), 1, store, workers=1, progress=False)
    found = studies(given(stores, tmp_path))
    assert {task: study.stores for task, study in found.items()} == {
        task: (str(store),) for task, store in zip(TASKS, stores, strict=True)
    }
    assert len({study.runs for study in found.values()}) == len(TASKS)
    work = work_in(found[TASK], TASK, range(2))
    assert len(work) == 2 * (1 + 2 + 1) + 1
    assert work[f"{TASK} ignoring 1"].needs == work[f"{TASK} scores 1"].needs == ("model 1",)
    with pytest.raises(LitPWMError, match=r"None of the stores .* holds 'cartpole-keep-up'"):
        studies(given(stores[:1], tmp_path))


def made(arm, seed, last):
    learning = {"updates": [10.0, 20.0], "flops": [1e9, 2e9], "returns": [last - 50, last + seed]}
    pretraining = {"updates": 3000, "flops": 1e9, "cpu_seconds": 30.0 + seed}
    record = {"task": TASK, "arm": arm, "seed": seed, "updates": 600, "model_updates": 3000}
    cost = {"flops": 3e9, "cpu_seconds": 60.0, "pretraining": pretraining, "learning": learning}
    return record | {"last": [last + seed], "best": [last + 10.0]} | cost


def arms_of(head, ignoring=70.0):
    return {TASK: {name: {seed: made(name, seed, value + seed * (name == HEAD)) for seed in range(5)}
                   for name, value in ((HEAD, head), (IGNORING, ignoring))}}  # fmt: skip


def scores(brier):
    bins = [{"count": 90, "predicted": 2e-5, "observed": 0.0}, {"count": 10, "predicted": 0.5, "observed": 0.3}]
    own = {"transitions": 100, "ends": 3, "base_rate": 0.02, "brier_base_rate": 0.03, "brier": brier, "bins": bins}
    return {TASK: {seed: {"task": TASK, "seed": seed, **own} for seed in range(2)}}


def verdicts(records, heads):
    return [line.split("|")[-2].strip() for line in criteria_table(records, heads).splitlines()[2:]]


def test_criteria_say_yes_and_no():
    assert verdicts(arms_of(500.0), scores(0.01)) == ["yes"] * 4
    assert verdicts(arms_of(72.0), scores(0.03)) == ["yes", "yes", "NO", "NO"], "a small difference, if it is certain"
    assert verdicts(arms_of(60.0), scores(0.04)) == ["NO"] * 4
    lone = {TASK: {name: {0: arms[0]} for name, arms in arms_of(500.0)[TASK].items()}}
    assert verdicts(lone, {}) == ["NO", "NO"], "a single seed shows nothing"


def test_curves_of_several_heads_are_pooled_by_bin():
    one, other = (scores(brier)[TASK][0] for brier in (0.01, 0.03))
    other = {**other, "bins": [{"count": 30, "predicted": 0.45, "observed": 0.1}]}
    found = pooled([one, other])
    assert found["bins"][0] == one["bins"][0]
    assert found["bins"][1]["count"] == 40
    assert found["bins"][1]["observed"] == pytest.approx((10 * 0.3 + 30 * 0.1) / 40)
    assert (found["brier"], found["transitions"]) == (pytest.approx(0.02), 200)
    drawn = figure(in_order(arms_of(500.0)), scores(0.01))
    labels = {line.get_label() for line in drawn.axes[0].lines}
    assert labels == set(ARMS)
    assert [text.get_text() for text in drawn.axes[1].texts] == ["180", "20"]


def test_a_folder_of_records_makes_the_pages_sections(tmp_path):
    assert set(sections(tmp_path).values()) == {NONE}
    for name, arm in arms_of(500.0)[TASK].items():
        for seed, record in arm.items():
            (tmp_path / f"{TASK}_{name}_{seed}.json").write_text(json.dumps(record))
    for folder in ("controls", "models"):
        (tmp_path / folder).mkdir()
    for seed, record in scores(0.01)[TASK].items():
        (tmp_path / "models" / f"{TASK}_{seed}.json").write_text(json.dumps(record))
    held = {"data": {"mean": 130.0, "best": 660.0, "episodes": 2000}, "constants": [[[0.0], 60.0]]}
    held |= {"best_constant": {"action": [0.0], "return": 60.0}}
    (tmp_path / "controls" / f"{TASK}.json").write_text(json.dumps(held))
    assert read_heads(tmp_path).keys() == {TASK}
    text = sections(tmp_path)
    assert f"| {TASK} | head | 5 | 504 (500 to 508) | 512 (510 to 514) | +432 (+430 to +434) |" in text["returns"]
    assert "10 policies took 10 CPU minutes" in text["returns"]
    assert f"| {TASK} | 2 | 3 | 100 | 0.0200 | 0.0100 (0.0100 to 0.0100) |" in text["heads"]


@pytest.mark.long
def test_the_recipe_and_the_study_run(tmp_path, monkeypatch):
    for name, value in {"NOISE_EPISODES": 30, "POLICY_EPISODES": 2, "MODEL_UPDATES": 4, "UPDATES": 2}.items():
        monkeypatch.setattr(f"termination_data.{name}", value)
    collected(TASK, tmp_path)
    store = EpisodeStore(tmp_path / f"{TASK}.h5")
    assert len(store) == 34
    numbers = {"updates": 4, "model_updates": 4, "episodes": 1, "tasks": [TASK]}
    (study,) = studies(given([store.path], tmp_path, **numbers)).values()
    assert SEED not in range(study.episodes)
    for one in work_in(study, TASK, range(3, 4)).values():
        one.call.function(*one.call.arguments)
        assert one.leaves.is_file()
    records = [json.loads(study.record(arm, TASK, 3).read_text()) for arm in ARMS]
    assert records[0]["pretraining"] == records[1]["pretraining"]
    assert json.loads(model_record(study, TASK, 3).read_text())["transitions"] > 0
    assert controls(study, TASK).is_file()
