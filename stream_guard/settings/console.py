"""Settings of the console: pages in a browser."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, Field, PositiveInt, model_validator

from stream_guard.core.json_pointer import JsonPointer
from stream_guard.settings.section import Section


def _web_address(value: str) -> str:
    parts = urlsplit(value)
    if parts.scheme not in {"http", "https"} or not parts.hostname or parts.username is not None:
        raise ValueError("not an address such as https://console.example.org")
    return value


def _trace_address(value: str) -> str:
    if "{trace_id}" not in value:
        raise ValueError(
            "no {trace_id} in it, such as in https://traces.example.org/trace/{trace_id}"
        )
    return _web_address(value)


WebAddress = Annotated[str, AfterValidator(_web_address)]
TraceAddress = Annotated[str, AfterValidator(_trace_address)]
ConsoleRole = Literal["reviewer", "author", "lead", "read-only"]


def _pointer(value: object) -> object:
    if isinstance(value, str):
        JsonPointer(value)
    return value


_Pointer = Annotated[str, BeforeValidator(_pointer)]


class OidcSettings(Section):
    """Signing in at an issuer of OpenID Connect, beside tokens."""

    issuer: WebAddress | None = None
    """The issuer, as its own discovery document names it, such as ``https://login.example.org/realms/trust``. Unset:
    people sign in by tokens alone."""
    client_id: str = Field("stream-guard", min_length=1)
    """The console's name at the issuer."""
    client_secret_file: Path | None = None
    """A file with the client's secret; read for each sign-in, so it may rotate. Unset: the client is a public one, and
    PKCE alone protects the code."""
    scopes: tuple[str, ...] = ("openid", "profile")
    """What is asked for; ``openid`` must be among it."""
    redirect_url: WebAddress | None = None
    """Where the issuer sends people back to; register it there. Unset: ``/sign-in/oidc/done`` at
    ``console.public_url``, or at the address of the request on this machine."""
    role_claim: _Pointer = "/groups"
    """A JSON pointer to the claim of the ID token that says what a person may do: a text or a list of texts, such as
    ``/realm_access/roles``."""
    roles: dict[str, ConsoleRole] = Field(default_factory=dict)
    """Which role a value of that claim stands for. Example: ``{"trust-leads": "lead"}``. If a person has several,
    the highest counts: lead, author, reviewer, read-only. The order here does not matter. Who has none is refused."""
    name_claim: _Pointer = "/sub"
    """A JSON pointer to the claim that is a person's pseudonym in decisions and logs. Choose one that people cannot set
    themselves. A digest of issuer and subject replaces what is unfit for a pseudonym, such as a name with spaces."""
    timeout_s: float = Field(10.0, gt=0)
    """How long the issuer may take to answer, in s."""

    @model_validator(mode="after")
    def _complete(self) -> OidcSettings:
        if self.issuer is None:
            return self
        for address in (self.issuer, self.redirect_url):
            if address is not None and not is_safe_address(address):
                raise ValueError(f"{address} must begin with https://, unless it is this machine")
        if "openid" not in self.scopes:
            raise ValueError("scopes must have openid")
        if not self.roles:
            raise ValueError('roles is empty: say who may do what, as in {"trust-leads": "lead"}')
        return self


def is_safe_address(address: str) -> bool:
    """Return whether a web address is one of TLS or of this machine."""
    parts = urlsplit(address)
    return parts.scheme == "https" or (
        parts.scheme == "http" and parts.hostname in {"localhost", "127.0.0.1", "::1"}
    )


