"""Words for which there is a plainer one stand nowhere: not in the package, the pages, the chart or the tools.

``python -m tools.sentences --banned`` lists them, and ``--long`` lists long sentences, which no test limits.
"""

from __future__ import annotations

from tools.sentences import banned


def test_only_plain_words_are_used() -> None:
    assert [f"{sentence.place}: {word!r}" for sentence, word in banned()] == []
