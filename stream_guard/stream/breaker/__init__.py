"""The breaker: limits on the actions that verdicts recommend, counted over all replicas.

``limits`` finds the limits of a verdict, ``ledger`` counts one of them, ``book`` keeps all ledgers of a replica, and
``gate`` holds verdicts until their actions are granted. Only ``gate`` waits; the others are pure.
"""
