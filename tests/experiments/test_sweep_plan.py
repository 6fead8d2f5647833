"""Sweep files: what they mean, and what is refused before anything runs."""

import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from lit_pwm.cli.main import build_parser, run
from lit_pwm.errors import LitPWMError
from lit_pwm.experiments.sweep import cells_of, read_sweep
from lit_pwm.experiments.sweep.cells import Cell
from lit_pwm.paths import config_root

FACTORIAL = "configs/sweeps/factorial.yaml"


def plan(**changes):
    return {
        "name": "small",
        "axes": {"model": {"a": "value-a", "b": "value-b"}, "seed": [0, 1]},
        "variables": {"updates": 5, "store": "{folder:data}/x.h5"},
        "stages": {
            "train": {"over": ["seed", "model"], "run": ["fit", "{model}", "{store}", "{updates}", "{folder}"]},
            "data": {"over": [], "run": ["collect", "{folder}"]},
            "score": {"over": ["model", "seed"], "run": ["evaluate", "{folder:train}/**/best-*.ckpt", "{{seed}}"]},
        },
    } | changes


@pytest.fixture
def read(tmp_path):
    def read(values, variables=None):
        path = tmp_path / "sweep.yaml"
        path.write_text(values if isinstance(values, str) else yaml.safe_dump(values, sort_keys=False))
        return read_sweep(str(path), variables)

    return read


def test_cells_come_after_those_they_need_with_commands_filled_in(read):
    cells = cells_of(read(plan()))
    assert list(cells) == [
        "data/all",
        "train/model=a,seed=0", "train/model=b,seed=0", "train/model=a,seed=1", "train/model=b,seed=1",
        "score/model=a,seed=0", "score/model=a,seed=1", "score/model=b,seed=0", "score/model=b,seed=1",
    ]  # fmt: skip
    train, score = cells["train/model=b,seed=1"], cells["score/model=b,seed=1"]
    assert train.needs == ("data/all",)
    assert score.needs == ("train/model=b,seed=1",)
    assert train.shown(Path("o")) == [
        "lit-pwm", "fit", "value-b", "o/data/all/x.h5", "5", "o/train/model=b,seed=1",
    ]  # fmt: skip
    assert score.arguments[1:] == ("$OUT/train/model=b,seed=1/**/best-*.ckpt", "{seed}")


WORDS = {
    "axes": {"start": {"own": "--name 'my model' --from {file}", "fresh": "--fresh"}, "seed": [0]},
    "variables": {"file": "{folder:data}/a,b.ckpt"},
    "stages": {
        "data": {"over": [], "run": ["collect", "{folder}"]},
        "train": {"over": ["start", "seed"], "run": ["fit", "{start:words}", "--seed", "{seed}"]},
    },
}


def test_a_label_may_stand_for_several_arguments(read):
    cells = cells_of(read(WORDS | {"name": "words"}))
    own, fresh = cells["train/start=own,seed=0"], cells["train/start=fresh,seed=0"]
    assert own.arguments == ("fit", "--name", "my model", "--from", "$OUT/data/all/a,b.ckpt", "--seed", "0")
    assert fresh.arguments == ("fit", "--fresh", "--seed", "0")
    assert (own.needs, fresh.needs) == (("data/all",), ())


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ({"own": "--from {fil}"}, r"unknown placeholder \{fil\}.*'file'"),
        ({"own": "--name 'my model"}, r"label 'own' of the axis 'start'.*Close its quotes"),
    ],
)
def test_words_that_are_refused(read, words, says):
    with pytest.raises(LitPWMError, match=says):
        read(WORDS | {"axes": {"start": words, "seed": [0]}})


def test_words_are_an_argument_of_their_own(read):
    train = {"over": ["start", "seed"], "run": ["fit", "--a={start:words}"]}
    with pytest.raises(LitPWMError, match=r"unknown placeholder \{start:words\}"):
        read(WORDS | {"stages": {"train": train}})


