"""Development scripts: the installer, the reference, the contracts."""
