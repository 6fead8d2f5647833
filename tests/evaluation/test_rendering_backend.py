"""The choice of a rendering backend, in processes of their own, on machines with and without one."""

import os
import shutil
import subprocess
import sys

import pytest

from lit_pwm.tasks.rendering import choose_backend

LINUX = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="backends are probed on Linux only")
EGL = pytest.mark.skipif(choose_backend() != "egl", reason="no EGL on this machine")
PROGRAM = """
import os, sys
from lit_pwm.tasks.rendering import can_render, choose_backend
first = choose_backend()
assert not {"mujoco", "dm_control", "OpenGL"} & set(sys.modules)
assert choose_backend() == first
print(first, can_render(), os.environ["MUJOCO_GL"])
"""
STEP = """
from lit_pwm.tasks import make_env
env = make_env("cartpole-balance")
env.reset(seed=0)
print(env.step([0.5])[1])
"""


def run(program, **variables):
    kept = ("MUJOCO_GL", "PYOPENGL_PLATFORM", "LIT_PWM_GL_KNOWN_TO_WORK", "LD_LIBRARY_PATH")
    env = {name: value for name, value in os.environ.items() if name not in kept} | variables
    return subprocess.run([sys.executable, "-c", program], env=env, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def no_egl(tmp_path_factory):
    """A folder that comes first on the loader's path, where libEGL is no library."""
    folder = tmp_path_factory.mktemp("broken")
    for name in ("libEGL.so", *(f"libEGL.so.{i}" for i in range(10))):
        (folder / name).write_text("not a library")
    return str(folder)


@LINUX
@EGL
def test_egl_is_chosen_where_it_works():
    done = run(PROGRAM)
    assert done.stdout.split() == ["egl", "True", "egl"], done.stderr
    assert done.stderr == ""


@LINUX
def test_without_egl_and_osmesa_training_goes_on_with_one_notice(no_egl):
    done = run(PROGRAM, LD_LIBRARY_PATH=no_egl)
    chosen = done.stdout.split()
    assert chosen[0] in ("osmesa", "disabled"), done.stderr
    if chosen[0] == "disabled":
        assert chosen == ["disabled", "False", "disabled"]
        assert done.stderr.count("\n") == 1
        assert "without videos" in done.stderr
    assert float(run(STEP, LD_LIBRARY_PATH=no_egl).stdout) > 0


@LINUX
def test_egl_without_a_driver_is_not_chosen(tmp_path):
    done = run(PROGRAM, __EGL_VENDOR_LIBRARY_DIRS=str(tmp_path), __EGL_VENDOR_LIBRARY_FILENAMES="")
    assert done.stdout.split()[0] in ("osmesa", "disabled"), done.stderr


@LINUX
@pytest.mark.skipif(shutil.which("cc") is None, reason="needs a C compiler")
def test_a_driver_that_crashes_does_not_take_the_program_along(no_egl, tmp_path):
    for index in os.listdir(no_egl):
        shutil.copy(os.path.join(no_egl, index), tmp_path)
    source = tmp_path / "crash.c"
    source.write_text("#include <stdlib.h>\n__attribute__((constructor)) static void crash(void) { abort(); }\n")
    (tmp_path / "libEGL.so").unlink()
    subprocess.run(["cc", "-shared", "-fPIC", "-o", tmp_path / "libEGL.so", source], check=True)
    done = run(PROGRAM, LD_LIBRARY_PATH=str(tmp_path))
    assert done.stdout.split()[0] in ("osmesa", "disabled"), done.stderr


@pytest.mark.parametrize(("value", "meaning"), [("disabled", "disabled"), ("off", "disabled"), ("glfw", "glfw")])
def test_a_variable_that_is_set_is_kept(value, meaning):
    done = run(PROGRAM, MUJOCO_GL=value)
    assert done.stdout.split() == [meaning, str(meaning != "disabled"), value], done.stderr


@LINUX
@EGL
def test_a_set_egl_that_works_is_kept_and_children_do_not_probe_again():
    done = run(PROGRAM + "print(os.environ['LIT_PWM_GL_KNOWN_TO_WORK'])", MUJOCO_GL="egl")
    assert done.stdout.split() == ["egl", "True", "egl", "egl"], done.stderr
    child = "import subprocess\nsubprocess.run = None\n" + PROGRAM
    done = run(child, MUJOCO_GL="egl", LIT_PWM_GL_KNOWN_TO_WORK="egl")
    assert done.returncode == 0, done.stderr


@LINUX
def test_a_set_backend_that_does_not_work_is_an_error_that_says_what_to_do(no_egl):
    done = run(STEP, MUJOCO_GL="egl", LD_LIBRARY_PATH=no_egl)
    assert done.returncode == 1
    assert "LitPWMError" in done.stderr
    assert "Unset MUJOCO_GL" in done.stderr


def test_an_unknown_backend_is_refused_with_the_nearest_name():
    done = run(PROGRAM, MUJOCO_GL="elg")
    assert "Did you mean 'egl'?" in done.stderr


@LINUX
def test_another_pyopengl_platform_rules_egl_out():
    assert run(PROGRAM, PYOPENGL_PLATFORM="x11").stdout.split()[0] == "disabled"
