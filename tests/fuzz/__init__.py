"""Feeds broken bytes to every parser that reads bytes from outside."""
