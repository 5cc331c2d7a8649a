"""Stream Guard: posts in from Kafka, verdicts out, each judged under its topic's written policy."""
