"""Makes the demo model: a tiny gpt-oss that has learnt to read a policy. See README.md here."""
