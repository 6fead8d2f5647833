"""What a sweep file may say twice (nothing), and values that stay whole whatever characters they have."""

import json
import re

import pytest
import yaml

from lit_pwm.cli.main import run
from lit_pwm.errors import LitPWMError
from lit_pwm.experiments.metrics import read_curves
from lit_pwm.experiments.sweep import cells_of, read_sweep
from lit_pwm.experiments.sweep.filling import fill, put

ALONE = ["[x]", "{y}"]
"""Values that are lists and mappings where they stand alone."""
STRANGE = ["a,b", "a=b", "a/b", "it's", 'say "so"', "ü→", "", "#no", "  ", "-", "&a", "!x", "a: b", "a, b]", *ALONE]


@pytest.mark.parametrize("value", STRANGE)
def test_a_value_in_a_list_stays_one_entry(value):
    assert yaml.safe_load(fill("[{folder}/s.h5, b.h5]", {"folder": value})) == [f"{value}/s.h5", "b.h5"]
    alone = yaml.safe_load(fill("[{x}]", {"x": value}))
    assert alone == [value] or value in ALONE
    option, _, listed = fill("--data.store=[{x}/s]", {"x": value}).partition("=")
    assert (option, yaml.safe_load(listed)) == ("--data.store", [f"{value}/s"])
    assert yaml.safe_load(fill("{{a: {x}/s}}", {"x": value})) == {"a": f"{value}/s"}
    assert yaml.safe_load(put("[$OUT/a,$OUT/b]", {"$OUT": value})) == [f"{value}/a", f"{value}/b"]


@pytest.mark.parametrize("value", STRANGE)
def test_a_value_outside_of_a_list_is_taken_as_it_is(value):
    assert fill("{x}", {"x": value}) == value
    assert fill("--a={x}/{{}}", {"x": value}) == f"--a={value}/{{}}"


def test_harmless_lists_are_left_as_they_are_written():
    """So that what a sweep of an older version has finished is still finished."""
    assert fill("[{store}/a.h5,b.h5]", {"store": "$OUT/data/all"}) == "[$OUT/data/all/a.h5,b.h5]"
    assert fill("[{seed}, 1]", {"seed": "0"}) == "[0, 1]"
    assert fill("[{task}]", {"task": "cup-catch"}) == "[cup-catch]"


def sweep_file(tmp_path, text):
    path = tmp_path / "sweep.yaml"
    path.write_text(text)
    return str(path)


def test_folders_of_several_axes_are_one_store_each(tmp_path):
    text = """
name: two
axes: {task: [cup-catch], seed: [0, 1]}
stages:
  data: {over: [task, seed], run: [collect, --out, "{folder}/s.h5"]}
  fit: {over: [task, seed], run: [fit, --data.store, "[{folder:data}/s.h5]"]}
"""
    cells = cells_of(read_sweep(sweep_file(tmp_path, text)))
    command = cells["fit/task=cup-catch,seed=1"].command(tmp_path / "out, of mine")
    assert yaml.safe_load(command[2]) == [f"{tmp_path}/out, of mine/data/task=cup-catch,seed=1/s.h5"]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("axes: {seed: [0, 1], seed: [2]}\nstages: {a: {run: [x]}}", "'seed' is given twice"),
        ("axes: {}\nstages: {a: {run: [x]}, a: {run: [y]}}", "'a' is given twice"),
        ("axes: {seed: [0, 0]}\nstages: {a: {over: [seed], run: [x]}}", "same value or label twice"),
        ("axes: {seed: [0, '0']}\nstages: {a: {over: [seed], run: [x]}}", "same value or label twice"),
        ("axes: {seed: {a: 1, b: 1}}\nstages: {a: {over: [seed], run: [x]}}", "same value or label twice"),
        ("axes: {}\nstages: {a: {run: [fit, --a.steps, 1, --config, x, --a.steps, 2]}}", "--a.steps twice"),
        ("axes: {}\nstages: {a: {run: [fit, --seed=1, --seed, 2]}}", "--seed twice"),
        ("axes: {}\nstages: {a: {run: [fit, --model.lr, 1, --model.init_args.lr, 2]}}", "--model.lr twice"),
        ("axes: {}\nstages: {a: {run: [fit, --model.actor, A, --model.actor.class_path, B]}}", "--model.actor twice"),
        ("axes: {}\nvariables: {v: --a}\nstages: {a: {run: [fit, --a, 1, '{v}', 2]}}", "--a twice"),
        ("axes: {seed: [0]}\nstages: {a: {over: [[seed]], run: [x]}}", "`over` of the stage 'a'.*single value"),
        ("axes: {}\nstages: {a: {run: [x]}}\nrecord: {returns: {best: [a]}}", r"`record\.returns`.*single value"),
        ("axes: {}\nstages: {records: {run: [x]}}", "records go"),
        ("name: ..\naxes: {}\nstages: {a: {run: [x]}}", "name '..'"),
        ("name: .\naxes: {}\nstages: {a: {run: [x]}}", "name '.'"),
        ("name: .git\naxes: {}\nstages: {a: {run: [x]}}", "name '.git'"),
        ("name: /tmp\naxes: {}\nstages: {a: {run: [x]}}", "name '/tmp'"),
        ("name: a/b\naxes: {}\nstages: {a: {run: [x]}}", "name 'a/b'"),
        ("name: ''\naxes: {}\nstages: {a: {run: [x]}}", "name ''"),
        ("axes: {seed: [%s]}\nstages: {a: {over: [seed], run: [x]}}" % ("x" * 250), "Shorten"),
    ],
)  # fmt: skip
def test_what_would_be_lost_or_doubled_is_refused(text, says, tmp_path):
    with pytest.raises(LitPWMError, match=says):
        cells_of(read_sweep(sweep_file(tmp_path, text)))


