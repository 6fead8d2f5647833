"""The page of the reader's speed is what its record says, and readers draw what is timed."""

import json
import sys

import data as data_speed
import data_waiting
import import_speed
import pytest


def test_the_page_has_the_records_table():
    record = json.loads(data_speed.RESULT.read_text())
    assert data_speed.table(record) in data_speed.PAGE.read_text()
    assert {"memmap", "ram", "device", "torchrl", "h5py"} == set(record["slices_per_second"])
    assert all(
        len(rates) == record["rounds"] >= 9
        for found in record["slices_per_second"].values()
        for rates in found.values()
    )


@pytest.mark.parametrize("script", [data_waiting, import_speed])
def test_the_page_has_the_other_tables(script):
    assert script.table(json.loads(script.RESULT.read_text())) in script.PAGE.read_text()


def test_imports_that_were_killed_gave_the_same_bytes():
    record = json.loads(import_speed.RESULT.read_text())
    assert record["same_bytes"]
    assert len(record["kills"]) == 10


def test_private_memory_stays_small_where_the_store_is_larger_than_memory():
    parts = json.loads(data_waiting.RESULT.read_text())["parts"]
    assert all(part["rss_anon_mb"] < 1500 for found in parts.values() for part in found)


@pytest.mark.slow
def test_a_readers_turn(tmp_path):
    data_speed.write_synthetic(tmp_path / "store.h5", episodes=3)
    reader = data_speed.Reader(sys.executable, "store_reader.py", tmp_path / "store.h5", 16, "ram")
    turn = reader.turn(64, 0.05)
    reader.close()
    assert turn["shapes"] == {"obs": [17, 64, 24], "action": [16, 64, 6], "reward": [16, 64], "task": [64]}
    assert turn["slices"] % 64 == 0
    assert turn["slices"] / turn["seconds"] > 1000


def test_ratios_are_those_of_rounds():
    assert data_speed.ratio([2.0, 9.0, 4.0], [1.0, 3.0, 1.0]) == (3.0, 2.0, 4.0)
