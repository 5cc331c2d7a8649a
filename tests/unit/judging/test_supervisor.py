"""Engines die, hang and do not start: every request is judged once, and only a post that kills alone is blamed."""

# ruff: noqa: ANN401 - settings of any type

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry

from stream_guard.core.errors import (
    EngineError,
    EngineHungError,
    EngineKilledError,
    PolicyError,
    SettingsError,
)
from stream_guard.judging.contract import Judgement, JudgeRequest
from stream_guard.judging.engine.prefixes import CacheRoom, PrefixCache, prefix_key
from stream_guard.judging.engine.supervisor import EngineState, Pace, SupervisedJudge
from stream_guard.judging.engine.warm_first import WarmFirst
from stream_guard.policies.policy import PolicySet, make_policy
from stream_guard.records.post import Post
from stream_guard.settings import EngineSettings
from stream_guard.telemetry.metrics import Metrics
from stream_guard.testing import ManualClock, ManualJudge
from tests.hang import HANG_S

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from stream_guard.judging.delivery import Pending
    from stream_guard.judging.engine.waiting import Waiting
    from stream_guard.policies.policy import Policy

OLD = make_policy("p", b"Answer `VIOLATES` or `SAFE`. Judge by the letter.")
NEW = make_policy("p", b"Answer `VIOLATES` or `SAFE`. Judge by the spirit.")
OLD_SET, NEW_SET = PolicySet({"p": OLD}), PolicySet({"p": NEW})


class Engine(ManualJudge):
    """One engine: the test lets it judge, die, hang, or refuse to start."""

    def __init__(self, world: World) -> None:
        super().__init__(world.clock)
        self.world = world
        self.prepared: list[PolicySet] = []
        self.disturbed = False
        self.killed = self.closed = False
        self.release_prepare = asyncio.Event()
        self.release_prepare.set()

    async def start(self, policies: PolicySet) -> None:
        self.prepared.append(policies)
        if self.world.starts_failing > 0:
            self.world.starts_failing -= 1
            raise self.world.start_error
        await self.world.may_start.wait()

    async def prepare(self, policies: PolicySet) -> None:
        await self.release_prepare.wait()
        if self.world.prepare_error is not None:
            raise self.world.prepare_error
        self.prepared.append(policies)

    def cancel(self, requests: Sequence[JudgeRequest]) -> None:
        self.disturbed = True
        super().cancel(requests)

    def die(self) -> None:
        self.world.deaths.append(([r.post.id for r in self.waiting], self.disturbed))
        self.fail(EngineError("the engine's process died"))

    def step(self) -> None:
        """Judge what there is, or die of it."""
        if any(request.post.id in self.world.killers for request in self.waiting):
            self.die()
        else:
            self.answer()

    async def kill(self) -> None:
        self.killed = True

    async def close(self) -> None:
        self.closed = True