def test_a_variable_set_on_the_command_line_replaces_the_files(read):
    sweep = read(plan(), {"store": "mine.h5"})
    cells = cells_of(sweep)
    assert cells["train/model=a,seed=0"].arguments[2] == "mine.h5"
    assert cells["train/model=a,seed=0"].needs == ()


def test_stages_that_no_record_needs_are_left_out(read):
    record = {"returns": {"best": "score"}}
    assert list(read(plan(record=record), {"store": "mine.h5"}).stages) == ["train", "score"]
    assert list(read(plan(record=record)).stages) == ["data", "train", "score"]


def test_a_pattern_means_one_file(read, tmp_path):
    cell = cells_of(read(plan()))["score/model=a,seed=0"]
    with pytest.raises(LitPWMError, match="matches 0"):
        cell.command(tmp_path)
    folder = tmp_path / "train/model=a,seed=0/checkpoints"
    folder.mkdir(parents=True)
    (folder / "best-7.ckpt").touch()
    assert cell.command(tmp_path)[1] == str(folder / "best-7.ckpt")
    (folder / "best-9.ckpt").touch()
    with pytest.raises(LitPWMError, match=r"matches 2: best-7.ckpt, best-9.ckpt"):
        cell.command(tmp_path)


def test_a_fingerprint_is_of_the_command_its_configs_and_the_cells_before(read, tmp_path):
    config = tmp_path / "mine.yaml"
    config.write_text("a: 1\n")
    values = plan()
    values["stages"]["data"]["run"] += ["--config", str(config)]

    def prints(**variables):
        return {key: cell.fingerprint for key, cell in cells_of(read(values, variables)).items()}

    first = prints()
    assert prints() == first
    assert len(set(first.values())) == len(first)
    changed = prints(updates="6")
    assert changed["data/all"] == first["data/all"]
    assert all(changed[key] != first[key] for key in first if not key.startswith("data"))
    config.write_text("a: 2\n")
    assert all(value != first[key] for key, value in prints().items())


@pytest.mark.parametrize(
    ("values", "words"),
    [
        (plan(axis={}), "'axis'.*'axes'"),
        (plan(axes={"model": []}), "no values"),
        (plan(axes={"model": {"a b": "x"}, "seed": [0]}), "'a b'"),
        (plan(axes={"model": ["configs/x"], "seed": [0]}), "'configs/x'.*mapping"),
        (plan(stages={}), "no stages"),
        (plan(stages={"train": {"over": ["sead"], "run": ["fit"]}}), "'sead'.*'seed'"),
        (plan(stages={"train": {"over": [], "run": ["fit", "{updats}"]}}), "{updats}.*'updates'"),
        (plan(stages={"train": {"over": [], "run": ["fit", "{seed}"]}}), "runs over.*`over`"),
        (plan(stages={"train": {"over": [], "run": ["fit", "{seed"]}}), "braces"),
        (plan(stages={"train": {"over": [], "command": ["fit"]}}), "'command'"),
        (plan(stages={"train": {"over": [], "run": "fit"}}), "`run`"),
        (plan(stages={"train": {"over": [], "run": ["fit", "{folder:trian}"]}}), "'folder:train'"),
        (plan(variables={"seed": 1}, stages={"train": {"run": ["fit"]}}), "'seed'"),
        (plan(variables={"x": "{y}", "y": 1}, stages={"train": {"run": ["fit", "{x}"]}}), "'x'.*'y'"),
        (plan(record={"returns": {"best": "scor"}}), "'scor'.*'score'"),
        (plan(record={"policy": "train"}), "record.returns"),
        (plan(record={"returns": {"a": "score", "b": "data"}}), "same axes"),
        ([1], "mapping"),
        ("a: [", "YAML"),
        (
            plan(stages={
                "a": {"run": ["fit", "{folder:b}"]}, "b": {"run": ["fit", "{folder:c}"]},
                "c": {"run": ["fit", "{folder:b}"]},
            }),
            "b needs c needs b",
        ),
        (
            plan(stages={"a": {"over": ["seed"], "run": ["fit"]}, "b": {"run": ["fit", "{folder:a}"]}}),
            r"\['seed'\] besides",
        ),
    ],
)  # fmt: skip
def test_what_is_no_sweep_is_refused(read, values, words):
    with pytest.raises(LitPWMError, match=f"sweep.yaml.*{words}"):
        cells_of(read(values))


