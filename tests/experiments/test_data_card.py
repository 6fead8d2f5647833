"""The data card: what a store holds, as a page and as Markdown, with the stored episodes themselves as videos."""

import html
import json
import re
import shutil
from dataclasses import replace
from html.parser import HTMLParser
from xml.etree import ElementTree

import h5py
import imageio_ffmpeg
import numpy as np
import pytest

from datamodules import EpisodeStore, EpisodeWriter, collect
from datamodules.importers.importer import ImportedEpisode, ImportedTask, Plan
from datamodules.plan_writing import Output, write_stores
from datamodules.reworking import subset
from lit_pwm.cli.main import run as command
from lit_pwm.experiments.card import examples, store_sample
from lit_pwm.experiments.card.card_building import make_card
from lit_pwm.experiments.card.replay import NoReplayError, collected_seed, film
from lit_pwm.experiments.card.store_sample import sample_store
from lit_pwm.tasks import register, registry, task_spec
from lit_pwm.tasks.rendering import can_render

LENGTH = 12


@pytest.fixture(scope="module", autouse=True)
def short_task():
    register(replace(task_spec("cartpole-swingup"), name="card-swingup", episode_length=LENGTH))
    yield
    del registry._SPECS["card-swingup"]


@pytest.fixture(scope="module")
def collected(tmp_path_factory):
    path = tmp_path_factory.mktemp("card") / "store.h5"
    collect(["card-swingup"], 3, path, "random", workers=1, seed=7, progress=False)
    return path


def copied(path, folder):
    for name in (path, path.with_suffix(".json")):
        shutil.copy(name, folder / name.name)
    return folder / path.name


def text_of(folder):
    return html.unescape((folder / "index.html").read_text()), (folder / "README.md").read_text()


def test_a_card_shows_the_stored_episodes(collected, tmp_path, capsys):
    assert command(["data", "card", str(collected), "--out", str(tmp_path / "card"), "--videos", "1"]) == 0
    said = capsys.readouterr()
    assert f"Written: {tmp_path / 'card' / 'index.html'}" in said.out
    assert "39/39 rows" in said.err
    page, markdown = text_of(tmp_path / "card")
    store = EpisodeStore(collected)
    for text in (page, markdown):
        assert store.hash in text
        assert "3 episodes of 1 task, 36 transitions." in text
        assert "All 36 transitions are counted." in text
        assert "collect" in text
        assert "random" in text
    returns = np.array([episode.reward.sum() for episode in store])
    shown = f"{returns.mean():,.1f} ± {returns.std():,.1f}"
    assert f"| card-swingup | 3 | 36 | 12 | 0% | {shown} | {returns.min():,.1f} | {returns.max():,.1f} |" in markdown
    best = int(returns.argmax())
    assert f"Episode {best}: return {returns.max():,.1f}, 12 steps, not terminated, by random" in markdown
    linked = re.findall(r"assets/[\w.-]+", page)
    assert {f"assets/{path.name}" for path in (tmp_path / "card" / "assets").iterdir()} == set(linked)
    if can_render():
        (video,) = (tmp_path / "card" / "assets").glob("*.mp4")
        assert imageio_ffmpeg.count_frames_and_secs(video)[0] == LENGTH / 2  # every second of 50 steps a second
        assert f"](assets/{video.name})" in markdown
    assert not [*tmp_path.glob(".*")]


def test_the_same_store_has_the_same_card(collected, tmp_path):
    one, two = (make_card(collected, tmp_path / name, 0, progress=False).parent for name in "ab")
    files = sorted(path.relative_to(one) for path in one.rglob("*") if path.is_file())
    assert len(files) > 8
    for name in files:
        assert (one / name).read_bytes() == (two / name).read_bytes(), name


@pytest.mark.skipif(not can_render(), reason="nothing on this machine can render")
def test_an_episode_is_filmed_only_if_its_actions_give_its_observations(collected, tmp_path):
    origin = json.loads(collected.with_suffix(".json").read_text())
    store = EpisodeStore(collected)
    seeds = [collected_seed(origin, "card-swingup", place) for place in range(3)]
    film(store[1], seeds[1], tmp_path / "v.mp4")
    with pytest.raises(NoReplayError, match="other observations from step 0 on"):
        film(store[1], seeds[2], tmp_path / "w.mp4")
    changed = copied(collected, tmp_path)
    with h5py.File(changed, "r+") as file:
        file["obs"][13 + 5, 2] += 1e-3
    with pytest.raises(NoReplayError, match="other observations from step 5 on"):
        film(EpisodeStore(changed)[1], seeds[1], tmp_path / "w.mp4")
    assert not (tmp_path / "w.mp4").exists()
    folder = make_card(changed, tmp_path / "card", progress=False).parent
    for text in text_of(folder):
        assert ("No video of card-swingup (episode 1)" in text) == (
            1 in sample_store(EpisodeStore(changed)).tasks[0].examples()
        )


