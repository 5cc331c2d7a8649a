"""Every command that the documentation shows: read, marked as not for every machine, or run as it is written."""
