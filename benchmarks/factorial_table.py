"""The factorial's tables and figure in README.md and docs/factorial.md, from the committed records alone.

    python benchmarks/factorial_table.py

The records are those of `lit-pwm sweep configs/sweeps/factorial.yaml --records benchmarks/results/factorial`, the
tables those of `lit-pwm report benchmarks/results/factorial --out report`. No number in them is typed.
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from formulation_table import put

from lit_pwm.cli.main import run

ROOT = Path(__file__).parent.parent
RECORDS = ROOT / "benchmarks" / "results" / "factorial"
IN_README = ("Interquartile mean return", "World models, decoded error, 16", "World models, reward error, 16")


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        if code := run(["report", str(RECORDS), "--out", folder]):
            raise SystemExit(code)
        text = (Path(folder) / "results.md").read_text(encoding="utf-8").split("\n", 2)[2].strip()
        shutil.copy(Path(folder) / "assets" / "comparison-iqm.svg", ROOT / "docs" / "factorial.svg")
    put(ROOT / "docs" / "factorial.md", "factorial", text)
    blocks = text.split("\n\n")
    heads = [i for i, block in enumerate(blocks) if block.startswith(IN_README)]
    short = [part for i in heads for part in blocks[i : i + 2]]  # each with the table after it
    put(ROOT / "README.md", "factorial", "\n\n".join(short))


if __name__ == "__main__":
    main()
