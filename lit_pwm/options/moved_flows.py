"""What has become of the options of flows that named classes by words: source, solver and loss are objects now.

Each function takes the old options that were given, by name, and returns the new ones by dotted path.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import yaml

from lit_pwm.errors import LitPWMError

Options = dict[str, Any]

FIXED, DOPRI5 = "lit_pwm.flow.FixedStep", "lit_pwm.flow.Dopri5"
SOURCES = {
    "zero": "lit_pwm.models.ZeroSource",
    "latent": "lit_pwm.models.LatentSource",
    "noise": "lit_pwm.models.NoiseSource",
}
END_POINT, ENERGY = "lit_pwm.models.EndPointError", "lit_pwm.models.EnergyLoss"
MATCHING, CHAINED, GROUPS = (f"lit_pwm.models.{name}" for name in ("FlowMatching", "ChainedMatching", "GroupScore"))

SOLVER_OPTIONS = ("method", "substeps", "rtol", "atol")
SOURCE_OPTIONS = ("source", "source_scale", "noise_power", "noise_dim")
LOSS_OPTIONS = (
    "end_weight", "readout_weight", "energy_weight", "energy_group_weight", "energy_group_exponent", "energy_samples",
    "flow_weight", "tau", "rollout", "starts",
)  # fmt: skip
_NEUTRAL_NOISE = {"source_scale": 1.0, "noise_power": 1.0, "noise_dim": 0}


def solver(given: Mapping[str, object]) -> Options:
    """`method`, `substeps`, `rtol`, `atol` → `solver`; what a method never read is left out."""
    adaptive = given.get("method") == "dopri5" or not {"method", "substeps"} & set(given)
    kept = ("rtol", "atol") if adaptive else ("method", "substeps")
    options = {f"solver.init_args.{name}": given[name] for name in kept if name in given}
    return {"solver.class_path": DOPRI5 if adaptive else FIXED} | options


def source(given: Mapping[str, object]) -> Options:
    """`source` by a word, and what describes a noise source → `source`.

    Raises:
        LitPWMError: no such source, or options of noise for another one.
    """
    word = given.get("source", "noise")
    if not isinstance(word, str) or word not in SOURCES:
        raise LitPWMError(f"FlowDynamics has source {word!r:.80}; give a class, one of {', '.join(SOURCES.values())}.")
    noise = {"source_scale": "scale", "noise_power": "power", "noise_dim": "dim"}
    if word != "noise":
        idle = [name for name in noise if name in given and given[name] != _NEUTRAL_NOISE[name]]
        if idle:
            raise LitPWMError(
                f"FlowDynamics has {idle[0]} {given[idle[0]]!r}, which describes a noise source, but source {word!r}. "
                f"Use source: {SOURCES['noise']}, or leave it out."
            )
        return {"source.class_path": SOURCES[word]}
    options = {f"source.init_args.{new}": given[old] for old, new in noise.items() if old in given}
    return {"source.class_path": SOURCES["noise"]} | options


def loss(given: Mapping[str, object]) -> Options:
    """The weights of all losses, and how flow matching was used → `loss`.

    Pairs that voided training go on as what their networks are: chained estimates that were teacher-forced, which never
    trained several steps, and those without flow matching, as a loss of the solver's rollout.

    Raises:
        LitPWMError: all weights are zero.
    """
    end, energy = given.get("end_weight", 1.0), given.get("energy_weight", 0.0)
    flow, chained = given.get("flow_weight", 0.0), given.get("rollout") == "estimate"
    if not (end or energy or flow):
        raise LitPWMError(
            "FlowDynamics has end_weight, flow_weight and energy_weight 0, so nothing trains it. Give a loss."
        )
    times = {"tau": given["tau"]} if "tau" in given else {}
    matching: Options = {"class_path": MATCHING, "weight": flow} | times
    if "starts" in given:
        matching["starts"] = given["starts"]
    if chained and flow and given.get("starts") != "teacher_forced":
        return _placed(CHAINED, {"weight": flow, "end_weight": end} | times)
    if flow and not end and not energy:
        return _placed(matching.pop("class_path"), matching)
    options: Options = {}
    if "readout_weight" in given:
        options["readout_weight"] = 0.0 if chained else given["readout_weight"]
    if flow:
        options["matching"] = matching
    if not energy and not {"energy_weight", "energy_samples", "energy_group_weight"} & set(given):
        return _placed(END_POINT, ({"weight": end} if "end_weight" in given else {}) | options)
    if not energy and "energy_weight" in given:
        return _placed(END_POINT, {"weight": end} | options)
    if "energy_weight" in given:
        options |= {"weight": energy, "end_weight": end}
    if "energy_samples" in given:
        options["samples"] = given["energy_samples"]
    if given.get("energy_group_weight"):
        exponent = given.get("energy_group_exponent", 1.0)
        options["groups"] = {"class_path": GROUPS, "weight": given["energy_group_weight"], "exponent": exponent}
    return _placed(ENERGY, options)


def as_trained(options: Mapping[str, object]) -> Options:
    """Old options of a checkpoint, without the read-outs that the adjoint gave no gradient: they are refused now."""
    silent = options.get("adjoint") is True and "readout_weight" in options
    return dict(options) | ({"readout_weight": 0.0} if silent else {})


def shown(new: Mapping[str, object]) -> str:
    """New options by dotted path, as a config has them on one line."""
    tree: Options = {}
    for path, value in new.items():
        *places, last = path.split(".")
        at = tree
        for place in places:
            at = at.setdefault(place, {})
        at[last] = value
    return yaml.safe_dump(tree, default_flow_style=True, sort_keys=False, width=10**6).strip()[1:-1]


def _placed(class_path: str, options: Mapping[str, object], at: str = "loss") -> Options:
    found: Options = {f"{at}.class_path": class_path}
    for name, value in options.items():
        if isinstance(value, Mapping):
            rest = {key: entry for key, entry in value.items() if key != "class_path"}
            found |= _placed(value["class_path"], rest, f"{at}.init_args.{name}")
        else:
            found[f"{at}.init_args.{name}"] = value
    return found
