"""Adapters to Kafka: sources, publishers, transactions, ranges.

May import: ``stream`` and below.
"""
