"""What the adversary will do, from a seed alone. Pure.

Faults are drawn like cards: every kind comes once before any comes again, in an order of the seed's. Whom a fault hits
is a draw between 0 and 1, since who leads what is known only then.
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Collection

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
BROKER_KINDS: Final = (BROKER_KILL, BROKER_STOP, BROKER_FREEZE)

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
    cards += [(POISON, ""), (ABORT, ""), (BOMB, "")]
    if engine == "vllm":
        cards.append((ENGINE_KILL, ""))
    if short:
        return [
            *cards,
            (BROKER_KILL, VERDICT_LEADER),
            (BROKER_KILL, GROUP_COORDINATOR),
            (BROKER_STOP, INPUT_LEADER),
            (BROKER_FREEZE, TRANSACTION_COORDINATOR),
        ]
    # What happens to consumers is quick and what happens to brokers is slow: as much time for each.
    return [*cards, *cards, *((kind, role) for kind in BROKER_KINDS for role in ROLES)]


def plan(
    seed: int,
    faults: int,
    *,
    engine: str = "scripted",
    session_timeout_s: float = 8.0,
    short: bool = False,
    only: Collection[str] = (),
) -> list[Planned]:
    """Return that many faults; the same for the same arguments, on any machine.

    Args:
        seed: of everything that is drawn.
        faults: how many.
        engine: ``engine.kind``.
        session_timeout_s: of the group; a frozen consumer stays so for longer.
        short: shorter waits, and a smaller deck.
        only: faults of these kinds; of every kind where there are none.

    Raises:
        ValueError: one of these kinds is not in the deck.
    """
    if unknown := set(only) - {kind for kind, _ in deck(engine, short=short)}:
        message = f"a soak with the engine {engine!r} has no fault {min(unknown)!r}"
        raise ValueError(message)
    draw = random.Random(seed)  # noqa: S311 - a schedule, not a secret
    cards: list[tuple[str, str]] = []
    while len(cards) < faults:
        more = [card for card in deck(engine, short=short) if not only or card[0] in only]
        draw.shuffle(more)
        cards.extend(more)
    scale = 0.4 if short else 1.0
    planned = []
    for kind, role in cards[:faults]:
        hold_s = 0.0
        if kind == CONSUMER_FREEZE:
            hold_s = session_timeout_s + draw.uniform(1, 3)
        elif kind == BROKER_FREEZE:
            hold_s = draw.uniform(3, 7)  # brokers give up on one another after 3 s
        elif kind in BROKER_KINDS:
            hold_s = draw.uniform(0.5, 5) * scale
        planned.append(
            Planned(
                kind, role, draw.random(), round(draw.uniform(1, 7) * scale, 2), round(hold_s, 2)
            )
        )
    return planned
