"""The verbs `collect` and `data`: making episode stores, and looking into them."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from lit_pwm.cli.data_card import add_card_parser
from lit_pwm.cli.data_export import add_export_parser
from lit_pwm.cli.data_import import add_import_parser
from lit_pwm.cli.data_rework import add_rework_parsers
from lit_pwm.errors import LitPWMError
from lit_pwm.options import Count, Seed, Workers, argument
from lit_pwm.options.names import names_in
from lit_pwm.paths import path_argument
from lit_pwm.tasks.stored_specs import in_words

if TYPE_CHECKING:
    from datamodules.check import StoreInfo, TaskInfo

_BAR_WIDTH = 40


def add_collect_parser(verbs: argparse._SubParsersAction) -> None:
    """Register the verb `collect`."""
    parser = verbs.add_parser(
        "collect",
        help="roll episodes in dm_control into an episode store",
        description="Roll episodes in dm_control into a new episode store. Interrupted, it goes on where it was when "
        "it is run again.",
    )
    parser.add_argument("--tasks", required=True, metavar="A,B", help="tasks, with commas between: names, or gym:ID")
    parser.add_argument("--episodes", required=True, type=argument(Count), metavar="N", help="episodes of each task")
    parser.add_argument(
        "--out", required=True, type=path_argument, metavar="F.h5", help="the new store; it must not exist"
    )
    parser.add_argument(
        "--behaviour",
        default="noise",
        metavar="random|noise|CKPT",
        help="what acts: uniform actions, a mix of correlated noises (default), or a policy's checkpoint plus noise",
    )
    parser.add_argument(
        "--workers", type=argument(Workers), metavar="N", help="processes (default: one for each processor core)"
    )
    parser.add_argument(
        "--seed", type=argument(Seed), default=0, metavar="S", help="seed of starts and noise (default 0)"
    )
    parser.add_argument(
        "--clamp-rewards",
        action="store_true",
        help="clamp rewards beyond the range of a model's bins, ±22,025.5, which are refused otherwise",
    )
    parser.set_defaults(run=run_collect)


def run_collect(arguments: argparse.Namespace) -> int:
    """Collect, then say what there is."""
    names = names_in(arguments.tasks)
    if not names:
        raise LitPWMError("The option --tasks names no task. Write names separated by commas: --tasks A,B.")

    from datamodules.collecting import collect

    collect(
        names,
        arguments.episodes,
        arguments.out,
        arguments.behaviour,
        arguments.workers,
        arguments.seed,
        clamp_rewards=arguments.clamp_rewards,
    )
    return run_info(argparse.Namespace(store=arguments.out))


def add_data_parser(verbs: argparse._SubParsersAction) -> None:
    """Register the verb `data` with its own verbs."""
    parser = verbs.add_parser(
        "data", help="import, merge, choose and look into episodes", description="Make and look into episode stores."
    )
    own = parser.add_subparsers(dest="data_verb", metavar="VERB", required=True)
    info = own.add_parser(
        "info",
        help="tasks, episodes, rows and returns",
        description="Tasks, episodes, rows, and a histogram of each task's returns.",
    )
    checking = own.add_parser(
        "check",
        help="list all faults",
        description="Read the whole store and list all its faults. Exit code 0: none, 1: some, 2: no episode store.",
    )
    for verb, run in ((info, run_info), (checking, run_check)):
        verb.add_argument("store", type=path_argument, metavar="F.h5", help="the episode store")
        verb.set_defaults(run=run)
    add_import_parser(own)
    add_rework_parsers(own)
    add_export_parser(own)
    add_card_parser(own)


def run_info(arguments: argparse.Namespace) -> int:
    """Print what a store holds."""
    from datamodules.check import info

    print("\n".join(_described(info(arguments.store))))
    return 0


def run_check(arguments: argparse.Namespace) -> int:
    """Print a store's faults; 1 if there are any."""
    from datamodules.check import check

    faults = check(arguments.store)
    if not faults:
        print(f"{arguments.store}: no faults")
        return 0
    print(f"{arguments.store}: {len(faults)} kind{'s' if len(faults) > 1 else ''} of faults", file=sys.stderr)
    for fault in faults:
        print(f"  {fault}", file=sys.stderr)
    return 1


def _described(info: StoreInfo) -> list[str]:
    held = {name: task for name, task in info.tasks.items() if len(task.lengths)}
    lines = [
        f"{info.path}: {info.num_episodes:,} episodes of {len(held)} task{'s' if len(held) != 1 else ''}, "
        f"{info.num_transitions:,} transitions in {info.num_rows:,} rows, {info.num_bytes / 1e6:,.1f} MB, "
        f"action repeat {' and '.join(map(str, sorted(set(info.action_repeats))))}, format version {info.version}",
        f"SHA-256 {info.hash}" if info.hash else "no hash: format version 1 has no checksums",
    ]
    for count, what in (
        (info.clipped_actions, "actions were clipped to ±1"),
        (info.clamped_rewards, "rewards clamped"),
    ):
        if count:
            lines.append(f"When it was written, {count:,} {what}.")
    for name, task in held.items():
        lines += ["", *_described_task(name, task)]
    if len(held) < len(info.tasks):
        lines += ["", f"Without episodes: {', '.join(printable(name) for name in info.tasks if name not in held)}"]
    return lines


def _described_task(name: str, task: TaskInfo) -> list[str]:
    shortest, longest = int(task.lengths.min()), int(task.lengths.max())
    lengths = f"{shortest}" if shortest == longest else f"{shortest} to {longest}"
    sources = ", ".join(f"{printable(source)} ({count:,})" for source, count in task.sources.most_common(5))
    lines = [
        f"{printable(name)}: {len(task.lengths):,} {'episodes' if task.whole_episodes else 'pieces of episodes'} of "
        f"{lengths} transitions, {task.terminated:,} terminated; obs {task.obs_dim}, action {task.action_dim}",
        f"  {int(task.lengths.sum()):,} transitions in all; source: {sources}{', …' if len(task.sources) > 5 else ''}",
    ]
    if environment := in_words(task.spec):
        lines.append(f"  environment: {printable(environment)}")
    finite = int(task.histogram.sum())
    if finite < len(task.lengths):
        lines.append(f"  return: the returns of {len(task.lengths) - finite:,} are not finite (see data check)")
    if not finite:
        return lines
    what = "return" if task.whole_episodes else "return of pieces"
    lines.append(f"  {what}: mean {task.mean:.1f}, std {task.std:.1f}, from {task.least:.1f} to {task.greatest:.1f}")
    return lines + _histogram(task.histogram.tolist(), task.edges.tolist())


def printable(text: str) -> str:
    """A text from a file as it is, or in quotes and escaped where it holds what a terminal would act on."""
    return text if text.isprintable() else repr(text)


def _histogram(counts: Sequence[int], edges: Sequence[float]) -> list[str]:
    if edges[-1] - edges[0] < 1e-6 * max(1.0, abs(edges[0])) or sum(count > 0 for count in counts) == 1:
        return []
    most = max(counts)
    return [
        f"  {low:9.1f} to {high:9.1f} {count:8,} {'█' * -(-count * _BAR_WIDTH // most)}".rstrip()
        for low, high, count in zip(edges, edges[1:], counts, strict=False)
    ]