def test_values_are_what_the_file_says_whatever_they_look_like(tmp_path):
    text = """
axes: {x: {1: 2, b: 0.5}}
variables: {a: '5.0e-4', b: 5.0e-4, c: '[1, 2]', d: 'null', e: null, f: true, g: 'true', h: '{folder}/x', i: ''}
stages: {run: {over: [x], run: ['{x}', '{a}', '{b}', '{c}', '{d}', '{e}', '{f}', '{g}', '{h}', '{i}', 1, 0.25, no]}}
"""
    found = cells_of(read_sweep(sweep_file(tmp_path, text)))
    assert list(found) == ["run/x=1", "run/x=b"]
    assert found["run/x=1"].arguments == (
        "2", "5.0e-4", "0.0005", "[1, 2]", "null", "null", "True", "true", "$OUT/run/x=1/x", "", "1", "0.25", "False",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("stages: {a: {run: fit}}", "has the text 'fit' for `run` of the stage 'a', where there should be a list"),
        ("stages: {a: {over: []}}", "has no `run` of the stage 'a'"),
        ("stages: {a: {run: []}}", "an empty list `run` of the stage 'a'"),
        ("stages: {a: {run: [x], ovr: []}}", "unknown key 'ovr' of the stage 'a'. Did you mean 'over'"),
        ("stages: {a: [x]}", "has the list ['x'] where the stage 'a' should be a mapping of run, over"),
        ("stages: 5", "has the value 5 for `stages`, where there should be a mapping"),
        ("axes: {}", "has no `stages`"),
        ("axes: {seed: 5}\nstages: {a: {run: [x]}}", "for `axes`, where there should be a mapping or a list"),
        ("variables: [x]\nstages: {a: {run: [x]}}", "for `variables`, where there should be a mapping"),
        ("stages: {a: {run: [x]}}\nrecord: [a]", "`record`, where there should be a mapping"),
        ("stages: {a: {run: [x]}}\nrecord: {returns: {b: a}, polcy: a}", "'record.polcy'. Did you mean 'policy'"),
        ("stages: {a: {run: [x]}}\nrecord: {returns: {b: a}, discovery: {c: x}}", "`record.discovery`, where there"),
    ],
)
def test_entries_of_another_kind_are_named_with_their_place(text, says, tmp_path):
    with pytest.raises(LitPWMError, match=re.escape(says)):
        read_sweep(sweep_file(tmp_path, text))


def test_options_that_append_may_be_given_several_times(tmp_path):
    run_line = "[fit, --trainer.callbacks+=A, --trainer.callbacks+=B]"
    assert cells_of(read_sweep(sweep_file(tmp_path, f"axes: {{}}\nstages: {{a: {{run: {run_line}}}}}")))


def test_configs_may_be_named_several_times(tmp_path):
    run_line = "[fit, --config, configs/pretrain.yaml, --config, configs/world_model/mlp_tiny.yaml]"
    assert cells_of(read_sweep(sweep_file(tmp_path, f"axes: {{}}\nstages: {{a: {{run: {run_line}}}}}")))


