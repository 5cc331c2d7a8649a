"""Improving a policy by what people decided, and making a new version live (``stream-guard policies improve``).

May import: ``offline.audit``, ``offline.evaluation``, ``offline.review``, ``offline.session`` and below.
"""
