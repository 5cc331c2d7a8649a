"""Finds and reads the files of ``engine.model``, in a folder or on a hub. Imports neither vLLM nor transformers."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson

from stream_guard.core.errors import EngineError

if TYPE_CHECKING:
    from stream_guard.settings import EngineSettings

__all__ = ["model_file", "read_config", "tokenizer_sha256"]


def model_file(settings: EngineSettings, name: str) -> Path:
    """Return the path of one of the model's files; downloads it from the hub if the model is no folder.

    Raises:
        EngineError: the file is missing, or the hub cannot be reached.
    """
    model = settings.model
    folder = Path(model).expanduser()
    if folder.is_dir():
        path = folder / name
        if not path.is_file():
            message = f"engine.model: {model} has no {name}; is it a model's folder?"
            raise EngineError(message)
        return path
    if model.startswith(("/", ".", "~")):
        message = (
            f"engine.model: {model} is not a folder; give a model's folder, or its name on a hub"
        )
        raise EngineError(message)
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        return Path(hf_hub_download(model, name, revision=settings.revision))
    except HFValidationError as error:
        message = f"engine.model: {model!r} is neither a folder nor a model's name on a hub"
        raise EngineError(message) from error
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        revision = f" at revision {settings.revision}" if settings.revision else ""
        message = (
            f"engine.model: cannot download {name} of {model}{revision} ({type(error).__name__}); "
            "check the name, the network and HF_TOKEN, or give a folder"
        )
        raise EngineError(message) from error


def tokenizer_sha256(settings: EngineSettings) -> str:
    """Return the hex digest of the model's ``tokenizer.json``. Raises EngineError as :func:`model_file`."""
    return hashlib.sha256(model_file(settings, "tokenizer.json").read_bytes()).hexdigest()


def read_config(settings: EngineSettings) -> dict[str, Any]:
    """Return the model's ``config.json``, whose ``architectures`` is a list of names.

    Raises:
        EngineError: it is missing, or is not a model's configuration.
    """
    path = model_file(settings, "config.json")
    try:
        config = orjson.loads(path.read_bytes())
        config["architectures"] = list(config["architectures"])
    except (orjson.JSONDecodeError, KeyError, TypeError) as error:
        message = f"engine.model: {path} is not a model's config.json"
        raise EngineError(message) from error
    return dict(config)
