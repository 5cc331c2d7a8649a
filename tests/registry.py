"""A stand-in for a schema registry: Confluent's REST API over real HTTP, in a thread, with schemas in memory.

It is not Confluent's program. Its paths, bodies and error codes follow Confluent's API reference. What it does not do:
subjects are never deleted, Avro alone is checked for compatibility, and a schema of Protobuf that was registered as a
descriptor is never given back as text.
"""

# ruff: noqa: ANN401 - JSON documents of any form

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import tempfile
import threading
import uuid
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, unquote, urlsplit

import grpc_tools
from avro.compatibility import ReaderWriterCompatibilityChecker, SchemaCompatibilityType
from avro.schema import parse
from google.protobuf import descriptor_pb2
from grpc_tools import protoc

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Iterator

TYPE = "application/vnd.schemaregistry.v1+json"


class RefusedError(Exception):
    """An answer that is an error: an HTTP status, an error code and a message."""

    def __init__(self, status: int, code: int, message: str) -> None:
        super().__init__(message)
        self.status, self.code, self.message = status, code, message


@dataclass
class Registry:
    """What is registered, and how the server behaves.

    Attributes:
        authorization: the header that requests must have; None for any.
        failing: the HTTP status of every answer; None while the registry is well.
        requests: the method and path of each request, in order.
    """

    authorization: str | None = None
    failing: int | None = None
    compatibility: str = "BACKWARD"
    schemas: list[dict[str, Any]] = field(default_factory=list)
    subjects: dict[str, list[int]] = field(default_factory=dict)
    requests: list[str] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def register(
        self,
        subject: str,
        schema: Any,
        kind: str = "AVRO",
        references: list[dict[str, Any]] | None = None,
    ) -> int:
        """Register a schema as a client would; return its id."""
        text = schema if isinstance(schema, str) else json.dumps(schema)
        document: dict[str, Any] = {"schema": text, "schemaType": kind}
        if references:
            document["references"] = references
        with self.lock:
            return int(self._register(subject, document)["id"])

    def guid(self, schema_id: int) -> uuid.UUID:
        """Return the GUID of a schema, which depends on its content alone."""
        return uuid.UUID(_guid(self.schemas[schema_id - 1]))

    def serve(self, method: str, target: str, body: Any, authorization: str | None) -> Any:
        """Return the body of an answer, as the registry is now; raises RefusedError."""
        self.requests.append(f"{method} {target}")
        if self.failing is not None:
            raise RefusedError(self.failing, 50001, "Error in the backend datastore")
        if self.authorization not in (None, authorization):
            raise RefusedError(401, 401, "Unauthorized")
        return self.answer(method, target, body)

    def answer(self, method: str, target: str, body: Any) -> Any:
        """Return the body of an answer; raises RefusedError."""
        address = urlsplit(target)
        parts = [unquote(part) for part in address.path.strip("/").split("/") if part]
        form = parse_qs(address.query).get("format", [""])[0]
        route = "/".join(
            [method, *parts[:1], *("*" if at % 2 else part for at, part in enumerate(parts[1:], 1))]
        )
        if parts[:1] == ["schemas"]:
            return self._schemas(parts[1:], form)
        if parts[:1] == ["config"]:
            return self._config(body)
        if parts[:2] == ["compatibility", "subjects"] and parts[3:] == ["versions"]:
            return self._compatibility(parts[2], body)
        routes: dict[str, Callable[[], Any]] = {
            "GET/subjects": lambda: sorted(self.subjects),
            "GET/subjects/*/versions": lambda: [*range(1, len(self._versions(parts[1])) + 1)],
            "GET/subjects/*/versions/*": lambda: self._version(parts[1], parts[3], form),
            "POST/subjects/*/versions": lambda: self._register(parts[1], body),
            "POST/subjects/*": lambda: self._look_up(parts[1], body),
        }
        if route not in routes:
            raise _no_path()
        return routes[route]()

    def _compatibility(self, subject: str, body: dict[str, Any]) -> dict[str, bool]:
        latest = self.schemas[self._versions(subject)[-1] - 1]
        try:
            self._check_compatible(subject, {"schemaType": "AVRO", **body}, latest)
        except RefusedError:
            return {"is_compatible": False}
        return {"is_compatible": True}

    def _schemas(self, parts: list[str], form: str) -> Any:
        if parts == ["types"]:
            return ["JSON", "PROTOBUF", "AVRO"]
        kind, name = parts if len(parts) == 2 else ("", "")
        if kind not in ("ids", "guids"):
            raise _no_path()
        for number, schema in enumerate(self.schemas, 1):
            if name == (str(number) if kind == "ids" else _guid(schema)):
                return self._shown(number, form)
        raise RefusedError(404, 40403, "Schema not found")

    def _config(self, body: Any) -> dict[str, str]:
        if body is None:
            return {"compatibilityLevel": self.compatibility}
        self.compatibility = body["compatibility"]
        return {"compatibility": self.compatibility}

    def _versions(self, subject: str) -> list[int]:
        if subject not in self.subjects:
            raise RefusedError(404, 40401, f"Subject '{subject}' not found.")
        return self.subjects[subject]

    def _version(self, subject: str, version: str, form: str) -> dict[str, Any]:
        ids = self._versions(subject)
        number = len(ids) if version in ("latest", "-1") else int(version)
        if not 0 < number <= len(ids):
            raise RefusedError(404, 40402, "Version not found.")
        shown = self._shown(ids[number - 1], form)
        return {"subject": subject, "version": number, "id": ids[number - 1], **shown}

    def _shown(self, number: int, form: str) -> dict[str, Any]:
        schema = self.schemas[number - 1]
        kind = schema.get("schemaType", "AVRO")
        shown = {**schema, "guid": _guid(schema)}
        if kind == "AVRO":
            shown.pop("schemaType", None)  # as Confluent's own answers
        if form == "serialized":
            if kind != "PROTOBUF":
                raise RefusedError(422, 42201, "Unsupported format serialized")
            shown["schema"] = base64.b64encode(self._compiled(schema).SerializeToString()).decode()
        return shown

    def _register(self, subject: str, body: dict[str, Any]) -> dict[str, Any]:
        schema = {
            "schema": body["schema"],
            "schemaType": body.get("schemaType") or "AVRO",
            **({"references": body["references"]} if body.get("references") else {}),
        }
        self._check(schema)
        ids = self.subjects.get(subject, [])
        known = schema in self.schemas
        number = (self.schemas.index(schema) if known else len(self.schemas)) + 1
        if number not in ids:
            if ids:
                self._check_compatible(subject, schema, self.schemas[ids[-1] - 1])
            if number > len(self.schemas):
                self.schemas.append(schema)
            self.subjects.setdefault(subject, []).append(number)
        return self._registered(subject, number)

    def _registered(self, subject: str, number: int) -> dict[str, Any]:
        version = self.subjects[subject].index(number) + 1
        schema = self.schemas[number - 1]
        return {
            "id": number,
            "version": version,
            "guid": _guid(schema),
            "subject": subject,
            **schema,
        }

    def _look_up(self, subject: str, body: dict[str, Any]) -> dict[str, Any]:
        for number in self._versions(subject):
            schema = self.schemas[number - 1]
            if schema["schema"] == body["schema"]:
                return self._registered(subject, number)
        raise RefusedError(404, 40403, "Schema not found")

    def _check(self, schema: dict[str, Any]) -> None:
        try:
            if schema["schemaType"] == "PROTOBUF":
                self._compiled(schema)
            elif schema["schemaType"] == "AVRO" and "references" not in schema:
                parse(schema["schema"])
            else:
                json.loads(schema["schema"])
        except Exception as error:
            raise RefusedError(422, 42201, f"Input schema is an invalid schema: {error}") from error

    def _check_compatible(self, subject: str, new: dict[str, Any], old: dict[str, Any]) -> None:
        if self.compatibility == "NONE" or new["schemaType"] != "AVRO" or "references" in new:
            return
        found = ReaderWriterCompatibilityChecker().get_compatibility(
            reader=parse(new["schema"]), writer=parse(old["schema"])
        )
        if found.compatibility is not SchemaCompatibilityType.compatible:
            message = f"Schema being registered is incompatible with an earlier schema for subject {subject}"
            raise RefusedError(409, 409, message)

    def _compiled(self, schema: dict[str, Any]) -> descriptor_pb2.FileDescriptorProto:
        """Return the descriptor of a schema of Protobuf, which was registered as text or as a descriptor."""
        with contextlib.suppress(Exception):
            return descriptor_pb2.FileDescriptorProto.FromString(
                base64.b64decode(schema["schema"], validate=True)
            )
        with tempfile.TemporaryDirectory() as folder:
            place = Path(folder)
            self._write("schema.proto", schema, place)
            well_known = Path(grpc_tools.__file__).parent / "_proto"
            out = place / "set.bin"
            if protoc.main(
                [
                    "protoc",
                    f"-I{place}",
                    f"-I{well_known}",
                    f"--descriptor_set_out={out}",
                    "schema.proto",
                ]
            ):
                raise RefusedError(422, 42201, "Input schema is an invalid Protobuf schema")
            return descriptor_pb2.FileDescriptorSet.FromString(out.read_bytes()).file[-1]

    def _write(self, name: str, schema: dict[str, Any], folder: Path) -> None:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(schema["schema"], "utf-8")
        for reference in schema.get("references", ()):
            number = self.subjects[reference["subject"]][reference["version"] - 1]
            self._write(reference["name"], self.schemas[number - 1], folder)


