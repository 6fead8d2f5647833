"""The report's page: whole, self-contained, well-formed, with every figure it speaks of."""

import re
import xml.etree.ElementTree as ElementTree
from html.parser import HTMLParser
from pathlib import Path

import pytest

from lit_pwm.errors import LitPWMError
from lit_pwm.experiments import report

VOID = {"meta", "img", "source", "br", "link", "input", "hr"}


class Reader(HTMLParser):
    """Checks nesting, and gathers what the page says and refers to."""

    def __init__(self):
        super().__init__()
        self.open, self.ids, self.references, self.text, self.elements = [], [], [], [], []

    def handle_starttag(self, tag, attrs):
        attributes = dict(attrs)
        assert len(attributes) == len(attrs), f"an attribute twice in {self.get_starttag_text()}"
        self.elements.append((tag, attributes))
        if tag not in VOID:
            self.open.append(tag)
        if "id" in attributes:
            self.ids.append(attributes["id"])
        self.references += [attributes[key] for key in ("src", "href", "srcset") if key in attributes]

    def handle_endtag(self, tag):
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag

    def handle_data(self, data):
        if not {"style", "script"} & set(self.open):
            self.text.append(data)


def read(index):
    reader = Reader()
    reader.feed(index.read_text())
    reader.close()
    assert reader.open == []
    return reader


@pytest.fixture
def built(all_sections, tmp_path):
    facts = {"tasks": "3", "wall-clock": "8 min 54 s"}
    index = report.build_report(all_sections, tmp_path / "report", title="A run", lead="What it did.", facts=facts)
    return index, read(index)


def test_every_section_is_there_under_its_heading_and_in_the_contents(built, all_sections):
    index, page = built
    assert index.name == "index.html"
    assert len(set(page.ids)) == len(page.ids)
    for section in all_sections:
        assert section.anchor in page.ids
        assert f"#{section.anchor}" in page.references
        assert page.text.count(section.title) == 2
    for words in ("A run", "What it did.", "8 min 54 s", "cup-catch", "PWM, best", "lit-pwm demo --seed 1"):
        assert any(words in text for text in page.text), words


def test_every_reference_is_met_and_none_leads_outside(built):
    index, page = built
    files = [reference for reference in page.references if not reference.startswith("#")]
    assert len(files) > 30
    for reference in page.references:
        if reference.startswith("#"):
            assert reference[1:] in page.ids
        else:
            assert (index.parent / reference).is_file(), reference
    used = {(index.parent / reference).name for reference in files}
    assert {path.name for path in (index.parent / "assets").iterdir()} == used
    for path in [index, *(index.parent / "assets").glob("*.svg")]:
        text = re.sub(r'xmlns(:\w+)?="[^"]*"', "", path.read_text())
        assert not re.search(r"https?:|url\((?!#)|@import|//\w+\.", text), path
        assert str(Path.home()) not in text


def test_figures_are_drawings_with_texts_for_those_who_cannot_see_them(built):
    index, page = built
    images = [attributes for tag, attributes in page.elements if tag == "img"]
    assert len(images) >= 15
    for attributes in images:
        assert len(attributes["alt"]) > 20
        light = ElementTree.parse(index.parent / attributes["src"]).getroot()
        assert light.tag.endswith("svg")
        assert len(light.findall(".//{*}path")) > 5
        assert light.findall(".//{*}text")
    videos = [attributes for tag, attributes in page.elements if tag == "video"]
    assert len(videos) == 1
    assert "cup-catch" in videos[0]["aria-label"]
    assert (index.parent / videos[0]["src"]).stat().st_size > 500


def luminance(colour):
    """Relative luminance of `#rrggbb` (WCAG 2)."""
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_dark_drawings_differ_in_colours_only_and_can_be_read_on_dark_pages(built):
    index, _ = built
    colour, panel = re.compile(r"#[0-9a-fA-F]{6}\b"), luminance("#1a1e25")
    for dark in (index.parent / "assets").glob("*-dark.svg"):
        light = dark.with_name(dark.name.replace("-dark", "")).read_text()
        assert colour.sub("#", light) == colour.sub("#", dark.read_text())
        for used in set(colour.findall(dark.read_text())) - {"#2f3640"}:  # but for the grid's lines
            assert (luminance(used) + 0.05) / (panel + 0.05) > 4.5, (dark.name, used)


def test_the_page_is_the_same_each_time(all_sections, tmp_path):
    first = report.build_report(all_sections, tmp_path / "first")
    second = report.build_report(all_sections, tmp_path / "second")
    for path in first.parent.rglob("*"):
        if path.is_file():
            assert path.read_bytes() == (second.parent / path.relative_to(first.parent)).read_bytes(), path.name


