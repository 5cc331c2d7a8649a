"""How the tests with a broker or an engine share the processors: which stay together, and which begin."""

from __future__ import annotations

from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any, Final

import pytest
from xdist.scheduler.loadscope import LoadScopeScheduling

from stream_guard.judging.engine import core_process
from stream_guard.judging.engine.arguments import prepare_environment
from stream_guard.settings import EngineSettings

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

_HERE: Final = Path(__file__).parent
_LONGEST_FIRST: Final[Sequence[str]] = (
    "test_soak",
    "test_engine",
    "test_engine_starts",
    # These two assert that no fork server is left; those after them share one.
    "test_engine_death",
    "test_engine_supervisor",
    "test_evaluation",
    "test_demo_model",
    "test_attack",
    "test_reload_engine",
    "test_engine_faults",
    "test_demo",
    "test_replay",
    "test_commands_in_docs",
)
"""Modules that begin, so that no worker is left alone with a long one at the end. All others follow by name."""
_TOGETHER: Final[Mapping[str, str]] = {
    # One process imports vLLM once for all of these.
    "test_engine": "engine",
    "test_engine_death": "engine",
    "test_engine_supervisor": "engine",
    "test_evaluation": "engine",
    "test_demo_model": "engine",
    "test_attack": "engine",
    # A fixture of the module runs a program, and all its tests check the result.
    "test_observed": "observed",
}
"""Modules whose tests go to one worker. Every other test here goes to the worker that is free."""


@pytest.fixture(scope="session")
def engine_server(random_model: Path) -> Iterator[None]:
    """Keep vLLM's fork server for all engines of this process that ask for it: its imports take most of a start."""
    prepare_environment(EngineSettings(model=str(random_model)))
    core_process.start_server()
    # Its log goes to the stdout of the time of its import, which must not be that of a command.
    import vllm.v1.engine.async_llm  # noqa: F401

    yield
    core_process.stop_server()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put our tests last, the longest modules first."""
    order = {name: number for number, name in enumerate(_LONGEST_FIRST, 1)}

    def rank(item: pytest.Item) -> int:
        return order.get(item.path.stem, len(order) + 1) if _HERE in item.path.parents else 0

    items.sort(key=rank)


class Scheduling(LoadScopeScheduling):
    """Hands tests out one by one in their order, but those that belong together to one worker."""

    def _split_scope(self, nodeid: str) -> str:
        module = PurePath(nodeid.partition("::")[0])
        if module.parent.name != _HERE.name:
            return str(module)
        return _TOGETHER.get(module.stem, nodeid)


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Scheduling:  # noqa: ANN401 - xdist's logger
    """Return our scheduling, with which the order above holds."""
    config.option.loadscopereorder = False
    return Scheduling(config, log)