def test_repeated_options_of_the_verb_add_up_or_are_refused(tmp_path, capsys):
    text = "name: x\naxes: {seed: [0, 1, 2]}\nvariables: {n: 1}\nstages: {a: {over: [seed], run: [x, '{seed}', '{n}']}}"
    path = sweep_file(tmp_path, text)
    line = ["sweep", path, "--dry-run", "--only", "seed=0", "--only", "seed=2"]
    assert run([*line, "--set", "n=a=b"]) == 0
    assert capsys.readouterr().out.split("\n") == ["lit-pwm x 0 a=b", "lit-pwm x 2 a=b", ""]
    assert run([*line, "--set", "n="]) == 0
    assert capsys.readouterr().out.split("\n")[0] == "lit-pwm x 0 ''"
    assert run([*line, "--set", "n=5", "--set", "n=6"]) == 2
    assert "n 2 values, '5' and '6'" in capsys.readouterr().err


@pytest.mark.parametrize("kind", ["folder", "link", "file"])
def test_a_folder_that_no_sweep_made_is_kept(kind, sweeping, small_store, tmp_path):
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "thesis.txt").write_text("years of work")
    place = tmp_path / "out/look/all"
    place.parent.mkdir(parents=True)
    if kind == "folder":
        mine.rename(place)
    elif kind == "link":
        place.symlink_to(mine)
    else:
        (mine / "thesis.txt").rename(place)
    stages = {
        name: {"run": ["data", "info", str(small_store)]} for name in ("look", "first")
    }  # of which the last is begun first
    code, said = sweeping({"name": "looking", "axes": {}, "stages": stages})
    assert code == 2
    assert not (tmp_path / "out/first").exists()  # refused before anything runs
    assert "out/look/all" in said
    found = [path for path in (*tmp_path.rglob("thesis.txt"), place) if path.is_file()]
    assert [path.read_text() for path in found] == ["years of work"]


def recorded(store, name="looking"):
    """A sweep whose record is made of returns that are put there."""
    return {
        "name": name, "axes": {"what": {"good": str(store)}}, "record": {"returns": {"best": "look"}},
        "stages": {"look": {"over": ["what"], "run": ["data", "info", "{what}"]}},
    }  # fmt: skip


@pytest.mark.parametrize("option", ["--out", "--records"])
def test_records_of_another_sweep_are_not_replaced(option, sweeping, small_store, tmp_path):
    place = tmp_path / ("out/records" if option == "--out" else "kept") / "what=good.record.json"
    place.parent.mkdir(parents=True)
    place.write_text(json.dumps({"kind": "sweep", "format": 1, "sweep": "another"}))
    before = place.read_text()
    code, said = sweeping(recorded(small_store), "--records", "kept")
    assert code == 2
    assert "record of the sweep 'another'" in said
    assert f"another folder with {option}" in said
    assert place.read_text() == before
    assert not (tmp_path / "out/look").exists()
    place.write_text("{")  # a damaged one is made anew
    sweeping(recorded(small_store))
    assert (tmp_path / "out/look/what=good/cell.json").exists()


METRICS = {
    "empty": "", "header alone": "step,loss\r\n", "no step": "loss\r\n1.0\r\n", "torn": "step,loss\r\n1,2.0\r\n2",
    "text": "step,loss\r\n1,many\r\n", "binary": "\0\1\2", "too many": "step,loss\r\n1,2,3\r\n", "quote": 'a,"b',
}  # fmt: skip


@pytest.mark.parametrize("kind", [*METRICS, "folder"])
def test_metrics_that_cannot_be_read_are_named(kind, tmp_path):
    path = tmp_path / "metrics.csv"
    path.mkdir() if kind == "folder" else path.write_text(METRICS[kind])
    with pytest.raises(LitPWMError, match=r"metrics.csv'"):
        read_curves(path)
    with pytest.raises(LitPWMError, match=r"metrics.csv'"):
        read_curves(tmp_path / "none" / "metrics.csv")


def test_a_records_values_say_what_its_labels_stand_for(sweeping, small_store, tmp_path):
    """The report compares commands by them."""
    (tmp_path / "returns.json").write_text("{}")
    plan = {
        "name": "looking",
        "axes": {"what": {"good": str(small_store)}},
        "stages": {"look": {"over": ["what"], "run": ["data", "info", "{what}"]}},
        "record": {"returns": {"best": "look"}},
    }
    sweeping(plan)  # leaves no returns.json, and so no record
    folder = tmp_path / "out/look/what=good"
    (folder / "returns.json").write_text(json.dumps({"tasks": {"a": {"returns": [1.0, 2.0]}}}))
    assert sweeping(plan)[0] == 0
    (record,) = (tmp_path / "out/records").glob("*.record.json")
    assert json.loads(record.read_text())["values"] == {"what": str(small_store)}
