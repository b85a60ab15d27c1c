"""Watching others by one's own clock, and ringing again without piling up."""

from webapp.common.watch import RING_AGAIN_SECONDS, Bell, Watch

LEASE = 30.0


def look_every(watch: Watch[str], counter: int, seconds: "list[float]") -> list[bool]:
    return ["a" in watch.overdue({"a": counter}, now) for now in seconds]


def test_overdue_after_a_lease_of_looking() -> None:
    assert look_every(Watch(LEASE), 1, [0, 10, 20, 29, 30, 31]) == [False] * 4 + [True] * 2


def test_a_counter_that_moves_is_alive() -> None:
    watch: Watch[str] = Watch(LEASE)
    assert not any(watch.overdue({"a": counter}, counter * 20.0) for counter in range(10))


def test_time_in_which_nobody_looked_counts_for_little() -> None:
    watch: Watch[str] = Watch(LEASE)
    assert look_every(watch, 1, [0, 10, 10_000]) == [False] * 3, "the reaper slept, or the database was away"
    assert look_every(watch, 1, [10_005, 10_010]) == [True, True]


def test_what_is_gone_is_forgotten() -> None:
    watch: Watch[str] = Watch(LEASE)
    look_every(watch, 1, [0, 15])
    watch.overdue({}, 20)
    assert look_every(watch, 1, [21, 35]) == [False, False]


def test_a_bell_rings_at_once_and_then_now_and_again() -> None:
    rung: list[str] = []
    bell: Bell[str] = Bell(lambda key: bool(rung.append(key)) or True)
    assert [bell.ring_for(["a"], now) for now in (0, 5, 10, RING_AGAIN_SECONDS)] == [1, 0, 0, 1]
    assert bell.ring_for(["a", "b"], RING_AGAIN_SECONDS + 1) == 1
    assert rung == ["a", "a", "b"]


def test_what_waits_anew_is_new() -> None:
    bell: Bell[str] = Bell(lambda _: True)
    assert [bell.ring_for(waiting, now) for waiting, now in ((["a"], 0), ([], 1), (["a"], 2))] == [1, 0, 1]


def test_a_broker_that_is_away_is_asked_once_a_look() -> None:
    """Each ring may wait seconds for it: ten waiting turns must not hold up the look for lost jobs."""
    tried: list[str] = []
    bell: Bell[str] = Bell(lambda key: bool(tried.append(key)))
    assert [bell.ring_for(["a", "b", "c"], now) for now in (0, 5)] == [0, 0]
    assert tried == ["a", "a"]
