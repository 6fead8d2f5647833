"""The verb `checkpoint`: looking into files of models and policies, and making others of them."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from typing import Any

from lit_pwm.cli.exporting import add_export_parser
from lit_pwm.errors import LitPWMError, did_you_mean
from lit_pwm.paths import checkpoint_argument, path_argument
from lit_pwm.runtime.outputs import check_file

TARGETS = ("native", "tdmpc2", "tdmpc2-original", "pwm", "flow-mbpo")
"""Formats that `convert` writes."""


def add_parser(verbs: argparse._SubParsersAction) -> None:
    """Register the verb with its own verbs."""
    parser = verbs.add_parser(
        "checkpoint",
        help="look into the file of a model or policy, convert or export it",
        description="Look into the file of a model or policy, convert it to another format, or export it.",
    )
    own = parser.add_subparsers(dest="checkpoint_verb", metavar="VERB", required=True)
    _add_inspect_parser(own)
    _add_convert_parser(own)
    add_export_parser(own)


def _add_inspect_parser(verbs: argparse._SubParsersAction) -> None:
    parser = verbs.add_parser(
        "inspect",
        help="kind, format, sizes, tasks, step, config, metrics, data, versions and bytes",
        description="What a checkpoint is and holds. Nothing of it is built or run.",
    )
    parser.add_argument("checkpoint", type=checkpoint_argument, metavar="F", help="the checkpoint")
    parser.add_argument("--json", action="store_true", help="print everything as JSON, the whole config too")
    parser.set_defaults(run=run_inspect)


def _add_convert_parser(verbs: argparse._SubParsersAction) -> None:
    parser = verbs.add_parser(
        "convert",
        help="a file of another format",
        description="Write a checkpoint as a file of another format. What that lacks is folded into first layers, or "
        "refused by name.",
    )
    parser.add_argument("checkpoint", type=checkpoint_argument, metavar="F", help="a checkpoint of any format")
    parser.add_argument("--to", required=True, metavar="FORMAT", help=f"one of {', '.join(TARGETS)}")
    parser.add_argument("--out", required=True, type=path_argument, metavar="G", help="the file to write")
    parser.add_argument(
        "--tasks",
        metavar="A,B",
        help="names of the file's tasks in order, or of a task set, where it does not say them",
    )
    parser.add_argument(
        "--partial", action="store_true", help="write the file without optional parts that the checkpoint does not hold"
    )
    parser.add_argument(
        "--weights-only",
        action="store_true",
        help="leave out what only a resume needs: moments of optimizers, counters, random states",
    )
    parser.set_defaults(run=run_convert)


def run_convert(arguments: argparse.Namespace) -> int:
    """Write a checkpoint as a file of another format, and say what it is."""
    if arguments.to not in TARGETS:
        raise LitPWMError(f"--to is {arguments.to!r}. {did_you_mean(arguments.to, TARGETS)}")
    if arguments.tasks is not None and not arguments.tasks.strip(", "):
        raise LitPWMError("The option --tasks names no task. Write names separated by commas: --tasks A,B.")
    check_file(arguments.out, "--out")

    from lit_pwm.checkpoints.conversion import convert

    place = convert(
        arguments.checkpoint, arguments.to, arguments.out, arguments.tasks, arguments.partial, arguments.weights_only
    )
    print(f"{place}: {arguments.to}, {place.stat().st_size:,} bytes")
    return 0


def run_inspect(arguments: argparse.Namespace) -> int:
    """Print what a checkpoint is and holds."""
    from lit_pwm.checkpoints.inspection import inspect_checkpoint

    found = inspect_checkpoint(arguments.checkpoint)
    if arguments.json:
        print(json.dumps(found, indent=1))
        return 0
    from rich.markup import escape
    from rich.table import Table

    from lit_pwm.errors import escaped
    from lit_pwm.runtime.consoles import ResultConsole

    table = Table(show_header=False, title=escape(escaped(found["path"])), box=None, padding=(0, 2, 0, 0))
    for name, value in _rows(found):
        table.add_row(escape(escaped(name)), escape(escaped(value)))
    ResultConsole(soft_wrap=True).print(table)
    return 0


def _rows(found: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What is printed, by name; texts come from the file and are shown escaped."""
    sizes, form = found["sizes"], found["format"]
    version = "" if form["version"] is None else f", version {form['version']}"
    rows = [
        ("kind", found["kind"]),
        ("format", f"{form['name']}{version}"),
        ("bytes", f"{found['bytes']:,}"),
        ("parameters", f"{sizes['total']:,}" + (f" (size {sizes['like']})" if sizes["like"] else "")),
    ]
    rows += [(f"  {part}", f"{count:,}") for part, count in sizes["parameters"].items()]
    rows += [("widths", ", ".join(f"{name} {sizes[name]}" for name in _WIDTHS))]
    rows += [(f"  {name}", _component(part)) for name, part in found["components"].items()]
    if "continuation" in found["components"]:
        rows.append(("episodes end in", _listed(found["terminating_tasks"]) or "no task"))
    if unnamed := found.get("unnamed_tasks"):
        rows += [("tasks", f"{unnamed}, which the file does not name: give their names in order, --tasks A,B")]
    else:
        rows += [("tasks", f"{len(found['tasks'])}: {_listed(found['tasks'])}")]
    if found["kind"] == "policy":
        rows += [("trained tasks", _listed(found["trained_tasks"]) or "not said")]
    if (left_out := found["world_model_reference"]) is not None:
        rows += [("world model", f"left out; {_said(left_out.get('fingerprint'))} of {_said(left_out.get('file'))}")]
    rows += [(name, _listed(found[name])) for name in ("carried", "statistics") if found.get(name)]
    rows += [("step", _said(found["step"])), ("epoch", _said(found["epoch"]))]
    rows += [(f"  {name}", _metric(value)) for name, value in found["metrics"].items()]
    rows += [("data fingerprint", _said(found["data"].get("fingerprint")))]
    rows += [("versions", ", ".join(f"{name} {text}" for name, text in found["versions"].items() if text is not None))]
    rows += [("config", f"{len(found['config'])} settings; --json prints them")]
    rows += [("bytes by part", "")]
    rows += [(f"  {part}", f"{count:,}") for part, count in found["bytes_by_part"].items()]
    return rows


_WIDTHS = ("obs_dim", "action_dim", "latent_dim", "task_dim")
_SHOWN = 12


def _listed(names: Any) -> str:
    names = list(names)
    return ", ".join(names[:_SHOWN]) + (f", … ({len(names)} in all)" if len(names) > _SHOWN else "")


def _said(value: Any) -> str:
    return "not said" if value is None else str(value)


def _component(part: Any) -> str:
    if not isinstance(part, Mapping):
        return str(part)
    options = part.get("init_args") or {}
    return f"{part.get('class_path')} ({', '.join(f'{name} {value}' for name, value in options.items())})"


def _metric(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {_number(number)}" for name, number in value.items())
    return _number(value)


def _number(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:,.6g}"
    return f"{value:,}" if type(value) is int else _said(value)