class World:
    """A supervisor, its engines, and all that it delivered."""

    def __init__(
        self,
        *,
        killers: Iterable[str] = (),
        waiting: Waiting[Pending] | None = None,
        **changes: Any,
    ) -> None:
        self.clock = ManualClock()
        self.engines: list[Engine] = []
        self.killers = set(killers)
        self.deaths: list[tuple[list[str], bool]] = []
        self.starts_failing = 0
        self.start_error: Exception = EngineError("no memory")
        self.prepare_error: Exception | None = None
        self.may_start = asyncio.Event()
        self.may_start.set()
        self.delivered: list[Judgement] = []
        self.states: list[EngineState] = []
        self.pauses: list[float] = []
        self.metrics = Metrics(CollectorRegistry())
        self.settings = EngineSettings(**{"max_num_seqs": 50, "rebuilds_max": 1_000, **changes})
        self.judge = SupervisedJudge(
            self._make,
            self.settings,
            clock=self.clock,
            metrics=self.metrics,
            changed=self.states.append,
            waiting=waiting,
            # The test looks, by the manual clock.
            pace=Pace(1_000, self._pause),
        )

    def _make(self) -> Engine:
        self.engines.append(Engine(self))
        return self.engines[-1]

    async def _pause(self, seconds: float) -> None:
        self.pauses.append(seconds)

    @property
    def engine(self) -> Engine:
        return self.engines[-1]

    def submit(self, *ids: str, policy: Any = OLD) -> list[JudgeRequest]:
        requests = [
            JudgeRequest(f"r-{name}", Post(id=name, text="t", sha256="", text_bytes=1), policy)
            for name in ids
        ]
        self.judge.submit(requests, self.delivered.extend)
        return requests

    def judged(self) -> list[str]:
        return [j.request.post.id for j in self.delivered if j.error is None]

    def blamed(self) -> list[str]:
        return [j.request.post.id for j in self.delivered if j.error is not None]

    def rebuilds(self, cause: str) -> float:
        labels = {"cause": cause}
        value = self.metrics.registry.get_sample_value("stream_guard_engine_rebuilds_total", labels)
        return value or 0.0

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(HANG_S):
            while not condition():  # noqa: ASYNC110 - turns of the loop, and no time
                await asyncio.sleep(0)

    async def next_engine(self) -> None:
        """Return once the engine that is dead has been replaced by one that is ready."""
        dead = self.engine
        await self.until(
            lambda: self.engine is not dead and bool(self.states) and self.states[-1].ready
        )

    async def die(self) -> None:
        self.engine.die()
        await self.next_engine()

    async def finish(self) -> None:
        """Step until nothing is in flight."""
        while self.judge.in_flight():
            deaths = len(self.deaths)
            self.engine.step()
            if len(self.deaths) > deaths:
                await self.next_engine()


def names(count: int) -> list[str]:
    return [f"p{number}" for number in range(count)]


async def started(**options: Any) -> World:
    world = World(**options)
    await world.judge.start(OLD_SET)
    return world


async def test_a_death_that_is_no_posts_fault_costs_one_rebuild_and_no_post() -> None:
    world = await started()
    world.submit(*names(20))
    await world.die()
    await world.finish()
    assert sorted(world.judged()) == sorted(names(20))
    assert len(world.engines) == 2
    assert world.rebuilds("died") == 1
    assert world.engines[0].killed
    assert world.engines[0].closed
    await world.judge.close()


@pytest.mark.parametrize("count", [1, 5, 8, 9, 60, 100])
@pytest.mark.parametrize("at", [0, -1])
async def test_a_post_that_kills_is_found_and_its_neighbours_are_judged(
    count: int, at: int
) -> None:
    killer = names(count)[at]
    world = await started(killers=[killer])
    world.submit(*names(count))
    await world.finish()
    assert world.blamed() == [killer]
    assert sorted(world.judged()) == sorted(set(names(count)) - {killer})
    error = world.delivered[[j.error is not None for j in world.delivered].index(True)].error
    assert isinstance(error, EngineKilledError)
    assert "engine.deaths_per_post_max" in str(error)
    assert error.attempts == len(world.deaths)
    # With all, in its group, alone; few posts are tried alone at once.
    assert len(world.deaths) == (2 if count <= 8 else 3)
    await world.judge.close()


async def test_many_innocents_are_tried_in_few_steps() -> None:
    world = await started()
    world.submit(*names(100))
    await world.die()
    steps = 0
    while world.judge.in_flight():
        world.engine.step()
        steps += 1
    assert steps == 10
    await world.judge.close()


async def test_two_that_kill_are_both_found() -> None:
    world = await started(killers=["p3", "p4"])
    world.submit(*names(30))
    await world.finish()
    assert sorted(world.blamed()) == ["p3", "p4"]
    assert len(world.judged()) == 28
    await world.judge.close()


