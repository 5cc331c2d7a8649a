"""What the adversary will do, from a seed alone. Pure.

Faults are drawn like cards: every kind comes once before any comes again, in an order of the seed's. Whom a fault hits
is a draw between 0 and 1, since who leads what is known only then.
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

CONSUMER_KILL: Final = "consumer kill -9"
CONSUMER_FREEZE: Final = "consumer frozen"
CONSUMER_LEAVE: Final = "consumer leaves"
CONSUMER_JOIN: Final = "consumer joins"
BROKER_KILL: Final = "broker kill -9"
BROKER_STOP: Final = "broker stopped"
BROKER_FREEZE: Final = "broker frozen"
ENGINE_KILL: Final = "engine kill -9"
POISON: Final = "poison"
ABORT: Final = "long transaction aborted"
BOMB: Final = "compression bomb"
TWINS: Final = "twin members"
CLOCK: Final = "clock jumps"
RETENTION: Final = "retention overtakes"
LEADERLESS: Final = "partition without leader"
DISK_FULL: Final = "broker's disk full"
REVOKED: Final = "permission revoked"
EXPIRED: Final = "certificates expired"
BREAKER: Final = "breaker trips"
DECISIONS: Final = "decisions"
DELETES: Final = "deletes"
NETWORK_DELAY: Final = "network delayed"
NETWORK_CUT: Final = "network cut"
NETWORK_MUTE: Final = "network muted"
NETWORK_SLOW: Final = "network at 20 kB/s"
NETWORK_KINDS: Final = (NETWORK_DELAY, NETWORK_CUT, NETWORK_MUTE, NETWORK_SLOW)
REFUSING_KINDS: Final = (TWINS, REVOKED, EXPIRED)
"""Kinds by which the brokers refuse a member, which then ends with exit code 3 by the documentation."""
BROKER_KINDS: Final = (BROKER_KILL, BROKER_STOP, BROKER_FREEZE)
_HOLD_S: Final[Mapping[str, tuple[float, float]]] = {
    CONSUMER_FREEZE: (1, 3),
    RETENTION: (1, 3),  # less than a session
    BROKER_KILL: (0.5, 5),
    BROKER_STOP: (0.5, 5),
    BROKER_FREEZE: (3, 7),  # brokers give up on one another after 3 s
    DISK_FULL: (0.5, 5),
    TWINS: (12, 15),  # their members start and read first
    CLOCK: (12, 15),
    LEADERLESS: (4, 10),
    REVOKED: (4, 10),
    EXPIRED: (4, 10),
    **dict.fromkeys(NETWORK_KINDS, (5.0, 12.0)),
}
_SCALED: Final = frozenset({BROKER_KILL, BROKER_STOP, DISK_FULL})

INPUT_LEADER: Final = "input leader"
VERDICT_LEADER: Final = "verdict leader"
GROUP_COORDINATOR: Final = "group coordinator"
TRANSACTION_COORDINATOR: Final = "transaction coordinator"
ROLES: Final = (INPUT_LEADER, VERDICT_LEADER, GROUP_COORDINATOR, TRANSACTION_COORDINATOR)


class Planned(NamedTuple):
    """One fault to come.

    Attributes:
        kind: what.
        role: of a broker: what it must be doing; empty otherwise.
        draw: in [0, 1): which of those that qualify.
        wait_s: since the last one ended.
        hold_s: how long it holds: the outage, or the freeze; 0 where it is over at once.
    """

    kind: str
    role: str
    draw: float
    wait_s: float
    hold_s: float


def deck(engine: str, *, short: bool = False) -> list[tuple[str, str]]:
    """Return each fault once: every kind, and of each kind of a broker's loss each role.

    Args:
        engine: ``engine.kind``; only a real engine has a process to kill.
        short: each kind and each role at least once, and no more.
    """
    cards = [(kind, "") for kind in (CONSUMER_KILL, CONSUMER_FREEZE, CONSUMER_LEAVE, CONSUMER_JOIN)]
    cards += [(kind, "") for kind in (POISON, ABORT, BOMB, RETENTION, BREAKER, DECISIONS, DELETES)]
    slow = [(kind, "") for kind in (TWINS, CLOCK, LEADERLESS, DISK_FULL, REVOKED, EXPIRED)]
    slow += [(kind, "") for kind in NETWORK_KINDS]
    if engine == "vllm":
        cards.append((ENGINE_KILL, ""))
    if short:
        return [
            *cards,
            *slow,
            (BROKER_KILL, VERDICT_LEADER),
            (BROKER_KILL, GROUP_COORDINATOR),
            (BROKER_STOP, INPUT_LEADER),
            (BROKER_FREEZE, TRANSACTION_COORDINATOR),
        ]
    # What happens to consumers is quick and what happens to brokers is slow: as much time for each.
    return [*cards, *cards, *slow, *((kind, role) for kind in BROKER_KINDS for role in ROLES)]


def _hold_s(kind: str, draw: random.Random, scale: float) -> float:
    """Draw how long a fault holds, in s; a consumer's freeze: beyond its session."""
    if kind not in _HOLD_S:
        return 0.0
    return draw.uniform(*_HOLD_S[kind]) * (scale if kind in _SCALED else 1.0)


def plan(
    seed: int,
    faults: int,
    *,
    engine: str = "scripted",
    session_timeout_s: float = 8.0,
    short: bool = False,
    only: Collection[str] = (),
    without: Collection[str] = (),
) -> list[Planned]:
    """Return that many faults; the same for the same arguments, on any machine.

    Args:
        seed: of everything that is drawn.
        faults: how many.
        engine: ``engine.kind``.
        session_timeout_s: of the group; a frozen consumer stays so for longer.
        short: shorter waits, and a smaller deck.
        only: faults of these kinds; of every kind where there are none.
        without: no fault of these kinds.

    Raises:
        ValueError: one of these kinds is not in the deck, or none is left.
    """
    every = deck(engine, short=short)
    if unknown := {*only, *without} - {kind for kind, _ in every}:
        message = f"a soak with the engine {engine!r} has no fault {min(unknown)!r}"
        raise ValueError(message)
    left = [card for card in every if (not only or card[0] in only) and card[0] not in without]
    if faults and not left:
        message = "no kind of fault is left; name fewer in --without"
        raise ValueError(message)
    draw = random.Random(seed)  # noqa: S311 - a schedule, not a secret
    cards: list[tuple[str, str]] = []
    while len(cards) < faults:
        more = list(left)
        draw.shuffle(more)
        cards.extend(more)
    scale = 0.4 if short else 1.0
    planned = []
    for kind, role in cards[:faults]:
        hold_s = _hold_s(kind, draw, scale)
        if kind == CONSUMER_FREEZE:
            hold_s += session_timeout_s
        planned.append(
            Planned(
                kind, role, draw.random(), round(draw.uniform(1, 7) * scale, 2), round(hold_s, 2)
            )
        )
    return planned
