"""Writes the program's settings into the chart's ``values.schema.json``: as ``config``, and the console's as its own.

Run it with ``make chart`` after a setting was added or removed; a test fails until then. Settings that the chart sets
itself are left out, so that nothing can be set in two places.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from stream_guard.settings import Settings

ROOT = Path(__file__).resolve().parent.parent
SCHEMA = ROOT / "helm" / "stream-guard" / "values.schema.json"

# Settings that have a value of the chart's own, or must be what its templates assume.
OWNED = {
    "kafka": {
        "bootstrap_servers",
        "topics",
        "topic_pattern",
        "group_id",
        "group_instance_id",
        "security",
    },
    "policies": {"path"},
    "engine": {"model"},
    "http": {"host"},
}
# Sections that no replica reads: the console has a pod of its own, and its settings a place of their own.
FOREIGN = {"console", "studio"}
CONSOLE_OWNED = {"host", "port", "public_url", "tokens_file", "metrics_urls"}
# Secrets belong into a Secret, not into values: `extraEnv` takes them from there, or a file of `extraVolumes`.
SECRET = {"registry": {"password", "bearer_token", "ssl_key_password"}}


def config_schema() -> dict[str, Any]:
    """Return the JSON Schema of ``config``: sections of settings, without those in OWNED and SECRET."""
    document = Settings.model_json_schema()
    definitions = document["$defs"]
    sections = {}
    for name, section in document["properties"].items():
        if name in FOREIGN:
            continue
        schema = _inlined(section, definitions)
        for owned in OWNED.get(name, set()) | SECRET.get(name, set()):
            del schema["properties"][owned]
        sections[name] = schema
    return {"type": "object", "additionalProperties": False, "properties": sections}


def console_schema() -> dict[str, Any]:
    """Return the JSON Schema of ``console.settings``: the section ``console``, without what the chart sets itself."""
    document = Settings.model_json_schema()
    schema: dict[str, Any] = _inlined(document["properties"]["console"], document["$defs"])
    for owned in CONSOLE_OWNED:
        del schema["properties"][owned]
    del schema["properties"]["oidc"]["properties"]["client_secret_file"]
    return schema


def _inlined(node: Any, definitions: dict[str, Any]) -> Any:
    """Return a schema with its references replaced, and without titles and defaults: Helm's values carry those."""
    if isinstance(node, list):
        return [_inlined(item, definitions) for item in node]
    if not isinstance(node, dict):
        return node
    if "$ref" in node:
        node = {**definitions[node["$ref"].rsplit("/", 1)[1]], **node}
        del node["$ref"]
    made = {}
    for key, value in node.items():
        if key == "properties":
            made[key] = {name: _inlined(child, definitions) for name, child in value.items()}
        elif key not in {"title", "default"}:
            made[key] = _inlined(value, definitions)
    return made


def main() -> None:
    """Rewrite the file."""
    schema = json.loads(SCHEMA.read_text("utf-8"))
    schema["properties"]["config"] = config_schema()
    schema["properties"]["console"]["properties"]["settings"] = console_schema()
    SCHEMA.write_text(json.dumps(schema, indent=2) + "\n", "utf-8")


if __name__ == "__main__":
    main()