@pytest.mark.parametrize("deaths", [1, 2, 3])
async def test_how_often_a_post_may_kill_is_a_setting(deaths: int) -> None:
    world = await started(killers=["p0"], deaths_per_post_max=deaths)
    world.submit("p0")
    await world.finish()
    assert world.blamed() == ["p0"]
    # The first death is never held against it: who had been there before is not known.
    assert len(world.deaths) == max(2, deaths)
    await world.judge.close()


async def test_while_suspects_are_tried_the_others_wait() -> None:
    world = await started()
    world.submit("p0", "p1")
    await world.die()
    world.submit("later")
    assert [r.post.id for r in world.engine.waiting] == ["p0"]
    world.engine.step()
    assert [r.post.id for r in world.engine.waiting] == ["p1"]
    world.engine.step()
    assert [r.post.id for r in world.engine.waiting] == ["later"]
    await world.judge.close()


async def test_a_neighbour_of_a_cancelled_post_is_not_blamed_for_it() -> None:
    world = await started()
    first, _ = world.submit("cancelled", "innocent")
    await world.die()
    world.judge.cancel([first])  # the engine may still be at it
    assert [r.post.id for r in world.engine.waiting] == ["innocent"]
    await world.die()
    assert world.blamed() == []
    await world.finish()
    assert world.judged() == ["innocent"]
    await world.judge.close()


async def test_the_engine_has_no_more_than_its_window() -> None:
    world = await started(in_flight_requests_max=4)
    world.submit(*names(10))
    assert len(world.engine.waiting) == 4
    world.engine.answer(world.engine.waiting[:1])
    assert len(world.engine.waiting) == 4
    assert world.judge.in_flight() == 9
    await world.judge.close()


async def test_posts_under_a_cached_policy_enter_first() -> None:
    cache = PrefixCache()
    cache.reset(CacheRoom(100, 1, 1))
    cache.expect({prefix_key(request_under(policy)): 90 for policy in (OLD, NEW)}, 5)
    waiting: Waiting[Pending] = WarmFirst(cache, 10.0, 10)
    world = await started(waiting=waiting, in_flight_requests_max=1)
    for number, policy in enumerate((OLD, NEW, OLD, NEW, OLD)):
        world.submit(f"p{number}", policy=policy)
    await world.finish()
    assert world.judged() == ["p0", "p2", "p4", "p1", "p3"]
    await world.judge.close()


def request_under(policy: Policy) -> JudgeRequest:
    return JudgeRequest("r", Post(id="p", text="t", sha256="", text_bytes=1), policy)


async def test_silence_with_posts_in_flight_is_hanging_and_ends_it() -> None:
    world = await started(hang_timeout_s=70)
    world.judge.check_hang()
    world.submit("p0", "p1")
    world.clock.advance(69)
    world.judge.check_hang()
    world.engine.answer(world.engine.waiting[:1])  # a decision: it does not hang
    world.clock.advance(69)
    world.judge.check_hang()
    world.clock.advance(2)
    world.judge.check_hang()
    hung = world.engine
    await world.next_engine()
    assert hung.killed
    assert world.rebuilds("hung") == 1
    assert "engine.hang_timeout_s" in str(world.states[0].last_fault)
    await world.finish()
    assert world.judged() == ["p0", "p1"]
    await world.judge.close()


async def test_hanging_that_the_judge_finds_itself_is_hanging() -> None:
    world = await started()
    world.engine.fail(EngineHungError("it answers no call"))
    await world.next_engine()
    assert world.rebuilds("hung") == 1
    await world.judge.close()


async def test_silence_without_posts_is_rest() -> None:
    world = await started(hang_timeout_s=70)
    for _ in range(5):
        world.clock.advance(60)
        world.judge.check_hang()
    world.submit("p0")
    world.clock.advance(60)
    world.judge.check_hang()
    await world.finish()
    assert len(world.engines) == 1
    await world.judge.close()


async def test_a_dead_engine_is_not_listened_to() -> None:
    world = await started()
    world.submit("p0")
    dead = world.engine
    late = [*dead.waiting]
    callback = dead._deliver["r-p0"]
    await world.die()
    callback([Judgement(request) for request in late])
    assert world.delivered == []
    await world.finish()
    assert world.judged() == ["p0"]
    await world.judge.close()


