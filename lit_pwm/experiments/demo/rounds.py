"""The demo: the whole job, on data it collects itself, in minutes, on two CPU cores.

Noise episodes → world model → policies → episodes of those policies with noise → world model … → policies → evaluation
with seeds that chose nothing. Budgets are numbers of updates and episodes, never seconds, so that a seed gives the same
result on a slow machine as on a fast one.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from lit_pwm.errors import LitPWMError
from lit_pwm.experiments.calls import Calls, Work
from lit_pwm.experiments.demo.demo_plan import DemoPlan, Round
from lit_pwm.experiments.demo.demo_record import write_record
from lit_pwm.experiments.demo.summary import TaskSummary, summarise_task
from lit_pwm.experiments.training import (
    PolicyPlan,
    Trained,
    WorldModelPlan,
    be_quiet,
    quiet,
    train_policy,
    train_world_model,
)
from lit_pwm.paths import file_name
from lit_pwm.runtime.consoles import ProgressConsole
from lit_pwm.runtime.pool import Call, Pool, WorkerEndedError
from lit_pwm.runtime.processes import release_freed_memory

Points = list[tuple[int, float]]


class Demo:
    """Runs the plan's stages under a folder, and keeps the time of each.

    Args:
        plan: what to do.
        folder: where stores, checkpoints and curves go; there, and empty.
        seed: seed of everything.
        processes: processes for stages that can run side by side; one for each task, at most two for each core.
    """

    def __init__(self, plan: DemoPlan, folder: Path, seed: int, processes: int | None = None) -> None:
        self.plan, self.folder, self.seed = plan, folder, seed
        # More processes than cores keep the cores busy when tasks do not divide by them.
        self.processes = processes or min(len(plan.tasks), 2 * (os.cpu_count() or 1))
        self.started = datetime.now(UTC).isoformat(timespec="seconds")
        self.seconds: dict[str, float] = {}
        self.console = ProgressConsole()

    # -- stages -----------------------------------------------------------------------------------------------------
    def run(self) -> Path:
        """All stages; returns the path of the run's record.

        Raises:
            LitPWMError: a worker process was killed or stopped, or a stage failed.
        """
        try:
            with quiet(), Pool(self.processes, be_quiet) as pool:
                self._pool = pool
                return self._rounds()
        except WorkerEndedError as error:
            raise LitPWMError(
                f"{error} The demo cannot go on without it. Run it again, with other work stopped."
            ) from error

    def _rounds(self) -> Path:
        stores = [self._collect_noise()]
        world_model: Trained | None = None
        policies: dict[str, Trained] = {}
        best: dict[str, Trained] = {}
        curves: dict[str, dict[str, Points]] = {task: {} for task in self.plan.tasks}
        for number, plan in enumerate(self.plan.rounds, start=1):
            name = f"round {number}"
            world_model = self._world_model(name, stores, plan, world_model)
            release_freed_memory()  # this process now waits for others
            policies = self._policies(name, stores, plan, world_model)
            for task, trained in policies.items():
                curves[task][name] = trained.curves["eval/return"]
                if task not in best or trained.score > best[task].score:
                    best[task] = trained
            if plan.episodes:
                stores += self._collect_with_policies(name, plan, policies)
        assert world_model is not None
        summaries = self._evaluate(stores, world_model, best, policies)
        plan = json.loads(json.dumps(asdict(self.plan)))
        return write_record(
            self.folder, self.seed, self.started, plan, self.seconds, summaries, world_model.curves, curves
        )

    def _collect_noise(self) -> str:
        from datamodules import collect

        path = self.folder / "noise.h5"
        with self._stage(
            "collect noise", f"{self.plan.noise_episodes} episodes for each of {len(self.plan.tasks)} tasks"
        ):
            collect(
                self.plan.tasks,
                self.plan.noise_episodes,
                path,
                behaviour="noise",
                workers=self.processes,
                seed=self.seed,
            )
        return str(path)

    def _world_model(self, name: str, stores: list[str], plan: Round, previous: Trained | None) -> Trained:
        with self._stage(f"{name}: world model", f"{plan.world_model_updates} updates on {len(stores)} store(s)"):
            return train_world_model(
                stores,
                str(self._round(name) / "world_model"),
                WorldModelPlan(plan.world_model_updates, initial_checkpoint=previous.last if previous else None),
                self.seed,
            )

    def _policies(self, name: str, stores: list[str], plan: Round, world_model: Trained) -> dict[str, Trained]:
        policy_plan = PolicyPlan(
            plan.policy_updates,
            evaluate_every=max(1, plan.policy_updates // plan.evaluations),
            episodes=self.plan.selection_episodes,
        )
        with self._stage(
            f"{name}: policies", f"{plan.policy_updates} updates for each of {len(self.plan.tasks)} tasks"
        ):
            calls = [
                Call(
                    f"the policy of {task!r}",
                    train_policy,
                    (task, world_model.last, stores, str(self._round(name) / file_name(task)), policy_plan, self.seed),
                    tells=True,
                )
                for task in self.plan.tasks
            ]
            return self._show(calls, plan.policy_updates)

    def _collect_with_policies(self, name: str, plan: Round, policies: dict[str, Trained]) -> list[str]:
        with self._stage(f"{name}: collect", f"{plan.episodes} episodes for each task with its policy and noise"):
            paths = {task: str(self.folder / f"{self._round(name).name}_{file_name(task)}.h5") for task in policies}
            self._results(
                Call(
                    f"episodes of {task!r}",
                    collect_with_policy,
                    (task, plan.episodes, paths[task], trained.best, self.seed + 1),
                )
                for task, trained in policies.items()
            )
            return list(paths.values())

    def _evaluate(
        self, stores: list[str], world_model: Trained, best: dict[str, Trained], last: dict[str, Trained]
    ) -> list[TaskSummary]:
        with self._stage("evaluation", f"{self.plan.report_episodes} episodes on seeds that chose nothing, and videos"):
            return self._results(
                Call(
                    f"the evaluation of {task!r}",
                    summarise_task,
                    (
                        task,
                        stores[0],
                        stores,
                        world_model.last,
                        best[task].best,
                        last[task].last,
                        self.plan.report_episodes,
                        str(self.folder),
                    ),
                )
                for task in self.plan.tasks
            )

    def _round(self, name: str) -> Path:
        return self.folder / name.replace(" ", "_")

    def _results(self, calls: Iterable[Call], told: Callable[[Any], object] = lambda message: None) -> list[Any]:
        """What calls return, in their order."""
        runner = Calls({call.what: Work(call) for call in calls}, self._pool, told)
        runner.run()
        return [runner.ends[what].value for what in runner.work]

    # -- what one sees ----------------------------------------------------------------------------------------------
    @contextmanager
    def _stage(self, name: str, what: str) -> Generator[None]:
        """Announce a stage and keep its time."""
        self.console.print(f"[bold]{name}[/bold]: {what}", highlight=False)
        started = time.perf_counter()
        yield
        self.seconds[name] = time.perf_counter() - started

    def _show(self, calls: Sequence[Call], updates: int) -> dict[str, Trained]:
        """Train policies with a bar for each until all are done; lines instead where the output is no terminal."""
        bars = Progress(
            TextColumn("  {task.description:<18}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("updates"),
            TimeElapsedColumn(),
            TextColumn("eta"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[latest]}"),
            console=self.console,
            disable=not self.console.is_terminal,
        )
        shown: dict[str, float] = {}
        with bars:
            rows = {call.arguments[0]: bars.add_task(call.arguments[0], total=updates, latest="") for call in calls}

            def told(message: tuple[str, int, int, float | None]) -> None:
                task, update, _, latest = message
                text = "" if latest is None else f"return {latest:.0f}"
                bars.update(rows[task], completed=update, latest=text)
                if latest is not None and latest != shown.get(task) and bars.disable:
                    shown[task] = latest
                    self.console.print(f"  {task}: update {update}/{updates}, return {latest:.0f}", highlight=False)

            return dict(zip(rows, self._results(calls, told), strict=True))


def collect_with_policy(task: str, episodes: int, path: str, checkpoint: str, seed: int) -> None:
    """Collect episodes of one task with its policy and noise, in this process."""
    from datamodules import collect

    release_freed_memory()
    collect((task,), episodes, Path(path), behaviour=checkpoint, workers=1, seed=seed, progress=False)
