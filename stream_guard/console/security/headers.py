"""Headers of every answer: what a page may load, and where it may be shown.

No inline script or style is allowed, and nothing of another origin. So markup that slipped into a page could not run.
"""

from __future__ import annotations

from typing import Final

__all__ = ["CONTENT_SECURITY_POLICY", "HEADERS"]

_SOURCES: Final = {
    "default-src": "'none'",
    "script-src": "'self'",
    "style-src": "'self'",
    "img-src": "'self'",
    "connect-src": "'self'",
    "form-action": "'self'",
    "base-uri": "'none'",
    "frame-ancestors": "'none'",
}
CONTENT_SECURITY_POLICY: Final = "; ".join(f"{what} {whence}" for what, whence in _SOURCES.items())
HEADERS: Final = {
    "Content-Security-Policy": CONTENT_SECURITY_POLICY,
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
    # Not no-referrer: browsers then send "Origin: null" with forms, and the check of the origin would refuse them.
    "Referrer-Policy": "same-origin",
    "Server": "stream-guard",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}
