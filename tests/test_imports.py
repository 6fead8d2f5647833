"""What importing a part of the project brings with it."""

import subprocess
import sys

import pytest

LIGHT = {
    "lit_pwm": {"torch", "lightning", "dm_control", "mujoco"},
    "datamodules": {"torch", "lightning", "dm_control", "mujoco"},
    "lit_pwm.tasks": {"torch", "lightning", "dm_control", "mujoco"},
    "lit_pwm.cli.main": {"torch", "lightning", "dm_control", "mujoco"},
    "lit_pwm.models": {"lightning", "dm_control", "mujoco"},
    "lit_pwm.losses": {"lightning", "dm_control", "mujoco"},
}


@pytest.mark.parametrize("module", LIGHT)
def test_imports_stay_light(module):
    script = f"import sys, {module}; print(sorted(set(sys.modules) & {LIGHT[module]!r}))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_public_names_resolve():
    import datamodules
    import lit_pwm

    for package in (lit_pwm, datamodules):
        for name in package.__all__:
            assert getattr(package, name) is not None


def test_imports_run_one_way():
    """The linter contract of pyproject.toml: one floor above the other, and networks without Lightning."""
    done = subprocess.run(
        [sys.executable, "-c", "from importlinter.cli import lint_imports_command; lint_imports_command()"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
    assert "0 broken" in done.stdout
