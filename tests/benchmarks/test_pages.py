"""The pages' tables are what their scripts make of the committed records, and the sentences' figures are in them."""

import json
from pathlib import Path

import cuda_graphs_speed
import factorial_table
import finetuning_figure
import finetuning_table
import flow_cost
import flow_cost_gpu
import formulation_table
import joint_figure
import joint_table
import negative_controls
import policy_records
import pytest
import stochastic_contrasts
import stochastic_table
import termination_figure
import termination_table
from pages import DOCS, FLOW_PAGE

from lit_pwm.experiments.report.figures import as_svg

README = Path(__file__).parents[2] / "README.md"
RESULTS = Path(formulation_table.__file__).parent / "results"


@pytest.fixture(scope="module")
def grids():
    return factorial_table.grids()


def section(page, name):
    return page.read_text().split(f"<!-- {name} -->\n")[1].split(f"\n<!-- end {name} -->")[0]


def row(table, start):
    (line,) = [line for line in table.splitlines() if line.startswith(f"| {start} |")]
    return [cell.strip() for cell in line.strip("|").split("|")][1:]


@pytest.fixture(scope="module")
def reports():
    """Folder of records → the tables of `lit-pwm report`, and its drawing."""
    return {name: factorial_table.report(name) for name in ("factorial", "factorial_64")}


def test_what_lit_pwm_report_makes_of_the_factorials_records_is_on_the_pages(reports):
    text, drawing = reports["factorial"]
    assert section(factorial_table.PAGE, "factorial") == factorial_table.some(text, factorial_table.ON_PAGE)
    assert section(README, "factorial") == factorial_table.some(text, factorial_table.IN_README)
    assert (DOCS / "factorial.svg").read_text() == drawing
    text, drawing = reports["factorial_64"]
    assert section(factorial_table.PAGE, "64 rollouts") == factorial_table.some(text, factorial_table.AT_64)
    assert (DOCS / "factorial_64.svg").read_text() == drawing


def test_the_factorials_tables_are_those_of_the_records(grids):
    page = factorial_table.PAGE
    assert section(page, "paired") == factorial_table.components(grids)
    assert section(page, "sampled") == factorial_table.sampled(grids)
    assert section(page, "catches") == factorial_table.catches(grids)
    assert section(page, "other data") == factorial_table.other_data(grids[64])


def test_returns_of_both_pages_are_those_of_the_grid(grids):
    for page in (factorial_table.PAGE, README):
        for (model, policy), number in zip(grids[256].cells, (0, 1) * 3, strict=True):
            value, interval = grids[256].estimate((model, policy), "best").shown()
            first = section(page, "factorial").split("\n\n")[1]
            assert row(first, model)[number] == f"{value} ({interval})"


def test_what_could_have_been_seen_in_the_factorial(grids):
    table = factorial_table.components(grids)
    models = row(table, "flow − mlp world model, best, 256 rollouts")
    policies = row(table, "flow − mlp policy, best, 256 rollouts")
    assert (models[2], models[-1]) == ("-1 (-141 to +140)", "190")
    assert (policies[2], policies[-1]) == ("-68 (-139 to +3)", "96")
    assert min(float(row(table, name.split("|")[1].strip())[4]) for name in table.splitlines()[2:]) > 0.05


def test_cup_catch_is_found_more_often_by_mlp_policies_and_noise_moves_them_apart(grids):
    table = factorial_table.catches(grids)
    first = table.split("Best checkpoints, 64")[0]
    assert [row(first, f"{policy} policy") for policy in ("mlp", "flow")] == [
        ["0.79", "13 of 15", "856"], ["0.58", "10 of 15", "827"]
    ]  # fmt: skip
    noise = factorial_table.sampled(grids)
    assert row(noise, "sampled − best, flow policy, cup-catch, 256 rollouts")[2].startswith("+28 ")
    assert row(noise, "sampled − best, mlp policy, cup-catch, 256 rollouts")[2].startswith("-25 ")


def test_another_collection_moved_a_cell_by_more_than_any_component(grids):
    assert row(factorial_table.other_data(grids[64]), "mlp / mlp")[2:] == ["-51 (-265 to +163)", "-98"]
    effects = [float(line.split("|")[4].split()[0]) for line in factorial_table.components(grids).splitlines()[2:]]
    assert len(effects) == 16
    assert max(abs(effect) for effect in effects) < 70


