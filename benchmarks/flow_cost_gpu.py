"""What a flow world model costs on a GPU at the published sizes: time of loss and gradients beside their FLOPs.

    python benchmarks/flow_cost_gpu.py                  # about a minute

The sizes are those of configs/world_model/, with batches of 256 slices of 16 transitions as in configs/pretrain.yaml.
Kinds take turns, kernel by kernel and as CUDA graphs, and ratios are medians over turns. The share of the limit is the
FLOPs (torch's counter) over the time, against a large matrix product of the same precision measured in the same run.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any, cast

import torch
import yaml
from pages import FLOW_PAGE, markdown, put

from lit_pwm.batch import Batch
from lit_pwm.losses import WorldModelObjective
from lit_pwm.measures.compute import Stopwatch, cost_of_update
from lit_pwm.models import Dynamics, FlowDynamics, MLPDynamics, RefinementDynamics, WorldModel
from lit_pwm.models.parity import match_parameters
from lit_pwm.runtime.graphs import graphed

RESULT = Path(__file__).parent / "results" / "flow_cost_gpu.json"
CONFIGS = Path(__file__).parent.parent / "configs" / "world_model"
TASKS = {f"task-{i}": (24, 6) for i in range(30)}
BATCH, HORIZON = 256, 16


def model_of(kind: str, size: str) -> WorldModel:
    """The world model of a config, of as many parameters as the MLP's."""
    options = yaml.safe_load((CONFIGS / f"mlp_{size}.yaml").read_text())["model"]["init_args"]
    mlp = partial(MLPDynamics, **options.pop("dynamics")["init_args"], rescale_inputs=True)
    kinds: dict[str, Callable[..., Dynamics]] = {"mlp": mlp, "flow": FlowDynamics, "refinement": RefinementDynamics}
    dims = options["latent_dim"], 6, options["task_dim"]
    dynamics = mlp if kind == "mlp" else match_parameters(partial(kinds[kind], layers=2), mlp, dims)
    return WorldModel(TASKS, dynamics, **options)


def batch_of(device: torch.device) -> Batch:
    return {
        "obs": torch.randn(HORIZON + 1, BATCH, 24, device=device),
        "action": 2 * torch.rand(HORIZON, BATCH, 6, device=device) - 1,
        "reward": torch.rand(HORIZON, BATCH, device=device),
        "task": torch.arange(BATCH, device=device) % len(TASKS),
    }


def precision(name: str) -> Any:
    """The context of an update in this precision."""
    return torch.autocast("cuda", torch.bfloat16) if name == "bf16" else nullcontext()


def peak(name: str, device: torch.device, size: int = 8192) -> float:
    """FLOP/s of a large matrix product."""
    dtype = torch.bfloat16 if name == "bf16" else torch.float32
    a, b = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
    seconds = [timed(lambda: a @ b, device) for _ in range(8)]
    return 2 * size**3 / statistics.median(seconds[3:])


def timed(work: Callable[[], object], device: torch.device) -> float:
    watch = Stopwatch(device)
    watch.start()
    work()
    watch.stop()
    return watch.take()


def compare(size: str, name: str, turns: int, device: torch.device, limit: float) -> list[dict[str, Any]]:
    """Each kind's time and FLOPs, and its ratios to the MLP's."""
    torch.manual_seed(0)
    batch = batch_of(device)

    def update(model: WorldModel) -> None:
        with precision(name):
            loss = WorldModelObjective()(model, batch)["total"]
        loss.backward()
        for parameter in model.parameters():
            parameter.grad = None

    def replayed(model: WorldModel) -> Callable[[], None]:
        def loss(*tensors: torch.Tensor) -> tuple[torch.Tensor]:
            return (WorldModelObjective()(model, cast("Batch", dict(zip(batch, tensors, strict=True))))["total"],)

        with precision(name):
            replay = graphed(loss, [model], cast("list[torch.Tensor]", [*batch.values()]))

        def update() -> None:
            replay(*batch.values())[0].backward()
            for parameter in model.parameters():
                parameter.grad = None

        return update

    models = {kind: model_of(kind, size).to(device) for kind in ("mlp", "flow", "refinement")}
    updates: dict[str, Callable[[], None]] = {kind: partial(update, model) for kind, model in models.items()}
    flops = {kind: cost_of_update(one, {})[1].flops for kind, one in updates.items()}
    updates |= {f"{kind}, graph": replayed(model) for kind, model in models.items()}
    flops |= {f"{kind}, graph": count for kind, count in flops.items()}
    seconds: dict[str, list[float]] = {kind: [] for kind in updates}
    for turn in range(turns + 2):
        for kind, one in updates.items():
            passed = timed(one, device)
            if turn >= 2:
                seconds[kind].append(passed)
    rows = []
    for kind, times in seconds.items():
        base = seconds["mlp, graph" if "graph" in kind else "mlp"]
        ratio = statistics.median(a / b for a, b in zip(times, base, strict=True))
        rows.append({
            "size": size, "precision": name, "kind": kind, "ms": 1e3 * statistics.median(times), "flops": flops[kind],
            "flops_ratio": flops[kind] / flops["mlp"], "time_ratio": ratio,
            "share_of_limit": flops[kind] / statistics.median(times) / limit,
        })  # fmt: skip
    return rows


def text(rows: list[dict[str, Any]]) -> str:
    """The table of the ratios."""
    head = ("size", "precision", "dynamics", "ms", "FLOPs ÷ MLP's", "time ÷ MLP's", "of a large product's FLOP/s")
    cells = [
        [row["size"], row["precision"], row["kind"], f"{row['ms']:.1f}", f"{row['flops_ratio']:.2f}",
         f"{row['time_ratio']:.2f}", f"{row['share_of_limit']:.1%}"]
        for row in rows
    ]  # fmt: skip
    return markdown(head, cells, left=range(3))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", nargs="*", default=["5m", "48m", "317m"])
    parser.add_argument("--precisions", nargs="*", default=["float32", "bf16"], choices=["float32", "tf32", "bf16"])
    parser.add_argument("--turns", type=int, default=8)
    parser.add_argument("--result", type=Path, default=RESULT)
    options = parser.parse_args()
    device, rows = torch.device("cuda"), []
    for name in options.precisions:
        torch.backends.cuda.matmul.allow_tf32 = name == "tf32"
        limit = peak(name, device)
        print(f"{torch.cuda.get_device_name()}, {name}: a large matrix product runs at {limit / 1e12:.0f} TFLOP/s")
        for size in options.sizes:
            rows += compare(size, name, options.turns, device, limit)
            print(text(rows[-6:]), flush=True)
    options.result.parent.mkdir(parents=True, exist_ok=True)
    record = {"device": torch.cuda.get_device_name(), "torch": torch.__version__, "rows": rows}
    options.result.write_text(json.dumps(record, indent=1) + "\n")
    if options.result == RESULT:
        put(FLOW_PAGE, "cost on a GPU", text(rows))


if __name__ == "__main__":
    main()
