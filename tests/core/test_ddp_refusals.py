"""What one rank meets, both refuse: an update that is not finite, and one that draws from a global generator."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from support import environment_of_programs

PROGRAM, BAD = Path(__file__).with_name("ddp_refusals.py"), 2

pytestmark = [pytest.mark.slow, pytest.mark.long]


@pytest.fixture(scope="module")
def out(linear_store, tmp_path_factory):
    """The folder in which each rank of two left how it ended, by job."""
    folder = tmp_path_factory.mktemp("refusals")
    environment = environment_of_programs()
    command = [sys.executable, str(PROGRAM), str(linear_store), str(folder)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=240, cwd=folder)
    assert done.returncode == 0, f"{done.stdout[-1000:]}\n{done.stderr[-4000:]}"
    return folder


def ends(out, name):
    return [torch.load(out / f"{name}-{rank}.pt", weights_only=True) for rank in (0, 1)]


@pytest.mark.parametrize(("name", "loss"), [("actor", "actor"), ("critic", "critic (minibatch 17)")])
def test_what_is_not_finite_on_one_rank_is_undone_on_both(out, name, loss):
    for rank, end in enumerate(ends(out, name)):
        assert end["code"] == 3, end["error"]
        assert f"The {loss} loss is" in end["error"]
        assert f"non_finite_batch_rank{rank}.pt" in end["error"]
        assert end["step"] == BAD
        assert end["before"].keys() == end["state"].keys()
        for key, value in end["state"].items():
            assert torch.equal(value, end["before"][key]), key
    for rank in (0, 1):
        assert (out / name / f"non_finite_batch_rank{rank}.pt").is_file()
    good = torch.load(out / name / "last_good.ckpt", weights_only=True)
    assert good["global_step"] == BAD
    assert all(value.isfinite().all() for value in good["state_dict"].values())


def test_a_statistic_of_a_whole_batch_is_refused_on_several_ranks(out):
    for end in ends(out, "sigreg"):
        assert end["code"] == 2
        assert "SIGReg (sigreg_coef) is a statistic of a whole batch" in end["error"]
        assert end["step"] == 0


@pytest.mark.parametrize("name", ["own", "policy-own"])
def test_what_draws_globally_is_refused_on_several_ranks(out, name):
    for end in ends(out, name):
        assert end["code"] == 2
        assert "On 2 ranks the update of" in end["error"]
        assert "drew from a global random generator" in end["error"]
        assert "__main__.DroppingOut drew" in end["error"]
        assert "trainer.devices 1" in end["error"]
        assert end["step"] == 0


def test_what_does_not_draw_is_trained(out):
    first, second = ends(out, "plain")
    assert (first["code"], first["step"]) == (0, BAD + 2)
    for key, value in first["state"].items():
        assert torch.equal(value, second["state"][key]), key
