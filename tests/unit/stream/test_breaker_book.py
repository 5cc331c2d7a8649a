"""The breaker's rules, one by one: which limits hold, what a reservation is granted, trips, resets and the baseline."""

from __future__ import annotations

from stream_guard.policies.policy import Policy, make_policy
from stream_guard.settings import ActionLimit, ActionsSettings
from stream_guard.stream.breaker.baseline import HOUR_MS, Hours
from stream_guard.stream.breaker.book import Book
from stream_guard.stream.breaker.ledger import PARTS
from stream_guard.stream.breaker.limits import Held, LimitFinder, Scope

NOW_MS = 1_700_000_400_000  # in the middle of a part
PART_MS, PARTS_COUNT = PARTS["hour"]
SCOPE = Scope("hour", action="remove")


class Log:
    """What all replicas write, in one order."""

    def __init__(self) -> None:
        self.records: list[tuple[int, bytes, bytes | None]] = []

    def write(self, book: Book, now_ms: int = NOW_MS) -> int:
        """Append what a book has to write; return how many records that were."""
        pairs = book.write(now_ms, with_posts=True)
        self.records += [(len(self.records) + n, *pair) for n, pair in enumerate(pairs)]
        return len(pairs)


def limited(actions_max: int, **terms: object) -> tuple[Held, ...]:
    limit = ActionLimit.model_validate({"action": "remove", "actions_max": actions_max, **terms})
    return (Held(SCOPE, (limit,)),)


def book(name: str) -> Book:
    return Book(ActionsSettings(), name)


def take(one: Book, held: tuple[Held, ...], log: Log, count: int, now_ms: int = NOW_MS) -> int:
    """Ask for actions, with a round trip as often as one is needed; return how many were granted."""
    taken = 0
    position = 0
    for _ in range(count):
        while (outcome := one.decide(held, now_ms)) == "waiting":
            one.want({SCOPE: 1})
            log.write(one, now_ms)
            one.read(log.records[position:], now_ms)
            position = len(log.records)
        taken += outcome == "taken"
    return taken


def test_an_action_waits_for_its_reservation_and_takes_it_once() -> None:
    one, log, held = book("a"), Log(), limited(10)
    assert one.decide(held, NOW_MS) == "waiting"
    one.want({SCOPE: 1})
    assert log.write(one) == 1
    assert one.decide(held, NOW_MS) == "waiting", "written is not granted: others may be before it"
    one.read(log.records, NOW_MS)
    assert one.decide(held, NOW_MS) == "taken"
    assert one.decide(held, NOW_MS) == "waiting"


def test_the_limit_is_shared_and_opens_the_breaker() -> None:
    log, held = Log(), limited(20)
    first, second = book("a"), book("b")
    assert take(first, held, log, 12) == 12
    assert take(second, held, log, 100) <= 8
    (trip, closes_ms) = next(second.open(NOW_MS))
    assert (trip.cause, trip.allowed) == ("actions_max", 20)
    assert closes_ms > NOW_MS + PART_MS * PARTS_COUNT
    first.read(log.records, NOW_MS)
    assert first.decide(held, NOW_MS) == "limited", "it is open for every replica"


def test_the_order_of_the_log_decides_between_two_reservations() -> None:
    log, held = Log(), limited(1)
    first, second = book("a"), book("b")
    for one in (first, second):
        assert one.decide(held, NOW_MS) == "waiting"
        one.want({SCOPE: 1})
    log.write(second)
    log.write(first)
    for one in (first, second):
        one.read(log.records, NOW_MS)
    assert second.decide(held, NOW_MS) == "taken"
    assert first.decide(held, NOW_MS) == "waiting"
    log.write(first)
    assert first.decide(held, NOW_MS) == "limited"


def test_it_closes_by_itself_after_the_window() -> None:
    one, log, held = book("a"), Log(), limited(3)
    assert take(one, held, log, 5) == 3
    _, closes_ms = next(one.open(NOW_MS))
    assert closes_ms - NOW_MS <= PART_MS * (PARTS_COUNT + 1)
    assert one.decide(held, closes_ms - 1) == "limited"
    assert take(one, held, Log(), 0, closes_ms) == 0
    assert one.decide(held, closes_ms) == "waiting", "closed: it may be reserved again"
    assert not list(one.open(closes_ms))