async def test_down_it_takes_and_cancels_posts() -> None:
    world = await started()
    world.may_start.clear()
    world.submit("before")
    world.engine.die()
    await world.until(lambda: len(world.engines) == 2)
    kept, dropped = world.submit("kept", "dropped")
    world.judge.cancel([dropped])
    assert world.judge.in_flight() == 2
    assert not world.states[-1].ready
    world.may_start.set()
    await world.until(lambda: world.states[-1].ready)
    await world.finish()
    assert world.judged() == ["before", "kept"]
    assert kept.post.id == "kept"
    await world.judge.close()


async def test_a_rebuild_that_fails_is_tried_again_with_longer_pauses() -> None:
    world = await started(rebuild_backoff_s_min=1, rebuild_backoff_s_max=5)
    world.starts_failing = 4
    world.submit("p0")
    await world.die()
    assert world.pauses == [1, 2, 4, 5, 5]
    assert world.rebuilds("start") == 4
    await world.finish()
    await world.die()
    assert world.pauses[-1] == 1, "it has judged in between"
    await world.judge.close()


async def test_too_many_rebuilds_in_the_window_are_the_end() -> None:
    world = await started(rebuilds_max=2, rebuild_window_s=100)
    await world.die()
    world.clock.advance(101)
    await world.die()
    await world.die()
    world.engine.die()
    error = await world.judge.wait_failed()
    assert isinstance(error, EngineError)
    assert "engine.rebuilds_max" in str(error)
    assert "died" in str(error)
    with pytest.raises(EngineError):
        await world.judge.prepare(NEW_SET)
    await world.judge.close()


async def test_a_set_up_that_is_wrong_is_not_tried_again() -> None:
    world = await started()
    world.starts_failing, world.start_error = 1, SettingsError("no such model")
    world.engine.die()
    assert isinstance(await world.judge.wait_failed(), SettingsError)
    assert len(world.engines) == 2
    await world.judge.close()


async def test_the_first_start_is_not_tried_again() -> None:
    world = World()
    world.starts_failing = 1
    with pytest.raises(EngineError, match="no memory"):
        await world.judge.start(OLD_SET)
    await world.judge.close()
    assert world.engine.killed


async def test_a_rebuilt_engine_has_the_newest_policies_and_those_in_flight() -> None:
    world = await started()
    world.submit("old")
    await world.judge.prepare(NEW_SET)
    world.submit("new", policy=NEW)
    await world.die()
    assert world.engine.prepared == [NEW_SET, OLD_SET]
    await world.finish()
    await world.die()
    assert world.engine.prepared == [NEW_SET]
    await world.judge.close()


async def test_a_death_while_policies_are_made_ready_is_made_good() -> None:
    world = await started()
    world.engine.release_prepare.clear()
    preparing = asyncio.create_task(world.judge.prepare(NEW_SET))
    await world.until(lambda: world.judge._life is not None and world.judge._life.preparing == 1)
    await world.die()
    await preparing
    assert world.engine.prepared == [OLD_SET, NEW_SET]
    await world.judge.close()


async def test_policies_over_which_the_engine_hangs_each_time_are_refused() -> None:
    world = await started()

    async def hang_in_prepare() -> None:
        world.engine.release_prepare.clear()
        await world.until(
            lambda: world.judge._life is not None and world.judge._life.preparing == 1
        )
        world.judge.check_hang()
        world.clock.advance(1_000)
        world.judge.check_hang()
        await world.next_engine()

    preparing = asyncio.create_task(world.judge.prepare(NEW_SET))
    await hang_in_prepare()
    await hang_in_prepare()
    with pytest.raises(PolicyError, match=r"engine\.deaths_per_post_max"):
        await preparing
    await world.die()
    assert world.engine.prepared == [OLD_SET]
    await world.judge.close()


