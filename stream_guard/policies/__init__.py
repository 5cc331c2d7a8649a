"""Policy texts, routes, rules and lint: everything that an author writes, read and checked.

May import: ``records`` and below.
"""
