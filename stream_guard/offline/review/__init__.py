"""The reviewers' projection: review items and what became of them, in a database that the topics can rebuild.

May import: everything below ``offline``; SQLAlchemy only here.
"""
