"""The eye that the tests of this folder have on the log must see what is wrong, or they prove nothing."""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from edge.agent.plan import Plan
from tests.faults import clients, device, power

PHOTOS = 5
NAME = device.name(2)


@pytest.fixture
def plan(device_root: Path, tmp_path: Path) -> Plan:
    """Of a device that has taken a few photos."""
    device.put(tmp_path / "photos", range(PHOTOS))
    plan = device.plan(device_root, tmp_path / "photos", once=True)
    status, said = power.run_to_end(device.agent(plan))
    assert status == 0, said
    assert clients.differences(plan, device_root) == []
    assert device.lost(plan.log, range(PHOTOS)) == frozenset()
    return plan


def _change(plan: Plan, *statements: str) -> None:
    with closing(sqlite3.connect(plan.log)) as connection, connection:
        for statement in statements:
            connection.execute(statement)


def test_an_answer_that_is_gone_is_seen(plan: Plan, device_root: Path) -> None:
    of_the_photo = f"photo_id = (SELECT photo_id FROM file WHERE path = '{NAME}')"
    _change(plan, f"DELETE FROM classification WHERE {of_the_photo}")
    assert device.lost(plan.log, range(PHOTOS)) == {2}
    assert f"{NAME} has 0 answers and 0 open failures" in clients.differences(plan, device_root)


def test_a_row_that_is_gone_is_seen(plan: Plan, device_root: Path) -> None:
    _change(plan, f"DELETE FROM file WHERE path = '{NAME}'")
    assert f"{NAME} has 0 rows" in clients.differences(plan, device_root)


def test_a_second_answer_is_seen(plan: Plan) -> None:
    columns = "bundle_digest, runtime, label, confidence, decision, top, logits, development, created_utc"
    _change(plan, f"INSERT INTO classification (photo_id, model_digest, {columns})"
            f" SELECT photo_id, 'another', {columns} FROM classification WHERE photo_id = 1")  # fmt: skip
    assert len(device.lost(plan.log, range(PHOTOS))) == 1


def test_a_photo_without_a_row_and_one_that_changed_are_seen(plan: Plan, device_root: Path) -> None:
    folder = plan.sources[0].path
    device.put(folder, [PHOTOS])
    os.utime(folder / NAME, (1, 1))
    found = clients.differences(plan, device_root)
    assert {f"{device.name(PHOTOS)} has 0 rows", f"{NAME} has 0 rows"} <= set(found)
    assert any("missing" in line for line in found)  # said by the log's own audit


def test_a_damaged_log_is_seen(plan: Plan) -> None:
    with plan.log.open("r+b") as file:
        file.seek(3 * 4096)
        file.write(b"\xa5" * 4096)
    assert device.troubles(plan.log) != []


def test_a_log_that_was_set_aside_is_seen(plan: Plan, device_root: Path) -> None:
    plan.log.with_name("log.db.damaged-1").write_bytes(b"")
    assert clients.differences(plan, device_root) == ["log.db.damaged-1 was set aside"]