def test_seeds_of_episodes_that_follow_one_that_was_left_out():
    origin = {"verb": "collect", "seed": 3, "episodes": 4, "tasks": {"a": [1, 1], "b": [1, 1]}, "left_out": [2**32 + 1]}
    whole = origin | {"left_out": []}
    assert [collected_seed(origin, "b", place) for place in range(3)] == [
        collected_seed(whole, "b", place) for place in (0, 2, 3)
    ]
    assert collected_seed(origin, "a", 1) == collected_seed(whole, "a", 1)


@pytest.mark.parametrize(
    ("origin", "why"),
    [
        (None, "no file beside the store says how it was made"),
        ({"verb": "subset"}, "this store was made by 'subset'"),
        ({"format": "minari"}, "this store was imported"),
        ({"verb": "collect", "seed": 1, "episodes": 1, "left_out": [], "tasks": {"a": 1}}, "not about these episodes"),
        ({"verb": "collect", "seed": "x", "episodes": 1, "left_out": [], "tasks": ["b"]}, "not about these episodes"),
        ({"verb": "collect", "seed": 1, "episodes": float("inf"), "left_out": [], "tasks": ["b"]}, "not about these"),
        ({"verb": "collect", "seed": -5, "episodes": 9, "left_out": [], "tasks": ["b"]}, "not about these episodes"),
        ({"verb": "collect", "seed": 1, "episodes": 9, "left_out": 3, "tasks": ["b"]}, "not about these episodes"),
    ],
)
def test_seeds_that_are_not_known(origin, why):
    with pytest.raises(NoReplayError, match=why):
        collected_seed(origin, "b", 2)


def test_a_name_in_a_store_imports_nothing(collected):
    episode = replace(EpisodeStore(collected)[0], task="gym:os:X-v0")
    with pytest.raises(NoReplayError, match="asks for the module 'os'"):
        film(episode, 0, collected.with_name("v.mp4"))


def test_what_cannot_be_filmed_is_said(collected, tmp_path):
    made = subset(collected, tmp_path / "some.h5", episodes=1, progress=False)
    page, markdown = text_of(make_card(made.path, tmp_path / "card", progress=False).parent)
    for text in (page, markdown):
        assert "No video of card-swingup (episode 0): the seeds of episodes are recorded by" in text
    assert not [*(tmp_path / "card").rglob("*.mp4")]


class Tags(HTMLParser):
    """Names of a page's tags, and of their attributes."""

    def __init__(self, page):
        super().__init__()
        self.seen = set()
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.seen.add(tag)
        self.seen.update(name for name, _ in attrs)


def test_hostile_names_and_odd_stores(tmp_path):
    names = [
        "</script><img src=x onerror=alert(1)>|`$x$`",
        "</script>_img src=x onerror=alert(1)_ _`$x$`",
        "a\x1b[2J\n",
        "ユ" * 300,
    ]
    path, rng, deep = tmp_path / "s.h5", np.random.default_rng(0), []
    for _ in range(400):
        deep = [deep]
    with EpisodeWriter(path, tasks={name: (2 + 60 * (n == 2), 1) for n, name in enumerate([*names, "none"])}) as writer:
        for number, name in enumerate(names):
            for length in (1, 3, 3)[: 1 if number == 3 else 3]:
                obs = rng.normal(size=(length + 1, writer.tasks[name][0])) * (number != 1)  # one task stands still
                writer.append(
                    task=name, obs=obs, action=np.ones((length, 1)), reward=np.zeros(length),
                    terminated=length == 3, source="long " * 20 + f"<b>|{length}</b>",
                )  # fmt: skip
    path.with_suffix(".json").write_text(
        json.dumps(
            {
                "kind": "lit_pwm origin of a store",
                "verb": "<script>alert(1)</script>",
                "x": ["|", {"a\n": "\x07"}, deep],
            }
        )
    )
    folder = make_card(path, tmp_path / "card", progress=False).parent
    page, markdown = (folder / "index.html").read_text(), (folder / "README.md").read_text()
    assert not {"script", "onerror", "b"} & Tags(page).seen
    assert not re.search("<(script|img|b)", markdown)
    assert not any(sign in page + markdown for sign in "\x1b\x07")
    assert "nan" not in page.lower().replace("nano", "")
    for table in re.findall(r"(?:^\|.*\n)+", markdown, re.MULTILINE):
        assert len({len(re.findall(r"(?<!\\)\|", line)) for line in table.splitlines()}) == 1
    figures = [*(folder / "assets").glob("*.svg")]
    assert len(figures) > 30
    for figure in figures:
        assert not {"script"} & {element.tag.rpartition("}")[2] for element in ElementTree.parse(figure).iter()}
    several = next((folder / "assets").glob("returns-0-*.svg")).read_text()
    assert len(re.findall(r">(?:long )+\w*…<", several)) == 2  # of 1 and 3 steps, the same as far as there is room
    assert "Without episodes: none." in page
    assert "the first 48 are shown" in page
    assert "Lengths and ends" in page


