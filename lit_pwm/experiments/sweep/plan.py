"""What a sweep file says: axes, variables and stages.

```yaml
name: factorial
axes:                                   # axis → label → the value that commands get; entries of a list label themselves
  policy: {mlp: configs/policy/mlp_tiny.yaml, flow: configs/policy/flow_tiny.yaml}
  seed: [0, 1, 2]
variables: {updates: 600}               # may be set anew on the command line
stages:                                 # each cell of a stage is one command line of lit-pwm
  policy:
    over: [seed, policy]                # one cell for each combination, in this order
    run: [fit, --config, "{policy}", --seed_everything, "{seed}", --trainer.default_root_dir, "{folder}"]
  best:
    over: [seed, policy]
    run: [evaluate, --checkpoint, "{folder:policy}/**/best-*.ckpt", --out, "{folder}/returns.json"]
record: {policy: policy, returns: {best: best}, discovery: {cup-catch: 300}}
```

Placeholders are `{AXIS}`, `{VARIABLE}`, `{folder}` (the cell's own) and `{folder:STAGE}` (that of the cell of another
stage with the same labels, which this one then needs and waits for). An argument that starts with a folder and has a
`*` in it means the one file of that pattern. `{AXIS:words}`, an argument of its own, is as many arguments as the value
of the label has words, split as a shell would; they may hold placeholders. Braces that mean themselves are written
twice. In a list, such as `[{folder:data}/a.h5]`, a placeholder is one entry or a part of one, whatever characters its
value has.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from lit_pwm.errors import LitPWMError, did_you_mean

FOLDER, WORDS = "folder", "words"


@dataclass(frozen=True)
class Stage:
    """One kind of step.

    Attributes:
        name: of the stage.
        over: the axes of which every combination of labels is a cell, the first varying slowest.
        run: the command line after `lit-pwm`, with placeholders.
        needs: the stages whose folders the command names.
    """

    name: str
    over: tuple[str, ...]
    run: tuple[str, ...]
    needs: tuple[str, ...] = ()


@dataclass(frozen=True)
class RecordPlan:
    """What the sweep's records are made of.

    Attributes:
        runs: role (`world_model`, `policy`) → the stage of training runs that plays it.
        returns: label (`best`, `last`) → the stage that leaves a `returns.json` of `lit-pwm evaluate`.
        discovery: task whose returns are all or nothing → the return from which an episode has found it.
    """

    runs: Mapping[str, str]
    returns: Mapping[str, str]
    discovery: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Sweep:
    """A sweep that has been checked.

    Attributes:
        name: of the sweep.
        axes: axis → label → value.
        variables: name → value, which may hold placeholders of axes and folders.
        stages: by name; each comes after those it needs. Stages that no result needs are left out.
        record: how records are made, if they are.
    """

    name: str
    axes: Mapping[str, Mapping[str, str]]
    variables: Mapping[str, str]
    stages: Mapping[str, Stage]
    record: RecordPlan | None = None
    source: str = field(default="", compare=False)

    def only(self, chosen: Mapping[str, Sequence[str]]) -> Sweep:
        """The part of the sweep with these labels of some axes.

        Raises:
            LitPWMError: an axis or a label that the sweep does not have.
        """
        axes = dict(self.axes)
        for axis, labels in chosen.items():
            if axis not in axes:
                raise LitPWMError(f"{self.source} has no axis {axis!r} to choose from. {did_you_mean(axis, axes)}")
            for label in labels:
                if label not in axes[axis]:
                    raise LitPWMError(
                        f"{self.source} has no label {label!r} on its axis {axis!r}. {did_you_mean(label, axes[axis])}"
                    )
            axes[axis] = {label: axes[axis][label] for label in axes[axis] if label in labels}
        return replace(self, axes=axes)
