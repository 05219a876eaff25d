"""What each ABI of Landlock can be asked for, and what is said of the rest."""

from __future__ import annotations

import errno

import pytest

from pytest_isolate.kernel.landlock import Access, Scope, Tcp, gaps, make_ruleset, why_no_landlock

NEWEST = 8
#: Up to which bit of linux/landlock.h each ABI knows the kinds of access to files; reading and executing, bits 0,
#: 2 and 3, are never asked for.
LAST_BIT = {1: 12, 2: 13, 3: 14, 4: 14, 5: 15, 6: 15, 7: 15, 8: 15}
READING = 1 << 0 | 1 << 2 | 1 << 3


@pytest.mark.parametrize(("abi", "last"), LAST_BIT.items())
def test_nothing_is_asked_of_a_kernel_that_it_does_not_know(abi: int, last: int) -> None:
    ruleset = make_ruleset(abi, closes_network=True)
    assert ruleset.files == (1 << last + 1) - 1 - READING
    assert ruleset.tcp == (Tcp.BIND | Tcp.CONNECT if abi >= 4 else 0)
    assert ruleset.scoped == (Scope.ABSTRACT_SOCKETS | Scope.SIGNALS if abi >= 6 else 0)


def test_the_network_of_the_host_stays_open() -> None:
    ruleset = make_ruleset(NEWEST, closes_network=False)
    assert ruleset.tcp == 0
    assert ruleset.scoped == Scope.SIGNALS


@pytest.mark.parametrize("abi", LAST_BIT)
def test_rules_for_files_name_nothing_that_directories_have(abi: int) -> None:
    in_files = make_ruleset(abi, closes_network=True).in_files
    assert Access.WRITE_FILE in in_files
    assert not in_files & (Access.MAKE_REG | Access.REMOVE_FILE | Access.REFER)
    assert (Access.TRUNCATE in in_files) == (abi >= 3)


def test_an_older_abi_lacks_what_newer_ones_have() -> None:
    cures = {abi: [error.cure for error in gaps(abi)] for abi in LAST_BIT}
    assert cures[1] == [f"use Linux {v} or newer" for v in ("5.19", "6.2", "6.10", "6.12")]
    assert cures[2] == cures[1][1:]
    assert cures[4] == cures[3] == cures[1][2:]
    assert cures[5] == cures[1][3:]
    assert cures[6] == cures[NEWEST] == []
    assert str(gaps(2)[0]) == (
        "a part of Landlock is not available: with its ABI 2 truncate(2) can empty every file that the user "
        "may write; use Linux 6.2 or newer"
    )


@pytest.mark.parametrize(
    ("error", "reason", "cure"),
    [
        (errno.EOPNOTSUPP, "switched off when Linux started", "lsm="),
        (errno.ENOSYS, "built without it", "CONFIG_SECURITY_LANDLOCK"),
        (errno.EPERM, "seccomp", "Docker 23"),
    ],
)
def test_why_there_is_none(error: int, reason: str, cure: str) -> None:
    problem = why_no_landlock(-error)
    assert reason in problem.reason
    assert cure in problem.cure
