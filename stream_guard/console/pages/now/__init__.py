"""The page Now: what happens at this moment, and what is wrong."""