def test_a_config_that_does_not_exist_is_refused_before_anything_runs(read):
    values = plan(stages={"a": {"run": ["fit", "--config", "configs/pretrian.yaml"]}})
    with pytest.raises(LitPWMError, match=r"'configs/pretrain\.yaml'"):
        cells_of(read(values))


def test_a_part_of_a_sweep(read):
    sweep = read(plan())
    assert len(cells_of(sweep.only({"seed": ["1"], "model": ["b"]}))) == 3
    with pytest.raises(LitPWMError, match=r"'sede'.*'seed'"):
        sweep.only({"sede": ["1"]})
    with pytest.raises(LitPWMError, match="no label '7'"):
        sweep.only({"seed": ["7"]})


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--launcher", "slurm"], "'slurm'"),
        (["--workers", "0"], "--workers"),
        (["--set", "storee=x"], "'store'"),
        (["--set", "store"], "NAME=VALUE"),
        (["--only", "task=walker"], "'walker'"),
    ],
)
def test_options_that_are_refused(options, words, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert run(["sweep", FACTORIAL, "--dry-run", *options]) == 2
    assert words in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def shipped():
    return sorted((config_root() / "sweeps").glob("*.yaml"))


@pytest.mark.parametrize("path", shipped(), ids=lambda path: path.stem)
def test_shipped_sweeps_name_commands_that_are_accepted(path, capsys):
    """One cell of each stage and label: trainer verbs print their config, the others' arguments are parsed."""
    cells = cells_of(read_sweep(str(path)))
    first: dict[tuple[str, tuple[str, str] | None], Cell] = {}
    first |= {(cell.stage, label): cell for cell in cells.values() for label in cell.labels.items()}
    first |= {(cell.stage, None): cell for cell in cells.values() if not cell.labels}
    seen = {cell.key: cell for key, cell in first.items() if key[1] is None or key[1][0] not in ("seed", "task")}
    for cell in seen.values():
        if cell.arguments[0] == "fit":
            with pytest.raises(SystemExit) as stop:
                run([*cell.arguments, "--print_config"])
            assert stop.value.code in (0, None)
            assert "class_path" in capsys.readouterr().out
        else:
            build_parser().parse_args(list(cell.arguments))


def test_a_dry_run_prints_the_commands_and_leaves_nothing(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    only = ["--only", "world_model=mlp", "--only", "policy=mlp", "--only", "seed=3", "--only", "task=cup-catch"]
    assert run(["sweep", FACTORIAL, "--dry-run", *only]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[1] for line in lines] == ["demo", "fit", "fit", *["evaluate"] * 3]
    assert "--seed_everything 3" in lines[1]
    assert "runs/factorial/pretrain/world_model=mlp,seed=3" in lines[2]
    assert list(tmp_path.iterdir()) == []


def test_a_dry_run_imports_nothing_heavy(tmp_path):
    script = (
        "import sys; from lit_pwm.cli.main import run; code = run(sys.argv[1:]); "
        "heavy = {'torch', 'lightning', 'dm_control', 'mujoco'} & set(sys.modules); assert not heavy, heavy; "
        "sys.exit(code)"
    )
    only = ["--only", "world_model=mlp", "--only", "policy=mlp"]
    argv = [sys.executable, "-c", script, "sweep", FACTORIAL, "--dry-run", *only]
    done = subprocess.run(argv, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
