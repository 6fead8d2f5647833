"""Another package called callbacks or datamodules is named, with the way out, whether it hides ours or overwrote it."""

import base64
import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def distribution(site, name, packages):
    """Record an installed distribution whose files lie in `site`."""
    folder = site / f"{name.replace('-', '_')}-1.0.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    files = [file for package in packages for file in sorted((site / package).rglob("*.py"))]
    hashes = [hashlib.sha256(file.read_bytes()).digest() for file in files]
    digests = [base64.urlsafe_b64encode(one).decode().rstrip("=") for one in hashes]
    lines = [
        f"{file.relative_to(site)},sha256={digest},{file.stat().st_size}\n"
        for file, digest in zip(files, digests, strict=True)
    ]
    (folder / "RECORD").write_text("".join(lines))


def command(site, folder):
    done = subprocess.run(
        [sys.executable, "-m", "lit_pwm", "data", "info", "no.h5"], cwd=folder, capture_output=True, text=True,
        env=os.environ | {"PYTHONPATH": str(site)}, check=False,
    )  # fmt: skip
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    return " ".join(done.stderr.split())


@pytest.fixture
def site(tmp_path):
    (tmp_path / "site").mkdir()
    (tmp_path / "folder").mkdir()
    return tmp_path / "site"


def other_callbacks(site):
    (site / "callbacks").mkdir(exist_ok=True)
    (site / "callbacks" / "__init__.py").write_text("other = True\n")


def test_a_distribution_that_hides_ours_is_named(site, tmp_path):
    other_callbacks(site)
    distribution(site, "other-callbacks", ["callbacks"])
    text = command(site, tmp_path / "folder")
    assert "distribution 'other-callbacks'" in text
    assert "pip uninstall other-callbacks" in text


def test_a_folder_that_hides_ours_is_named(site, tmp_path):
    other_callbacks(tmp_path / "folder")
    text = command(site, tmp_path / "folder")
    assert str(tmp_path / "folder" / "callbacks") in text
    assert "the command `lit-pwm`" in text


def test_a_distribution_that_overwrote_ours_is_named(site, tmp_path):
    for package in ("lit_pwm", "callbacks", "datamodules"):
        shutil.copytree(ROOT / package, site / package, ignore=shutil.ignore_patterns("__pycache__"))
    distribution(site, "lit-pwm", ["lit_pwm", "callbacks", "datamodules"])
    assert "'no.h5' does not exist" in command(site, tmp_path / "folder").replace(str(tmp_path / "folder") + "/", "")
    other_callbacks(site)
    distribution(site, "other-callbacks", ["callbacks"])
    text = command(site, tmp_path / "folder")
    assert "distribution 'other-callbacks' ships packages of the same names as lit_pwm and has overwritten" in text
    assert "'callbacks/__init__.py'" in text
    assert "pip install --force-reinstall" in text


def test_what_uninstalling_another_distribution_took_along_is_named(site, tmp_path):
    for package in ("lit_pwm", "callbacks", "datamodules"):
        shutil.copytree(ROOT / package, site / package, ignore=shutil.ignore_patterns("__pycache__"))
    distribution(site, "lit-pwm", ["lit_pwm", "callbacks", "datamodules"])
    (site / "callbacks" / "__init__.py").unlink()
    text = command(site, tmp_path / "folder")
    assert "'callbacks/__init__.py' of lit_pwm is not there" in text
    assert "pip install --force-reinstall" in text


def test_a_file_that_its_user_changed_is_not_refused(site, tmp_path):
    for package in ("lit_pwm", "callbacks", "datamodules"):
        shutil.copytree(ROOT / package, site / package, ignore=shutil.ignore_patterns("__pycache__"))
    distribution(site, "lit-pwm", ["lit_pwm", "callbacks", "datamodules"])
    with (site / "datamodules" / "store.py").open("a") as file:
        file.write("# patched\n")
    assert "does not exist" in command(site, tmp_path / "folder")