@pytest.mark.parametrize("name", ["formulation", "formulation_5m"])
def test_the_formulation_studys_tables_are_those_of_the_records(name):
    records = formulation_table.read(RESULTS / name)
    assert section(FLOW_PAGE, name.replace("_", " ")) == formulation_table.text(records)
    table = formulation_table.table_of_pairs(records)
    expected = {"formulation": "1.01 (0.96 to 1.06)", "formulation_5m": "0.96 (0.53 to 1.72)"}[name]
    assert row(table, "flow ÷ refinement")[2] == expected


def test_the_world_models_of_the_study_have_one_mean_return():
    table = formulation_table.policy_table(RESULTS / "formulation" / "policies")
    assert section(FLOW_PAGE, "formulation policies") == table
    assert "all 10 world models have one mean: F = 0.62, p = 0.77" in table


def test_the_study_of_stochastic_dynamics_is_that_of_the_records():
    page, results = stochastic_table.PAGE, stochastic_table.RESULTS
    assert section(page, "stochastic") == stochastic_table.table(results / "records").strip()
    assert section(page, "stochastic policies") == stochastic_table.policy_table(results / "policies").strip()
    task = "cartpole-swingup-kicked"
    contrasts = f"### {task}\n\n{stochastic_contrasts.contrasts(results, task)}"
    assert section(page, "stochastic contrasts") == contrasts


@pytest.mark.parametrize(
    ("script", "page", "name"),
    [
        (flow_cost, FLOW_PAGE, "cost"),
        (flow_cost_gpu, FLOW_PAGE, "cost on a GPU"),
        (negative_controls, FLOW_PAGE, "negative controls"),
        (cuda_graphs_speed, DOCS / "gpu.md", "graphs"),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_measurements_are_those_of_their_results(script, page, name):
    result = json.loads(script.RESULT.read_text())
    rows = result["rows"] if script in (flow_cost_gpu, cuda_graphs_speed) else result
    assert section(page, name) == script.text(rows)


def test_the_readme_tells_what_is_left_of_the_stochastic_study_after_correction():
    differences = stochastic_contrasts.contrasts(stochastic_table.RESULTS, "cartpole-swingup-kicked").strip()
    samplers = differences.split("\n\n")[0]
    at_16 = {arm: row(samplers, arm)[2] for arm in ("flow-matching", "refinement-residuals")}
    assert at_16["flow-matching"] == "-0.021 (-0.034 to -0.008)"  # the README's, not bold: not after correction
    assert sum(line.split("|")[4].strip().startswith("**") for line in samplers.splitlines()[2:]) == 4
    assert at_16["refinement-residuals"].startswith("**")


def test_the_fine_tuning_studys_page_is_that_of_the_records():
    records = policy_records.read(finetuning_table.RESULTS)
    for name, text in finetuning_table.sections(records).items():
        assert section(finetuning_table.PAGE, name) == text
    if records:
        assert finetuning_table.FIGURE.read_text() == as_svg(finetuning_figure.figure(records))


def test_the_page_on_joint_training_is_that_of_the_records():
    for name, text in joint_table.sections(joint_table.RESULTS).items():
        assert section(joint_table.PAGE, name) == text
    if records := policy_records.read(joint_table.RESULTS):
        drawn = joint_figure.figure(records[joint_table.TASK], joint_table.read_controls(joint_table.RESULTS))
        assert joint_table.FIGURE.read_text() == as_svg(drawn)


def test_the_page_on_terminations_is_that_of_the_records():
    results = termination_table.RESULTS
    for name, text in termination_table.sections(results).items():
        assert section(termination_table.PAGE, name) == text
    records = termination_table.in_order(policy_records.read(results))
    returns = termination_table.returns_table(records)
    dash = [line.split("|")[4].strip() for line in returns.splitlines() if line.startswith("| cartpole-dash")]
    assert [mean.split(" ")[0] for mean in dash] == ["677", "72"], "the README's"
    assert dash[0] == "677 (447 to 907)"
    drawn = termination_figure.figure(records, termination_table.read_heads(results))
    assert termination_table.FIGURE.read_text() == as_svg(drawn)
