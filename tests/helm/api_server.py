"""A Kubernetes API server that knows one StatefulSet, for charts that look the cluster up."""

from __future__ import annotations

import contextlib
import http.server
import json
import threading
from typing import TYPE_CHECKING, Any

from tests.helm.chart import CHART, KUBERNETES, NAMESPACE, RELEASE, options_of, run_helm

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from tests.helm.chart import Object

_STATEFUL_SETS = "/apis/apps/v1/namespaces/{}/statefulsets/{}"
_RESOURCE = {
    "name": "statefulsets",
    "singularName": "statefulset",
    "namespaced": True,
    "kind": "StatefulSet",
    "verbs": ["get", "list"],
}


def _answers(live: Object) -> dict[str, Object]:
    """Return what the server answers, by path: its discovery, and the one object."""
    major, minor, _ = KUBERNETES.split(".")
    group = {"groupVersion": "apps/v1", "version": "v1"}
    path = _STATEFUL_SETS.format(NAMESPACE, live["metadata"]["name"])
    return {
        "/version": {"major": major, "minor": minor, "gitVersion": f"v{KUBERNETES}"},
        "/api": {"kind": "APIVersions", "versions": ["v1"]},
        "/api/v1": {"kind": "APIResourceList", "groupVersion": "v1", "resources": []},
        "/apis": {
            "kind": "APIGroupList",
            "apiVersion": "v1",
            "groups": [{"name": "apps", "versions": [group], "preferredVersion": group}],
        },
        "/apis/apps/v1": {
            "kind": "APIResourceList",
            "apiVersion": "v1",
            "groupVersion": "apps/v1",
            "resources": [_RESOURCE],
        },
        path: live,
    }


@contextlib.contextmanager
def cluster_with(live: Object, folder: Path) -> Iterator[Path]:
    """Serve a cluster; gives its kubeconfig.

    Args:
        live: the StatefulSet that it holds.
        folder: where the kubeconfig is written.
    """
    answers = _answers(live)

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            found = answers.get(self.path.partition("?")[0])
            body = json.dumps(
                found or {"kind": "Status", "status": "Failure", "reason": "NotFound", "code": 404}
            ).encode()
            self.send_response(200 if found else 404)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Print nothing."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        config = folder / "kubeconfig"
        named = {"name": "x"}
        url = f"http://127.0.0.1:{server.server_address[1]}"
        config.write_text(
            json.dumps(
                {
                    "apiVersion": "v1",
                    "kind": "Config",
                    "clusters": [{**named, "cluster": {"server": url}}],
                    "users": [{**named, "user": {}}],
                    "contexts": [{**named, "context": {"cluster": "x", "user": "x"}}],
                    "current-context": "x",
                }
            )
        )
        try:
            yield config
        finally:
            server.shutdown()
            thread.join()


def template_on(
    config: Path, *files: Path, values: Mapping[str, Any] | None = None
) -> subprocess.CompletedProcess[str]:
    """Render the chart as an upgrade of what the cluster holds."""
    asked = ["--dry-run=server", "--kubeconfig", str(config), "--is-upgrade"]
    return run_helm("template", RELEASE, CHART, *asked, *options_of(files, values))
