"""A small issuer of OpenID Connect for tests: a real HTTP server that signs whom it is told to, right or wrong."""

from __future__ import annotations

import base64
import functools
import hashlib
import hmac
import time
from typing import Any, Final
from urllib.parse import parse_qs, urlencode

import orjson
from aiohttp import web
from joserfc import jwt
from joserfc.jwk import KeySet, RSAKey

from tests.http_place import HttpPlace

__all__ = ["CLIENT", "SECRET", "TestIssuer"]

CLIENT: Final = "stream-guard"
SECRET: Final = "a secret: with/odd characters"  # noqa: S105 - made up


class TestIssuer(HttpPlace):
    """The issuer, whose name is its address.

    Attributes:
        claims: what its next ID tokens say, over what is right.
        algorithm: of their signatures; ``none`` signs nothing, and ``HS256`` signs with the public key's text.
        public: whether clients need no secret.
        asked: paths that were asked for.
    """

    __test__ = False

    def __init__(self) -> None:
        super().__init__()
        self.claims: dict[str, Any] = {}
        self.algorithm = "RS256"
        self.public = False
        self.asked: list[str] = []
        self.padding = ""
        self.keys = [_key("first")]
        self._codes: dict[str, dict[str, str]] = {}

    def add_routes(self, router: web.UrlDispatcher) -> None:
        router.add_get("/.well-known/openid-configuration", self._discovery)
        router.add_get("/keys", self._keys)
        router.add_get("/authorize", self._authorize)
        router.add_post("/token", self._token)

    def rotate(self) -> None:
        """Sign with a new key from now on."""
        self.keys = [_key("second")]

    async def _discovery(self, _request: web.Request) -> web.Response:
        self.asked.append("discovery")
        return web.json_response(
            {
                "issuer": self.url,
                "authorization_endpoint": f"{self.url}/authorize",
                "token_endpoint": f"{self.url}/token",
                "jwks_uri": f"{self.url}/keys",
                "padding": self.padding,
            }
        )

    async def _keys(self, _request: web.Request) -> web.Response:
        self.asked.append("keys")
        return web.json_response(KeySet(list(self.keys)).as_dict(private=False))

    async def _authorize(self, request: web.Request) -> web.Response:
        """Let everybody in at once, as an issuer does where somebody is signed in already."""
        query = dict(request.query)
        code = f"code-{len(self._codes)}"
        self._codes[code] = query
        back = f"{query['redirect_uri']}?{urlencode({'code': code, 'state': query['state']})}"
        return web.Response(status=302, headers={"Location": back})

    async def _token(self, request: web.Request) -> web.Response:
        form = {name: values[0] for name, values in parse_qs(await request.text()).items()}
        asked = self._codes.pop(form.get("code", ""), None)
        if asked is None:
            return _error("invalid_grant", "<b>this code</b> is not known")
        digest = hashlib.sha256(form.get("code_verifier", "").encode()).digest()
        challenge = base64.urlsafe_b64encode(digest).decode().rstrip("=")
        if challenge != asked["code_challenge"] or asked["code_challenge_method"] != "S256":
            return _error("invalid_grant", "the verifier is wrong")
        if not self.public:
            pair = "stream-guard:a%20secret%3A%20with%2Fodd%20characters"
            expected = "Basic " + base64.b64encode(pair.encode()).decode()
            if request.headers.get("Authorization") != expected:
                return _error("invalid_client", "the secret is wrong")
        return web.json_response({"token_type": "Bearer", "id_token": self._sign(asked["nonce"])})

    def _sign(self, nonce: str) -> str:
        now_s = int(time.time())
        claims = {
            "iss": self.url,
            "sub": "person-7",
            "aud": CLIENT,
            "exp": now_s + 300,
            "iat": now_s,
            "nonce": nonce,
            "groups": ["reviewers"],
        } | self.claims
        claims = {name: value for name, value in claims.items() if value is not None}
        header = {"alg": self.algorithm, "kid": self.keys[0].kid}
        if self.algorithm in {"none", "HS256"}:
            # By hand: joserfc makes no such token.
            signed = ".".join(_base64(orjson.dumps(part)) for part in (header, claims))
            everybody_has = self.keys[0].as_pem(private=False)
            shared = hmac.digest(everybody_has, signed.encode(), "sha256")
            return f"{signed}.{_base64(shared) if self.algorithm == 'HS256' else ''}"
        return jwt.encode(header, claims, self.keys[0], algorithms=[self.algorithm])


@functools.cache
def _key(name: str) -> RSAKey:
    # A key takes a while to make.
    return RSAKey.generate_key(2048, {"kid": name, "use": "sig"})


def _base64(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).decode().rstrip("=")


def _error(name: str, words: str) -> web.Response:
    return web.json_response({"error": name, "error_description": words}, status=400)
