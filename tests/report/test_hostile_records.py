"""Nothing that a run's folder holds is trusted: not its names, its numbers, its size, nor where it points to."""

import json
import os
import re
import xml.etree.ElementTree as ElementTree
from html.parser import HTMLParser

import pytest

from lit_pwm.cli.main import run

MARKUP = "<script>alert(1)</script>|[red]x[/red]|`c`\n[l](http://x)$\\frac{$\ud800\x1b[31m\x00\u202e\"'&"


class Tags(HTMLParser):
    """The tags of a page, and their attributes that load or run something."""

    def __init__(self, page):
        super().__init__()
        self.tags, self.sources = set(), set()
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        self.tags.add(tag)
        names = dict(attributes)
        assert not any(name.startswith("on") for name in names)
        self.sources |= {names[name] for name in ("src", "href", "srcset") if name in names}


def checked(out, capsys):
    """The report is whole, and nothing of a record is in it but as text."""
    page, tables, said = (out / "index.html").read_text(), (out / "results.md").read_text(), capsys.readouterr()
    tags = Tags(page)
    assert "script" not in tags.tags
    assert all(re.fullmatch(r"assets/[\w.-]+|#[\w-]+", source) for source in tags.sources), tags.sources
    for drawing in (out / "assets").glob("*.svg"):
        ElementTree.parse(drawing)
    assert "<script" not in tables
    assert "](http" not in tables.replace("\\]", "").replace("\\[", "")
    for block in tables.split("\n\n"):
        rows = [len(re.findall(r"(?<!\\)\|", line)) for line in block.splitlines() if line.startswith("| ")]
        assert len(set(rows)) <= 1, block
    assert not re.search(r"[\x00\x1b\u202e]", page + tables + said.out + said.err)
    return page, tables, said.out