def _no_path() -> RefusedError:
    return RefusedError(404, 404, "HTTP 404 Not Found")


def _guid(schema: dict[str, Any]) -> str:
    return str(
        uuid.UUID(bytes=hashlib.md5(json.dumps(schema).encode(), usedforsecurity=False).digest())
    )


class RegistryServer:
    """Serves a registry; it can be stopped, and started again on its port.

    Args:
        registry: what it serves.
        tls: the server's context; None for plain HTTP.
    """

    def __init__(self, registry: Registry, tls: ssl.SSLContext | None = None) -> None:
        self.registry = registry
        self._tls = tls
        self._server: ThreadingHTTPServer | None = None
        self._port = 0

    @property
    def url(self) -> str:
        """The registry's URL."""
        return f"{'https' if self._tls else 'http'}://localhost:{self._port}"

    def start(self) -> None:
        """Listen."""
        registry = self.registry

        class Handler(_Handler):
            served = registry

        server = ThreadingHTTPServer(("127.0.0.1", self._port), Handler)
        server.daemon_threads = True
        if self._tls is not None:
            server.socket = self._tls.wrap_socket(server.socket, server_side=True)
        self._port = server.server_port
        self._server = server
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()

    def stop(self) -> None:
        """Close the port: connections are refused."""
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None


class _Handler(BaseHTTPRequestHandler):
    served: Registry

    def log_message(self, *_: Any) -> None:
        pass

    def _serve(self) -> None:
        registry = self.served
        length = int(self.headers.get("Content-Length") or 0)
        raw = self.rfile.read(length)
        status, document = 200, None
        try:
            with registry.lock:
                document = registry.serve(
                    self.command,
                    self.path,
                    json.loads(raw) if raw else None,
                    self.headers.get("Authorization"),
                )
        except RefusedError as error:
            status = error.status
            document = {"error_code": error.code, "message": error.message}
        body = json.dumps(document).encode()
        self.send_response(status)
        self.send_header("Content-Type", TYPE)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_GET = do_POST = do_PUT = _serve  # noqa: N815 - the server's own names


@contextlib.contextmanager
def start_registry(tls: ssl.SSLContext | None = None) -> Iterator[RegistryServer]:
    """Start a registry of its own; stop it at the end."""
    server = RegistryServer(Registry(), tls)
    server.start()
    try:
        yield server
    finally:
        server.stop()
