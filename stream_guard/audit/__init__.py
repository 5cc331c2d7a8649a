"""What makes a verdict explicable years later: the archive of policies, replays, backtests and exports."""
