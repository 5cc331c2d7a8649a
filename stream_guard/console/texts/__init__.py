"""The texts of the console: one catalogue, a TOML file for each page."""
