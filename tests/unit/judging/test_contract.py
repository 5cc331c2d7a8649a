"""What judges exchange: a copy of a provenance loses nothing, also no field that is added later."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

from stream_guard.judging.contract import Provenance
from stream_guard.judging.tiers.ladder import with_trail

if TYPE_CHECKING:
    from typing import Any


@dataclass(slots=True)
class Extended(Provenance):
    """A provenance with one more field than there is today."""

    added: str = ""


def one_of_each(kind: type[Provenance]) -> dict[str, Any]:
    return {field.name: f"the {field.name}" for field in fields(kind)}


def test_a_copy_has_every_field_and_is_another_object() -> None:
    for kind in (Provenance, Extended):
        given = one_of_each(kind)
        first = kind(**given)
        second = first.copy()
        assert second is not first
        assert type(second) is kind
        assert {name: getattr(second, name) for name in given} == given


def test_a_trail_is_added_to_a_copy_of_all_the_rest() -> None:
    given = one_of_each(Extended)
    found = with_trail(Extended(**given), (), ("ladder_cut",))
    expected = given | {"trail": (), "degraded": ("ladder_cut",)}
    assert {name: getattr(found, name) for name in given} == expected