def test_markup_in_a_sweeps_record_stays_text(made, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for seed in ("0", "1"):
        for policy in ("mlp", "flow"):
            record = made.cell(policy, "cup-catch", seed)
            values = record["returns"]["best"]["tasks"].pop("cup-catch")
            record["returns"] = {MARKUP: {"tasks": {MARKUP: values}}, "last": {"tasks": {MARKUP: values}}}
            record["sweep"] = MARKUP
            record["axes"][MARKUP] = [MARKUP]
            record["labels"][MARKUP] = MARKUP
            record["versions"] = {MARKUP: MARKUP}
            made.write(tmp_path / "runs", record, f"{policy}{seed}")
    assert run(["report", "runs", "--out", "out"]) == 0
    page, tables, said = checked(tmp_path / "out", capsys)
    assert "&lt;script&gt;" in page
    assert "&lt;script&gt;" in tables
    assert "[red]" in said.replace("\n", "").replace(" ", "")


def test_markup_in_a_demos_record_stays_text(made, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for seed in (0, 1):
        record = made.demo(seed)
        for task in record["tasks"]:
            task["task"] += MARKUP
            task["notice"] = MARKUP
            task["open_loop"]["series"] = [
                {"name": MARKUP, "truth": [1.0, 2.0], "prediction": [1.0, 2.0], "copy_last": [1.0, 1.0]}
            ]
        record["policy_curves"] = {task["task"]: {MARKUP: [[0, 1.0], [5, None]]} for task in record["tasks"]}
        record["seconds"] = {MARKUP: 1.0}
        record["plan"] = {MARKUP: MARKUP}
        record["machine"] = {MARKUP: {MARKUP: [MARKUP]}}
        made.write_demo(tmp_path / f"runs/{seed}", record)
    assert run(["report", "runs", "--out", "out"]) == 0
    checked(tmp_path / "out", capsys)


NAME = "<img src=x onerror=alert(1)>&\"'`|[red]x["
"""Of a run: what a folder's name may hold, and then some."""


@pytest.mark.parametrize("kind", ["demo", "sweep"])
def test_markup_in_the_names_of_tasks_and_runs_stays_text(made, kind, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    folder = f"runs {NAME}"
    if kind == "demo":
        record = made.demo(0) | {"command": f"lit-pwm demo --out {NAME}"}
        for task in record["tasks"]:
            task["task"] += NAME
        record["policy_curves"] = {}
        made.write_demo(tmp_path / folder, record)
    else:
        record = made.cell("mlp", "cup-catch", "0") | {"sweep": NAME}
        record["returns"]["best"]["tasks"] = {NAME: {"returns": [1.0, 2.0]}}
        record["cells"]["policy"]["command"] += f" --data.tasks [{NAME}]"
        made.write(tmp_path / folder, record, "x")
    assert run(["report", folder, "--out", f"out {NAME}"]) == 0
    page, _, _ = checked(tmp_path / f"out {NAME}", capsys)
    assert "&lt;img src=x onerror=alert(1)&gt;&amp;" in page
    assert "img src=x" not in page.replace("&lt;img src=x", "")


@pytest.mark.parametrize(
    "video", ["/etc/passwd", "../secret.mp4", "link.mp4", "out.mp4", "folder.mp4", "x.html", "missing.mp4", "a\0b.mp4",
              'x.mp4" onerror="alert(1)', "x" * 5000],
)  # fmt: skip
def test_only_videos_of_the_run_are_copied(made, video, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "secret.mp4").write_text("secret")
    record = made.demo(0)
    record["tasks"][0]["video"] = video
    made.write_demo(tmp_path / "run", record)
    (tmp_path / "run/link.mp4").symlink_to(tmp_path / "secret.mp4")
    (tmp_path / "run/out.mp4").symlink_to("/etc/passwd")
    (tmp_path / "run/folder.mp4").mkdir()
    for name in ("x.html", 'x.mp4" onerror="alert(1)'):
        (tmp_path / "run" / name).write_text("<script>")
    assert run(["report", "run", "--out", "report"]) == 0
    page, _, _ = checked(tmp_path / "report", capsys)
    assert "is no video in the run" in page
    assert "<video" not in page
    copied = [path for path in (tmp_path / "report/assets").iterdir() if path.suffix != ".svg"]
    assert copied == []


def test_a_video_of_the_run_is_copied(made, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    record = made.demo(0)
    record["tasks"][0]["video"] = "one.mp4"
    made.write_demo(tmp_path / "run", record)
    (tmp_path / "run/one.mp4").write_bytes(b"video")
    assert run(["report", "run", "--out", "report"]) == 0
    checked(tmp_path / "report", capsys)
    assert [path.read_bytes() for path in (tmp_path / "report/assets").glob("*.mp4")] == [b"video"]


SWEEP_DAMAGE = {
    "no returns": lambda r: r.pop("returns"),
    "returns of nothing": lambda r: r.update(returns={}),
    "an empty list": lambda r: r["returns"]["best"]["tasks"]["cup-catch"].update(returns=[]),
    "NaN": lambda r: r["returns"]["best"]["tasks"]["cup-catch"]["returns"].append(float("nan")),
    "infinity": lambda r: r["returns"]["best"]["tasks"]["cup-catch"]["returns"].append(float("inf")),
    "text": lambda r: r["returns"]["best"]["tasks"]["cup-catch"]["returns"].append("9"),
    "true": lambda r: r["returns"]["best"]["tasks"]["cup-catch"]["returns"].append(True),
    "a huge number": lambda r: r["returns"]["best"]["tasks"]["cup-catch"]["returns"].append(10**400),
    "labels as a list": lambda r: r.update(labels=["mlp"]),
    "a label too few": lambda r: r["labels"].pop("policy"),
    "an unknown label": lambda r: r["labels"].update(policy="other"),
    "no cells": lambda r: r.update(cells=None),
    "a command that is a number": lambda r: r["cells"]["policy"].update(command=5),
    "a curve that does not fit": lambda r: r.update(
        policy={"final": {}, "curve": {"columns": ["a"], "rows": [[1, 2]]}}
    ),
    "a kind of its own": lambda r: r.update(kind=["sweep"]),
}
DEMO_DAMAGE = {
    "no tasks": lambda r: r.update(tasks=[]),
    "NaN": lambda r: r["tasks"][0]["returns"]["best"].append(float("nan")),
    "no data": lambda r: r["tasks"][0]["returns"].pop("data"),
    "a number as video": lambda r: r["tasks"][0].update(video=5),
    "a text as seconds": lambda r: r.update(seconds={"all": "long"}),
    "a seed of text": lambda r: r.update(seed="x"),
    "points of three": lambda r: r.update(policy_curves={"one": {"x": [[0, 1.0], [1, 2.0, 3.0]]}}),
    "a point nowhere": lambda r: r.update(world_model_curves={"train/loss": [[None, 1.0]]}),
    "a series of two lengths": lambda r: r["tasks"][0]["open_loop"]["series"].append(
        {"name": "x", "truth": [1.0, 2.0, 3.0], "prediction": [1.0], "copy_last": [1.0]}
    ),
    "foreseen ends without a curve": lambda r: r["tasks"][0].update(continuation={"brier": 0.1}),
    "curves that are lists": lambda r: r.update(policy_curves=[]),
}


@pytest.mark.parametrize("damage", SWEEP_DAMAGE.values(), ids=SWEEP_DAMAGE)
def test_a_damaged_record_of_a_sweep_is_named(made, damage, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    record = made.cell("mlp", "cup-catch", "0")
    damage(record)
    made.write(tmp_path / "runs", record, "x")
    refused(capsys, "runs/x.record.json")


@pytest.mark.parametrize("damage", DEMO_DAMAGE.values(), ids=DEMO_DAMAGE)
def test_a_damaged_record_of_a_demo_is_named(made, damage, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    record = made.demo(0)
    damage(record)
    made.write_demo(tmp_path / "runs", record)
    refused(capsys, "runs/record.json")


@pytest.mark.parametrize(
    "content", [b"", b"[1]", b"{", b"\xff\xfe", b"[" * 100_000, b'{"kind": "demo", "format": 1e999}', b"null", None]
)
def test_what_is_no_record_is_named(content, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").mkdir()
    path = tmp_path / "runs/record.json"
    if content is None:  # a file larger than any record
        with path.open("wb") as file:
            os.truncate(file.fileno(), 2**33)
    else:
        path.write_bytes(content)
    refused(capsys, "runs/record.json")


def test_a_device_or_a_folder_is_no_record(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs/record.json").symlink_to("/dev/zero")
    refused(capsys, "runs/record.json")


def refused(capsys, name):
    assert run(["report", "runs", "--out", "out"]) == 2
    said = capsys.readouterr().err
    assert name in " ".join(said.split())
    assert "Traceback" not in said
    assert not os.path.exists("out")


def test_numbers_that_are_not_finite_in_curves_are_left_out(made, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    record = made.demo(0)
    record["world_model_curves"] = {"train/loss": [[0, float("nan")], [1, 0.5], [2, 0.25]]}
    made.write_demo(tmp_path / "runs", record)
    assert json.loads((tmp_path / "runs/record.json").read_text().replace("NaN", "null"))
    assert run(["report", "runs", "--out", "out"]) == 0
    checked(tmp_path / "out", capsys)


def test_foreseen_ends_are_in_the_report_of_a_demo_that_has_some(made, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for number, ends in enumerate((None, made.ends())):
        record = made.demo(0)
        record["tasks"][0]["continuation"] = ends
        made.write_demo(tmp_path / f"runs{number}", record)
        assert run(["report", f"runs{number}", "--out", f"report{number}"]) == 0
        page = (tmp_path / f"report{number}" / "index.html").read_text()
        assert ("Do episodes end as foreseen?" in page) == (ends is not None)
    assert "206 ends in 53000 held-out transitions" in page
