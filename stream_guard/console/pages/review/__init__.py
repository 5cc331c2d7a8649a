"""The page Review: one item of the queue at a time."""
