"""Clients of Kafka are started and stopped in one place, which leaves nothing of them behind."""

from __future__ import annotations

import ast
from pathlib import Path

PACKAGE = Path(__file__).parents[3] / "stream_guard"
CLIENTS = {"AIOKafkaConsumer", "AIOKafkaProducer", "AIOKafkaAdminClient"}
NAMES = {"consumer", "producer", "admin"}


def calls_of_its_own(source: str) -> list[int]:
    """Return the lines of a module that start or stop a client by themselves."""
    tree = ast.parse(source)
    if not any(isinstance(node, ast.Name) and node.id in CLIENTS for node in ast.walk(tree)):
        return []
    return [
        node.lineno
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr in {"start", "stop", "close"}
        and ast.unparse(node.func.value).rpartition(".")[2].lstrip("_") in NAMES
    ]


def test_no_module_starts_or_stops_a_client_by_itself() -> None:
    files = sorted(PACKAGE.rglob("*.py"))
    found = {
        f"{file.relative_to(PACKAGE)}:{line}"
        for file in files
        for line in calls_of_its_own(file.read_text("utf-8"))
    }
    assert found == set(), "use start_client and stop_client of core/kafka_clients.py"


def test_the_check_sees_a_call() -> None:
    made = "from aiokafka import AIOKafkaConsumer\nconsumer = AIOKafkaConsumer()\n"
    assert calls_of_its_own(f"{made}await_(self._consumer.stop())\n") == [3]
    assert calls_of_its_own(f"{made}await_(stop_client(consumer))\n") == []
