"""Logs, metrics and traces: every name in one place each. No text of a post ever enters here."""
