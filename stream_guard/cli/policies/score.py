"""``stream-guard policies score``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from stream_guard.cli.options import ConfigOption, PostTopicOption
from stream_guard.cli.posts import read_lines, settings_of_topic
from stream_guard.cli.terminal import say
from stream_guard.core.errors import RecordError
from stream_guard.records.post import PostParser
from stream_guard.settings import load_settings


def score(
    classifier: Annotated[
        str, typer.Argument(metavar="CLASSIFIER", help="builtin:NAME, or a folder.")
    ],
    file: Annotated[
        Path | None,
        typer.Argument(metavar="FILE.jsonl", help="Posts, a record's value a line."),
    ] = None,
    config: ConfigOption = None,
    topic: PostTopicOption = None,
) -> None:
    """Load a classifier and print the probability that it gives each post of a file."""
    from stream_guard.judging.tiers.classifier.files import classifier_folder
    from stream_guard.judging.tiers.classifier.model import load_classifier
    from stream_guard.judging.tiers.classifier.tier import scored_text

    settings = load_settings(config)
    model = load_classifier(
        classifier_folder(classifier, Path()), threads=settings.cascade.classifier_threads
    )
    say(f"{model.label}: loaded and tried")
    parser = PostParser(settings_of_topic(settings, topic))
    for number, line in [] if file is None else read_lines(file):
        try:
            post = parser.parse(line, ())
        except RecordError as error:
            say(f"line {number}: would be a dead letter: {error}")
            continue
        (found,) = model.score([scored_text(post)])
        shown = "no score" if found.probability is None else f"{found.probability:.4f}"
        cut = " (the end was cut off)" if found.truncated else ""
        say(f"line {number}: {post.id}: {shown}{cut}")
