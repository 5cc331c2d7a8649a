"""The page Dead letters: what could not be judged, by reason, and replays."""
