"""Scripts of development: the installer, the reference, the contracts."""
