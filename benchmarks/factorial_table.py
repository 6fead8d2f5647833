"""The factorial's tables and figure in README.md and docs/factorial.md, from the committed records alone.

    python benchmarks/factorial_table.py

The records are those of `lit-pwm sweep configs/sweeps/factorial.yaml --records benchmarks/results/factorial`, and of
the same with `--set rollouts=64 --records benchmarks/results/factorial_64`; tables those of `lit-pwm report`, and of
differences between cells. No number in them is typed.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from itertools import product
from pathlib import Path

import numpy as np
from pages import markdown, put

from lit_pwm.cli.main import run
from lit_pwm.statistics import bootstrap_interval

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "benchmarks" / "results"
IN_README = ("Interquartile mean return", "World models, decoded error, 16", "World models, reward error, 16")
AT_64 = ("Interquartile mean return", "By task, best checkpoint")


def report(records: str, figure: str) -> str:
    """The tables of a folder of records, whose figure goes to docs/."""
    with tempfile.TemporaryDirectory() as folder:
        if code := run(["report", str(RESULTS / records), "--out", folder]):
            raise SystemExit(code)
        shutil.copy(Path(folder) / "assets" / "comparison-iqm.svg", ROOT / "docs" / figure)
        return (Path(folder) / "results.md").read_text(encoding="utf-8").split("\n", 2)[2].strip()


def some(text: str, heads: tuple[str, ...]) -> str:
    """The tables that have these headings."""
    blocks = text.split("\n\n")
    found = [i for i, block in enumerate(blocks) if block.startswith(heads)]
    return "\n\n".join(part for i in found for part in blocks[i : i + 2])  # each with the table after it


PAIRS = {
    "flow − MLP world model": ("world_model", "flow", "mlp"),
    "refinement − MLP world model": ("world_model", "refinement", "mlp"),
    "flow − refinement world model": ("world_model", "flow", "refinement"),
    "flow − MLP policy": ("policy", "flow", "mlp"),
}


def differences(records: str, axis: str, one: str, other: str, kind: str) -> np.ndarray:
    """[tasks, seeds]: difference of returns of cells that differ in one axis alone, averaged over the other axis."""
    returns: dict[tuple[str, ...], float] = {}
    for path in (RESULTS / records).glob("*.json"):
        record = json.loads(path.read_text())
        (scores,) = record["returns"][kind]["tasks"].values()
        labels = {name: str(label) for name, label in record["labels"].items()}
        rest = "policy" if axis == "world_model" else "world_model"
        returns[labels[axis], labels[rest], labels["task"], labels["seed"]] = float(np.mean(scores["returns"]))
    _, rests, tasks, seeds = (sorted(set(names)) for names in zip(*returns, strict=True))
    pairs = [[[returns[one, r, t, s] - returns[other, r, t, s] for r in rests] for s in seeds] for t in tasks]
    return np.array(pairs).mean(-1)


def interval(values: np.ndarray) -> str:
    """Mean of [tasks, seeds] with its 95 % stratified bootstrap interval."""
    low, high = bootstrap_interval(list(values))
    return f"{values.mean():+.0f} ({low:+.0f} to {high:+.0f})"


def paired() -> str:
    """The table of differences between cells of the same task and seed."""
    columns = list(product(("best", "last"), (("factorial", 256), ("factorial_64", 64))))
    head = ["difference of returns", *(f"{kind}, {n} rollouts" for kind, (_, n) in columns)]
    rows = [
        [name, *(interval(differences(records, *pair, kind)) for kind, (records, _) in columns)]
        for name, pair in PAIRS.items()
    ]
    return markdown(head, rows)


def catches() -> str:
    """How many policies of cup-catch end with an imagined return that only a catch brings."""
    rows = []
    for records, rollouts in (("factorial", 256), ("factorial_64", 64)):
        found: dict[str, list[bool]] = {"mlp": [], "flow": []}
        for path in (RESULTS / records).glob("*task=cup-catch*.json"):
            record = json.loads(path.read_text())
            found[record["labels"]["policy"]].append(record["policy"]["final"]["train/imagined_return"] > 7)
        rows.append([f"{rollouts} rollouts", *(f"{sum(values)} of {len(values)}" for values in found.values())])
    return markdown(["policies of cup-catch with a catch in imagination", "mlp", "flow"], rows)


def main() -> None:
    text = report("factorial", "factorial.svg")
    put(ROOT / "docs" / "factorial.md", "factorial", text)
    put(ROOT / "docs" / "factorial.md", "64 rollouts", some(report("factorial_64", "factorial_64.svg"), AT_64))
    put(ROOT / "docs" / "factorial.md", "paired", paired())
    put(ROOT / "docs" / "factorial.md", "catches", catches())
    put(ROOT / "README.md", "factorial", some(text, IN_README))


if __name__ == "__main__":
    main()
