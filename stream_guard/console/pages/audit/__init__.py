"""The page Audit: who decided what, breakers that opened, versions in force, and the export for the DSA."""
