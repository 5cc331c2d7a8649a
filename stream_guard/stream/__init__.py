"""The loop from poll to commit, with no Kafka client in it.

May import: ``judging`` and below.
"""