def test_a_restarted_replica_finds_the_breaker_open() -> None:
    one, log, held = book("a"), Log(), limited(3)
    take(one, held, log, 5)
    again = book("b")
    again.read(log.records, NOW_MS)
    assert again.decide(held, NOW_MS) == "limited"


def test_what_a_killed_replica_reserved_counts_as_used() -> None:
    log, held = Log(), limited(10)
    killed, one = book("a"), book("b")
    killed.decide(held, NOW_MS)
    killed.want({SCOPE: 4})
    log.write(killed)  # written, read by nobody, used by nobody
    one.read(log.records, NOW_MS)
    assert take(one, held, log, 20) <= 6


def test_a_clean_stop_gives_back_what_is_not_used() -> None:
    log, held = Log(), limited(10)
    stopped, one = book("a"), book("b")
    stopped.decide(held, NOW_MS)
    stopped.want({SCOPE: 4})
    log.write(stopped)
    stopped.read(log.records, NOW_MS)
    pairs = stopped.give_back(NOW_MS)
    log.records += [(len(log.records) + n, *pair) for n, pair in enumerate(pairs)]
    assert take(one, held, log, 20) == 10


def test_an_older_record_that_comes_late_changes_nothing() -> None:
    log, held = Log(), limited(10)
    first, second = book("a"), book("b")
    take(first, held, log, 1)
    oldest = log.records[0]
    take(first, held, log, 5)
    log.records.append((len(log.records), *oldest[1:]))
    assert take(second, held, log, 20) <= 4
    first.read(log.records, NOW_MS)
    assert log.write(first) == 1, "written again: compaction would keep the older record"


def test_a_reservation_read_across_a_gap_is_asked_for_again() -> None:
    log, held = Log(), limited(2)
    first, second = book("a"), book("b")
    take(first, held, log, 1)
    second.read(log.records[:1], NOW_MS)
    assert second.decide(held, NOW_MS) == "waiting"
    second.want({SCOPE: 1})
    # Compaction: the second of the first replica's records is gone, since a later one replaces it.
    begin = len(log.records)
    first.want({SCOPE: 1})
    first.decide(held, NOW_MS)
    log.write(first)
    log.write(second)
    gone = [one for n, one in enumerate(log.records) if n != begin]
    second.read(gone[1:], NOW_MS)
    assert second.decide(held, NOW_MS) == "waiting"


def test_reservations_of_a_clock_that_is_ahead_count() -> None:
    log, held = Log(), limited(5)
    ahead, one = book("a"), book("b")
    assert take(ahead, held, log, 5, NOW_MS + 2 * PART_MS) == 5
    assert take(one, held, log, 5) == 0


def test_a_reset_counts_from_zero_and_an_older_one_does_nothing() -> None:
    one, log, held = book("a"), Log(), limited(3)
    take(one, held, log, 5)
    assert one.reset(NOW_MS - 1, NOW_MS) == [], "decided before the breaker opened"
    assert one.reset(NOW_MS + 1, NOW_MS + 1, action="warn") == []
    (pair,) = one.reset(NOW_MS + 1, NOW_MS + 1, action="remove")
    one.read([(len(log.records), *pair)], NOW_MS + 2)
    assert one.decide(held, NOW_MS + 2) == "waiting"
    assert not list(one.open(NOW_MS + 2))
    one.read([(len(log.records) + 1, *pair)], NOW_MS + 3)
    assert one.decide(held, NOW_MS + 3) == "waiting", "a repeated reset is no second one"


def test_a_person_can_close_what_a_clock_that_is_ahead_has_opened() -> None:
    log, held = Log(), limited(1)
    ahead, one = book("a"), book("b")
    take(ahead, held, log, 2, NOW_MS + 3_600_000)
    one.read(log.records, NOW_MS)
    assert one.decide(held, NOW_MS) == "limited"
    (pair,) = one.reset(NOW_MS, NOW_MS)
    one.read([(len(log.records), *pair)], NOW_MS)
    assert one.decide(held, NOW_MS) == "waiting"