@pytest.mark.parametrize(("column", "place"), [("reward", 5), ("obs", (5, 1))])
def test_of_numbers_that_are_not_finite_there_is_no_card(collected, tmp_path, capsys, column, place):
    path = copied(collected, tmp_path)
    with h5py.File(path, "r+") as file:
        file[column][place] = np.nan
    assert command(["data", "card", str(path), "--out", str(tmp_path / "card")]) == 2
    assert "not finite, of which no card can be made. `lit-pwm data check" in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "card").exists()


@pytest.mark.parametrize("value", [["x", None], {"a": 1}, [-1, 2.5]])
def test_specs_of_a_file_may_say_anything(tmp_path, value):
    plan = Plan(
        {"a": ImportedTask(2, 2, spec={"low": value, "make": [["<b>"]]}, whole_episodes=False)}, np.array([3]),
        np.array([0]), ["x"], lambda _: iter([ImportedEpisode(np.zeros((4, 2)), np.zeros((3, 2)), np.ones(3))]), 1, [],
    )  # fmt: skip
    write_stores([Output(tmp_path / "s.h5", plan, np.arange(1), {})], progress=False)
    page, markdown = text_of(make_card(tmp_path / "s.h5", tmp_path / "card", progress=False).parent)
    assert "are pieces of episodes, whose sums of rewards are no returns: a" in page
    assert "sum of rewards of a piece" in (tmp_path / "card/assets/returns-0-a.svg").read_text()
    assert ("−1, 2.5" in markdown.replace("-1, 2.5", "−1, 2.5")) == (value == [-1, 2.5])


def test_of_many_rows_a_sample_is_drawn_and_said(tmp_path, monkeypatch):
    monkeypatch.setattr(store_sample, "ROWS_OF_TASK", 50)
    monkeypatch.setattr(examples, "TASKS", 1)
    path, length = tmp_path / "s.h5", 10
    with EpisodeWriter(path, tasks={"a": (2, 1), "b": (1, 1)}) as writer:
        for number in range(60):
            obs = np.stack([np.full(length + 1, number), np.arange(length + 1)], axis=1)
            task = "ab"[number % 10 == 9]
            writer.append(
                task=task, obs=obs[:, : writer.tasks[task][0]], action=np.zeros((length, 1)), reward=np.ones(length)
            )
    sample = sample_store(EpisodeStore(path))
    (a, _) = sample.tasks
    assert len(a.obs) == len(np.unique(a.obs, axis=0)) == 50
    assert a.obs[:, 1].max() == length - 1  # no last observation, after which no action was taken
    assert set(a.obs[:, 1].astype(int)) == set(range(length))  # all steps, and not always the same
    assert np.diff(a.obs[:, 0]).max() <= 4
    np.testing.assert_array_equal(a.obs, sample_store(EpisodeStore(path)).tasks[0].obs)
    page, markdown = text_of(make_card(path, tmp_path / "card", progress=False).parent)
    for text in (page, markdown):
        assert "100 of 600 transitions are counted here and for actions, at most 50 of a task" in text
        assert "Of the first 1 of 2 tasks." in text


def test_a_folder_that_is_there_stays_as_it_is(collected, tmp_path, capsys):
    (tmp_path / "card").mkdir()
    (tmp_path / "card" / "mine").touch()
    (tmp_path / "file").touch()
    for place in ("card", "file"):
        assert command(["data", "card", str(collected), "--out", str(tmp_path / place)]) == 2
        assert "exists already and is not empty" in " ".join(capsys.readouterr().err.split())
    assert command(["data", "card", str(tmp_path / "no.h5"), "--out", str(tmp_path / "new")]) == 2
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["card", "file", "mine"]


def test_nothing_is_left_of_a_card_that_fails(collected, tmp_path, monkeypatch):
    monkeypatch.setattr("lit_pwm.experiments.card.card_building.build_report", lambda *_, **__: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        make_card(collected, tmp_path / "card", 0, progress=False)
    assert [*tmp_path.iterdir()] == []
