"""Makes the demo model: a tiny gpt-oss that has learned to read a policy. See README.md here."""
