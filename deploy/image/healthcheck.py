"""Asks the program in this container whether its loop turns; exits 0 if so. An argument is the port."""

import os
import sys
import urllib.error
import urllib.request

port = sys.argv[1] if sys.argv[1:] else os.environ.get("STREAM_GUARD_HTTP__PORT", "8080")
try:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/livez", timeout=4) as response:
        sys.exit(response.status != 200)  # noqa: PLR2004 - OK
except (urllib.error.URLError, OSError) as error:
    sys.exit(f"/livez on port {port}: {error}")
