"""The page Policies: texts, drafts, trying them, their figures, and what goes live."""