def test_a_part_that_fails_leaves_the_old_page(built, all_sections):
    index, _ = built
    before = index.read_text()

    class Failing:
        title, anchor = "Fails", "fails"

        def render(self, page):
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        report.build_report([*all_sections, Failing()], index.parent)
    assert index.read_text() == before
    assert not list(index.parent.rglob(".*"))


def test_other_files_in_the_folder_are_left_alone(all_sections, tmp_path):
    (tmp_path / "model.ckpt").write_text("weights")
    report.build_report(all_sections[:1], tmp_path)
    report.build_report(all_sections[:1], tmp_path)
    assert (tmp_path / "model.ckpt").read_text() == "weights"


def test_a_section_of_ones_own_and_text_that_looks_like_html(tmp_path):
    class Own:
        title, anchor = "<b>Mine</b> & more", "mine"

        def render(self, page):
            return "<p>my part</p>"

    record = report.RunRecordSection({"<i>": {"a<b": "<script>alert(1)</script>"}})
    index = report.build_report([Own(), record], tmp_path, title="<h1>", lead="a < b", facts={"<u>": "&"})
    page = read(index)
    assert not {"b", "i", "u", "script"} & {tag for tag, _ in page.elements}
    assert "my part" in page.text
    assert "<script>alert(1)</script>" in page.text


def test_sections_without_data_say_so(tmp_path):
    sections = [
        report.ResultsSection([]),
        report.VideosSection([]),
        report.PolicyCurvesSection({}),
        report.WorldModelCurvesSection({}),
        report.OpenLoopSection([]),
        report.StagesSection({}),
        report.RunRecordSection({}),
    ]
    index = report.build_report(sections, tmp_path)
    page = read(index)
    assert len([1 for tag, attributes in page.elements if attributes.get("class") == "notice"]) == len(sections)
    assert not (tmp_path / "assets").exists()


def test_sections_with_half_their_data(tmp_path):
    rows = [
        report.ResultsRow("a", {"best": [900.0], "random": [1.0, 2.0]}),
        report.ResultsRow("b", {"data": []}),
    ]
    sections = [
        report.ResultsSection(rows),
        report.PolicyCurvesSection({"a": {"policy": [(0, 1.0)]}, "b": {"policy": []}}),
        report.WorldModelCurvesSection({"train/loss": [(1, 0.5)], "val/latent_error_4": [(1, 0.5), (2, 0.4)]}),
        report.OpenLoopSection([report.OpenLoopPanel("a", "reward", [0.0, 1.0], [0.0, 0.5])]),
        report.StagesSection({"all of it": 0.2}),
    ]
    page = read(report.build_report(sections, tmp_path))
    assert "b: the policy was not evaluated during training." in page.text
    assert "900" in page.text


def test_bad_anchors_and_names_are_refused(all_sections, tmp_path):
    with pytest.raises(LitPWMError, match="anchor"):
        report.build_report([all_sections[0], all_sections[0]], tmp_path)

    class Own:
        title, anchor = "Own", "Own part"

        def render(self, page):
            return ""

    with pytest.raises(LitPWMError, match="'Own part'"):
        report.build_report([Own()], tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_written_to_is_refused(all_sections, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(LitPWMError, match="could not be written"):
        report.build_report(all_sections, tmp_path / "file")


def test_a_video_that_is_gone_is_named(all_sections, recordings, tmp_path):
    from dataclasses import replace

    gone = replace(recordings[0], path=tmp_path / "gone.mp4")
    with pytest.raises(LitPWMError, match=r"gone\.mp4"):
        report.build_report([report.VideosSection([gone])], tmp_path)


def test_names_of_files_are_short_and_differ_where_names_do():
    from lit_pwm.experiments.report.curves import slug

    assert slug("cup-catch") == "cup-catch"
    assert slug("observation 3") == "observation-3"
    strange = ["ü", "é", "", "a/b", "a|b", "../x", "x" * 5000, "x" * 5001, "\ud800"]
    found = [slug(name) for name in strange]
    assert len(set(found)) == len(strange)
    assert all(re.fullmatch(r"[a-z0-9-]{1,80}", name) for name in found)


def test_captions_and_labels_are_text(tmp_path):
    from lit_pwm.experiments.report import figures
    from lit_pwm.experiments.report.page import Page

    figure, _ = figures.panel()
    shown = Page(tmp_path).figure("a", figure, '"><script>', "<script>&")
    assert "<script" not in shown
    assert "&lt;script&gt;&amp;" in shown
