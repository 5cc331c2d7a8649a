"""How the cluster of a backfill is left."""

from __future__ import annotations

import gc
import weakref
from typing import TYPE_CHECKING, Any

import ray

from stream_guard.offline.backfill.cluster import Cluster, open_cluster

if TYPE_CHECKING:
    import pytest


class Knot:
    """An object that only the collector frees, as some of Ray's are."""

    def __init__(self) -> None:
        self.itself = self


def test_what_is_left_over_goes_before_the_cluster_stops(monkeypatch: pytest.MonkeyPatch) -> None:
    left: list[Any] = []
    alive: list[bool] = []
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "init", lambda **_: None)
    monkeypatch.setattr(ray, "cluster_resources", lambda: {"CPU": 8})
    monkeypatch.setattr(ray, "shutdown", lambda: alive.append(left[0]() is not None))
    gc.disable()
    try:
        with open_cluster(Cluster()):
            left.append(weakref.ref(Knot()))
            assert left[0]() is not None
    finally:
        gc.enable()
    assert alive == [False]
