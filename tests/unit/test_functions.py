"""Virtual functions that a slow driver makes: a fake of sysfs, for no card here has so many."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from fleet.host.kernel import functions
from fleet.host.kernel.system import System

NIC = "0000:01:00.0"


def fake(root: Path, made: int = 0) -> Path:
    """A card of 256 functions as sysfs shows it, some made already."""
    place = root / "sys/bus/pci/devices" / NIC
    place.mkdir(parents=True)
    (place / "sriov_totalvfs").write_text("256\n")
    (place / "sriov_numvfs").write_text(f"{made}\n")
    (place / "sriov_drivers_autoprobe").write_text("1\n")
    for index in range(made):
        make(place, index)
    return place


def make(place: Path, index: int) -> None:
    (place / f"virtfn{index}").symlink_to(f"../0000:01:{16 + index // 8:02x}.{index % 8}")


def slow(place: Path, count: int) -> Callable[[], None]:
    """A driver that makes its functions one by one, some time after it was told to."""

    def drive() -> None:
        while (place / "sriov_numvfs").read_text().strip() != str(count):
            time.sleep(0.001)
        for index in range(count):
            time.sleep(0.002)
            make(place, index)

    return drive


@pytest.mark.parametrize("count", [0, 1, 7, 17, 63, 64, 128])
def test_a_slow_driver_is_waited_for(tmp_path: Path, count: int) -> None:
    """All functions are there when the step ends, however many they are."""
    place = fake(tmp_path)
    driver = threading.Thread(target=slow(place, count))
    driver.start()
    functions.set_count(System(root=str(tmp_path)), NIC, count, True)
    assert len(list(place.glob("virtfn*"))) == count
    assert (place / "sriov_drivers_autoprobe").read_text() == "1\n"
    driver.join(10)
    assert not driver.is_alive()


def test_the_budget_grows_with_the_number() -> None:
    """More functions may take longer, and none at all get some time too."""
    budgets = [functions.budget(count) for count in (0, 1, 7, 17, 63, 64, 128)]
    assert budgets[0] >= 5
    assert budgets == sorted(set(budgets))
    assert budgets[-1] >= 60


@pytest.mark.parametrize("count", [0, 1, 17, 64, 128])
def test_it_looks_at_least_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, count: int
) -> None:
    """With no time left, functions that are there are seen, and one that is missing is told."""
    monkeypatch.setattr(functions, "budget", lambda count: 0.0)
    place = fake(tmp_path, count)
    functions.await_functions(System(root=str(tmp_path)), NIC, count)
    if count:
        (place / f"virtfn{count - 1}").unlink()
        with pytest.raises(OSError, match=f"{count - 1} of {count} virtual functions after 0 s"):
            functions.await_functions(System(root=str(tmp_path)), NIC, count)