class ConsoleSettings(Section):
    """The pages that ``stream-guard console`` serves."""

    host: str = "127.0.0.1"
    """The address to listen on: this machine alone by default. Another one needs ``console.tokens_file``. The console
    has no TLS of its own: put a proxy in front of it."""
    port: int = Field(8_095, ge=0, le=65_535)
    """The port; 0 takes a free one."""
    public_url: WebAddress | None = None
    """The address that people type, such as ``https://console.example.org``, if a proxy is in front. Requests that
    name another host are refused. With ``https``, cookies are sent over TLS alone."""
    connections_max: int = Field(512, ge=1)
    """Most open connections. A further one closes the connection that has been longest without a request. Each open
    page takes one."""
    tokens_file: Path | None = None
    """A file with one ``ROLE PSEUDONYM TOKEN`` a line; the role is reviewer, author, lead or read-only. Tokens have at
    least 32 characters. Unset, on this machine alone: the command prints an address with a token of its own, which
    has the role lead."""
    oidc: OidcSettings = OidcSettings()
    """Signing in by OpenID Connect."""
    session_lifetime_s: float = Field(28_800.0, gt=0)
    """How long a person stays signed in, in s. A restart of the console signs everybody out."""
    metrics_urls: list[WebAddress] = Field(
        default_factory=lambda: ["http://127.0.0.1:8080/metrics"]
    )
    """The replicas' addresses of metrics. A URL whose host name has several addresses stands for all of them, as that
    of a headless service does in Kubernetes."""
    metrics_interval_s: float = Field(1.0, gt=0)
    """How often the metrics are read, in s."""
    guide_url: WebAddress | None = None
    """Where this documentation is published for your people, such as ``https://docs.example.org``. Faults on
    the page Now then lead to the guide that says what to do. Unset: they name the guide."""
    trace_url: TraceAddress | None = None
    """Where a trace is shown, such as ``https://traces.example.org/trace/{trace_id}``. Verdicts then lead to their
    trace. Unset: they name its id."""
    feed_verdicts_max: int = Field(20, ge=0, le=200)
    """Most verdicts that the page Now shows: a sample of the latest. 0: none, and the console reads the topic for
    searches alone."""
    search_records_max: int = Field(50_000, ge=1, le=10_000_000)
    """Most records of the verdict topic that one search reads, the newest of its range. The page says how many it left
    out."""
    search_timeout_s: float = Field(20.0, gt=0, le=600)
    """How long one search may read, in s. The page shows the verdicts found until then."""
    engine: Literal["studio", "own"] = "studio"
    """What judges posts on which an author tries a draft. ``studio``: the engine that ``stream-guard studio`` keeps for
    this user; without one, nothing can be tried. ``own``: the studio if one runs, else an engine in this process, by
    the section ``engine``; it starts when somebody first needs it."""
    engine_idle_timeout_s: float = Field(900.0, gt=0)
    """With ``engine = "own"``: the engine ends after this long without work, in s."""
    try_posts_max: int = Field(200, ge=1, le=10_000)
    """Most posts on which a draft is tried at once."""
    work_timeout_s: float = Field(1_800.0, gt=0)
    """How long trying or measuring a draft may take, in s, with the engine's start."""
    commit: bool = False
    """Whether a version that goes live is committed, too, in the git checkout that holds ``policies.path``. It needs
    the program ``git``. Nothing is pushed."""
    topics_read_max: int = Field(2_000, ge=1, le=100_000)
    """Most offsets of a topic that the pages Dead letters and Audit read: the latest ones. The pages say how many
    they did not read."""
    topics_interval_s: float = Field(3.0, gt=0)
    """How often these topics are read, in s, while somebody looks at the page."""
    dsa_mapping: Path | None = None
    """The mapping file of the page Audit's export of statements for the DSA, as ``stream-guard export dsa --mapping``
    takes it. Unset: the page exports nothing."""
    export_offsets_max: int = Field(100_000, ge=1)
    """Most offsets of the verdict topic in one export of the page Audit."""
    review_blur: Literal["harmful", "always", "never"] = "harmful"
    """Which posts are blurred on the page Review until the reviewer asks for them: ``harmful`` is all of which the
    machine did not say that they are safe."""
    review_break_items: int = Field(50, ge=1)
    """After so many items in a row a reviewer takes a break."""
    review_break_after_s: float = Field(3_600.0, gt=0)
    """After so much time of reviewing a reviewer takes a break, in s."""
    review_break_s: float = Field(600.0, ge=0)
    """How long a break is, in s. A pause of this length is one, too. 0: no breaks."""
    review_exposure_max: dict[str, dict[str, PositiveInt]] = Field(default_factory=dict)
    """Most items of a category that one reviewer gets within ``console.review_exposure_s``, by policy and category;
    ``*`` stands for the rest. Example: ``{"*": {"*": 200}, "dangerous-content": {"S4": 20}}``. Empty: no limit."""
    review_exposure_s: float = Field(86_400.0, gt=0)
    """The time over which the items of a category are counted, in s."""
    review_undo_s: float = Field(120.0, ge=0)
    """How long a reviewer may take a decision back, in s."""
