"""``stream-guard config``."""

from __future__ import annotations

from typing import Annotated

import typer

from stream_guard.cli.options import ConfigOption
from stream_guard.cli.terminal import write_json
from stream_guard.core.secrets import mask_fields
from stream_guard.settings import Settings, load_settings


def show_config(
    config: ConfigOption = None,
    *,
    schema: Annotated[
        bool, typer.Option("--schema", help="Print the JSON Schema of the settings instead.")
    ] = False,
) -> None:
    """Print the settings in force as JSON; secrets are masked."""
    if schema:
        write_json(Settings.model_json_schema())
    else:
        write_json(mask_fields(load_settings(config).model_dump(mode="json")))
