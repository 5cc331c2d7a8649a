"""The page Verdicts: searching them, and one verdict as a story."""