async def test_policies_that_a_living_engine_refuses_are_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("stream_guard.judging.engine.lifetime.DEATH_NOTICE_S", 0)
    world = await started()
    world.prepare_error = EngineError("cannot complete its prompt")
    with pytest.raises(PolicyError, match="cannot complete"):
        await world.judge.prepare(NEW_SET)
    assert len(world.engines) == 1
    await world.judge.close()


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"hang_timeout_s": 60, "request_timeout_s": 60}, "hang_timeout_s must exceed"),
        ({"rebuild_backoff_s_min": 9, "rebuild_backoff_s_max": 8}, "rebuild_backoff_s_max"),
    ],
)
def test_settings_that_contradict_are_refused(changes: dict[str, float], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        EngineSettings(**changes)  # type: ignore[arg-type]


ACTIONS = st.lists(
    st.one_of(
        st.tuples(st.just("submit"), st.integers(1, 12)),
        st.tuples(st.just("answer"), st.integers(1, 12)),
        st.tuples(st.just("cancel"), st.integers(0, 40)),
        st.tuples(st.just("die"), st.just(0)),
        st.tuples(st.just("hang"), st.just(0)),
        st.tuples(st.just("fail_starts"), st.integers(1, 3)),
    ),
    max_size=25,
)


async def play(actions: list[tuple[str, int]], killers: set[str], window: int) -> None:
    world = await started(killers=killers, in_flight_requests_max=window)
    requests: list[JudgeRequest] = []
    cancelled: set[str] = set()
    for what, count in actions:
        if what == "submit":
            requests += world.submit(*(f"p{len(requests) + n}" for n in range(count)))
        elif what == "answer":
            ready = [r for r in world.engine.waiting if r.post.id not in killers][:count]
            world.engine.answer(ready)
        elif what == "cancel":
            chosen = requests[count::7]
            done = {j.request.id for j in world.delivered}
            cancelled |= {r.id for r in chosen} - done
            world.judge.cancel(chosen)
        elif what == "die":
            await world.die()
        elif what == "hang":
            world.judge.check_hang()
            if world.engine.waiting:
                world.deaths.append(
                    ([r.post.id for r in world.engine.waiting], world.engine.disturbed)
                )
                world.clock.advance(1_000)
                world.judge.check_hang()
                await world.next_engine()
        else:
            world.starts_failing = count
    world.starts_failing = 0
    await world.finish()
    delivered = [j.request.id for j in world.delivered]
    assert len(set(delivered)) == len(delivered), "delivered twice"
    assert set(delivered) | cancelled == {r.id for r in requests}, "lost"
    assert not set(delivered) & cancelled, "delivered after it was cancelled"
    alone = {ids[0] for ids, disturbed in world.deaths if len(ids) == 1 and not disturbed}
    assert set(world.blamed()) <= alone
    assert not set(world.judged()) & killers
    if not any(what in ("die", "hang") for what, _ in actions):
        assert set(world.blamed()) <= killers
    await world.judge.close()


@settings(max_examples=150, deadline=None)
@given(
    actions=ACTIONS,
    killers=st.sets(st.integers(0, 30).map("p{}".format), max_size=3),
    window=st.integers(1, 30),
)
def test_whatever_happens_each_is_delivered_once_and_only_lone_killers_are_blamed(
    actions: list[tuple[str, int]], killers: set[str], window: int
) -> None:
    asyncio.run(play(actions, killers, window))


async def test_an_error_of_one_caller_ends_the_judge_and_keeps_nothing_from_another() -> None:
    world = await started()
    error = ValueError("this verdict cannot be built")

    def broken(_judgements: Sequence[Judgement]) -> None:
        raise error

    post = Post(id="first", text="t", sha256="", text_bytes=1)
    world.judge.submit([JudgeRequest("r-first", post, OLD)], broken)
    world.submit("second")
    world.engine.step()
    assert world.judged() == ["second"]
    assert await world.judge.wait_failed() is error
    await world.judge.close()
