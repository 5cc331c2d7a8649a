"""Model families: how each renders a request and reads an answer.

May import: ``judging.contract`` and below; no family imports another.
"""
