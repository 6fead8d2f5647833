"""The verb `evaluate`: a saved policy in the real environments."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from lit_pwm.errors import LitPWMError
from lit_pwm.options import Count, Positive, Seed, argument
from lit_pwm.options.names import names_in
from lit_pwm.paths import checkpoint_argument, file_name, is_url, path_argument
from lit_pwm.runtime.outputs import check_file, check_folder


def add_parser(verbs: argparse._SubParsersAction) -> None:
    """Register the verb."""
    parser = verbs.add_parser(
        "evaluate",
        help="returns of a saved policy in the real environments",
        description="Run the policy of a checkpoint, without noise; episode i uses environment seed SEED + i.",
    )
    parser.add_argument(
        "--checkpoint", required=True, type=checkpoint_argument, metavar="F", help="a policy's checkpoint"
    )
    parser.add_argument("--tasks", metavar="A,B", help="tasks (gym:ID too); those it was trained for if not given")
    parser.add_argument(
        "--episodes", type=argument(Count), default=10, metavar="N", help="episodes of each task (default 10)"
    )
    parser.add_argument(
        "--seed", type=argument(Seed), default=0, metavar="S", help="first environment seed (default 0)"
    )
    parser.add_argument("--sampled", action="store_true", help="let the policy act with its noise, drawn from SEED")
    parser.add_argument("--out", type=path_argument, metavar="R.json", help="write the result as JSON")
    parser.add_argument("--video", type=path_argument, metavar="DIR", help="write a video of one episode of each task")
    parser.add_argument(
        "--timeout",
        type=argument(Positive),
        default=120.0,
        metavar="SECONDS",
        help="how long a process that runs an environment may take to answer (default 120)",
    )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Evaluate, write what was asked for, print a table."""
    if not is_url(arguments.checkpoint) and not Path(arguments.checkpoint).is_file():
        raise LitPWMError(
            f"The checkpoint {arguments.checkpoint!r} given by --checkpoint does not exist. Name a file such as "
            f"RUN/lightning_logs/version_0/checkpoints/last.ckpt."
        )
    named = names_in(arguments.tasks)
    if arguments.tasks is not None and not named:
        raise LitPWMError(
            "The option --tasks names no task. Write names separated by commas, --tasks A,B, or leave it out for all "
            "that the policy was trained for."
        )
    if len(set(named)) < len(named):
        raise LitPWMError(f"--tasks is {arguments.tasks!r}, which names a task twice. Name each once.")
    if arguments.out:
        check_file(arguments.out, "--out", [] if is_url(arguments.checkpoint) else [arguments.checkpoint])
    if arguments.video:
        check_folder(arguments.video, "--video")

    import torch

    from lit_pwm.checkpoints import load_policy
    from lit_pwm.evaluation.evaluator import evaluate_policy, print_result, record_video, write_result
    from lit_pwm.models.noise import seed_noise

    torch.set_num_threads(1)
    policy = load_policy(arguments.checkpoint, acting_in=named or None)
    tasks = named or list(policy.trained_tasks)
    if not tasks:
        raise LitPWMError(
            f"The checkpoint {arguments.checkpoint!r} does not say which task its policy was trained for. Name it: "
            f"--tasks A, one of {', '.join(policy.task_names)}."
        )
    untrained = [task for task in tasks if task not in policy.trained_tasks]
    if untrained and policy.trained_tasks:
        print(
            f"The policy was trained for {', '.join(policy.trained_tasks)}, and not for {', '.join(untrained)}.",
            file=sys.stderr,
        )
    torch.manual_seed(arguments.seed)
    seed_noise(policy, arguments.seed)
    result = evaluate_policy(
        policy,
        tasks,
        arguments.episodes,
        arguments.seed,
        checkpoint=arguments.checkpoint,
        deterministic=not arguments.sampled,
        progress=True,
        timeout=arguments.timeout,
    )
    # Written before it is printed: whoever reads the table may have gone.
    if arguments.out:
        write_result(result, arguments.out)
    try:
        for task in tasks if arguments.video else ():
            record_video(policy, task, arguments.seed, Path(arguments.video) / f"{file_name(task)}.mp4")
    finally:
        print_result(result)
    return 0
