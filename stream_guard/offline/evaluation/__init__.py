"""Golden sets judged, counted and compared: what ``stream-guard eval`` is made of."""
