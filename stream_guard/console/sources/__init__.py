"""Where the console's data comes from. Each source says whether it can be read, and comes back by itself."""