def test_a_share_is_of_the_posts_of_all_replicas() -> None:
    held = (Held(SCOPE, (ActionLimit(action="remove", share_max=0.1, posts_min=50),)),)
    log, one, other = Log(), book("a"), book("b")
    for _ in range(100):
        other.count_post([SCOPE.posts], NOW_MS)
    log.write(other)
    one.read(log.records, NOW_MS)
    assert take(one, held, log, 50) == 10
    assert next(one.open(NOW_MS))[0].cause == "share_max"


def test_a_share_of_few_posts_is_that_of_posts_min() -> None:
    held = (Held(SCOPE, (ActionLimit(action="remove", share_max=0.1, posts_min=50),)),)
    assert take(book("a"), held, Log(), 50) == 5


def test_the_strictest_term_decides() -> None:
    operator = ActionLimit(action="remove", actions_max=9)
    author = ActionLimit(action="remove", actions_max=4)
    assert take(book("a"), (Held(SCOPE, (operator, author)),), Log(), 50) == 4


def test_the_baseline_is_the_median_of_the_same_hour_of_the_week() -> None:
    hours = Hours(4)
    hour = NOW_MS // HOUR_MS
    hours.fold(hour - 168, "a", 10)
    assert hours.usual("hour", hour) is None, "one week is not enough"
    for week, used in ((2, 30), (3, 50), (4, 0)):
        hours.fold(hour - 168 * week, "a", used)
    assert hours.usual("hour", hour) == 30
    hours.fold(hour - 168 * 3, "b", 5)
    hours.fold(hour - 168, "b", 90)
    assert hours.usual("hour", hour) == 55


def test_the_baseline_limits_once_it_is_there() -> None:
    terms = ActionLimit(action="remove", baseline_times_max=2, baseline_min=3)
    held = (Held(SCOPE, (terms,)),)
    log, earlier = Log(), book("a")
    for week in (3, 2, 1):
        then_ms = NOW_MS - week * 168 * HOUR_MS
        assert take(earlier, held, log, 4, then_ms) == 4
    now = book("b")
    now.read(log.records, NOW_MS)
    assert take(now, held, log, 50) == 8


def test_old_numbers_are_deleted_and_idle_counters_go() -> None:
    one, log, held = book("a"), Log(), limited(9)
    take(one, held, log, 2)
    later_ms = NOW_MS + 20 * PART_MS
    log.write(one, later_ms)
    one.read(log.records, later_ms)
    gone = one.forget(later_ms)
    assert {value for _, value in gone} == {None}
    assert {key for key, _ in gone} <= {key for _, key, _ in log.records}


def policy(name: str, yaml: str = "") -> Policy:
    return make_policy(name, b"# a\nS1: a rule\n", metadata=yaml.encode() or None)


def test_limits_are_found_by_action_policy_and_tenant() -> None:
    finder = LimitFinder(
        (
            ActionLimit(action="remove", actions_max=1),
            ActionLimit(policy="*", tenant="*", actions_max=2),
            ActionLimit(policy="other", actions_max=3),
        )
    )
    own = policy("own", "limits: [{action: remove, window: day, actions_max: 5}]\n")
    found = {held.scope for held in finder.of_action(own, "acme", "remove")}
    assert found == {
        Scope("hour", action="remove"),
        Scope("hour", policy="own", tenant="acme"),
        Scope("day", policy="own", action="remove"),
    }
    assert {held.scope for held in finder.of_action(own, None, "warn")} == set()
    assert finder.limits(policy("plain"))
    assert not LimitFinder(()).any_limit([policy("plain")])
    assert LimitFinder(()).any_limit([own])


def test_limits_on_the_same_counter_hold_together() -> None:
    finder = LimitFinder((ActionLimit(policy="*", action="remove", actions_max=7),))
    own = policy("own", "limits: [{action: remove, actions_max: 5}]\n")
    (held,) = finder.of_action(own, None, "remove")
    assert sorted(term.actions_max or 0 for term in held.terms) == [5, 7]


def test_one_counter_too_many_limits_its_actions() -> None:
    one = Book(ActionsSettings(scopes_max=1), "a")
    assert one.decide(limited(5), NOW_MS) == "waiting"
    other = (Held(Scope("hour", tenant="t"), limited(5)[0].terms),)
    assert one.decide(other, NOW_MS) == "limited"
