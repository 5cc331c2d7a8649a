"""The tiers of the cascade, cheapest first, and the cascade that runs them.

May import: ``judging.contract`` and below.
"""
