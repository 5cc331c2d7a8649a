"""For tests, here and at users': a real broker from pip alone, and in-memory stand-ins for the edges."""

from stream_guard.testing.broker import Broker, start_broker

__all__ = ["Broker", "start_broker"]
