"""The demo: a real broker, the real engine, posts in, verdicts out; ends by itself."""
