"""What people decided: the table of standing decisions, and the judge that asks it first.

May import: the rooms that ``judging`` may.
"""
