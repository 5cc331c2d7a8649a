"""How a request becomes a judgement: the contract, the tiers, the engine and the model families.

May import: ``policies`` and below.
"""
