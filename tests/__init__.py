"""Tests, by what they need: unit (nothing), contract, simulation, integration (a broker, the engine)."""
