"""Asking for a job to be started again."""

from __future__ import annotations

import os
import subprocess

from lightning.pytorch.utilities.rank_zero import rank_zero_info

TRY_AGAIN = 75  # EX_TEMPFAIL of sysexits.h
LAUNCHER_REQUEUES = "LIT_PWM_LAUNCHER_REQUEUES"


def requeue() -> int:
    """Ask SLURM to start this job again; call it once for all ranks.

    A launcher that starts jobs again by itself sets the environment variable `LIT_PWM_LAUNCHER_REQUEUES`; SLURM is then
    not asked.

    Returns:
        The code to exit with: 0, or 75 where a launcher is to start the run again or SLURM refused.
    """
    if os.environ.get(LAUNCHER_REQUEUES):
        return TRY_AGAIN
    job, array = os.environ.get("SLURM_JOB_ID"), os.environ.get("SLURM_ARRAY_JOB_ID")
    if array is not None:
        job = f"{array}_{os.environ.get('SLURM_ARRAY_TASK_ID', '')}"
    if job is None:
        return TRY_AGAIN
    try:
        done = subprocess.run(["scontrol", "requeue", job], capture_output=True, text=True, timeout=60, check=False)
        failure = done.stderr.strip() or f"exit code {done.returncode}" if done.returncode else ""
    except (OSError, subprocess.TimeoutExpired) as error:
        failure = str(error)
    if failure:
        rank_zero_info(f"The job {job} was saved but not requeued: scontrol says {failure!r}.")
        return TRY_AGAIN
    rank_zero_info(f"The job {job} was saved and requeued.")
    return 0
