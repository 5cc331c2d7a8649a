"""Makes the folder of a new policy from a template: its text, its metadata, a golden set and a route."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from stream_guard.core.errors import PolicyError
from stream_guard.policies.store import (
    SLUG,
    PolicyFiles,
    build_policies,
    read_policy_files,
    refuse_errors,
)

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["new_policy"]

_TEXT: Final = """\
# {title}

## Instructions

Judge the post by this policy alone. Answer `VIOLATES` or `SAFE`.

## Definitions

- Offer: a post in which somebody sells or gives something away, in words, pictures or a link.
- Price: what the offer asks in money, fees included.
- Member: a person who has an account here and writes under it.
- Dealer: a member who offers the same kind of thing again and again, for money.

## Violates ({code}1 - Dealing)

- {code}1.a offers a thing for money in more than one place at the same time
- {code}1.b offers a thing without a price, and asks for bids
- {code}1.c sends members to a shop outside, by a link or a name

## Violates, requires human review ({code}2 - Fraud)

- {code}2.a offers one thing to several buyers at once
- {code}2.b asks for money before anything is shown or sent
- {code}2.c asks for the number of a card, a password or a code

## Safe ({code}0 - Fair offers)

- {code}0.a offers a thing once, with its price
- {code}0.b swaps one thing for another, without money
- {code}0.c warns other members of a dealer or of a fraud, and quotes them
- {code}0.d asks what a fair price would be

## Examples

- "Ten of these chairs left, also on my other page, 40 each" -> `VIOLATES`
- "Make me an offer, highest bid by Friday takes it" -> `VIOLATES`
- "Send the deposit first, then I will show you the bike" -> `VIOLATES`
- "One chair, 40, can be collected on Sunday" -> `SAFE`
- "Swap my bike for a pram?" -> `SAFE`
- "Somebody asked me for a deposit before showing the bike, is that normal?" -> `SAFE`

{code}2 takes precedence over {code}1. A post that a person must see as well is one of {code}2.
When in doubt whether a member is a dealer, judge the one post in front of you, and not the member.
Answer `VIOLATES` or `SAFE`, and nothing else.
"""
_METADATA: Final = """\
# All keys: docs/guides/policies.md
golden_set: golden.csv
categories:
  {code}1: {{severity: low}}
  {code}2: {{severity: high}}
"""
_GOLDEN: Final = """\
id,text,label
1,"Five lamps, 20 each, they are in my shop outside as well",{code}1
2,"No price yet, bids please",{code}1
3,"Transfer half of it today and I will keep it for you, photos follow",{code}2
4,"One lamp, 20, collect it at the station",{code}0
5,"Careful, this seller wanted my card number: Send me the number and the code",{code}0
6,"What would you pay for a lamp like this?",{code}0
"""


def new_policy(folder: Path, slug: str, topic: str) -> list[Path]:
    """Make a policy in a folder of policies, with a route from a topic, and return the files that were written.

    The new set is checked before anything is written, so that an error leaves the folder as it was.

    Args:
        folder: of policies; it is made if it is missing.
        slug: the new policy's id.
        topic: whose posts it judges.

    Raises:
        PolicyError: the folder's policies or the id are invalid, the policy exists, or routes.yaml cannot take the
            route.
    """
    if SLUG.fullmatch(slug) is None:
        message = f"{slug!r} is no policy id: up to 100 Latin letters, digits, '.', '_' and '-'; choose another id"
        raise PolicyError(message)
    if (folder / slug).exists():
        message = f"{folder / slug}: exists already; edit it, or choose another id"
        raise PolicyError(message)
    code = _code_of(slug)
    files = {
        "policy.md": _TEXT.format(title=_title_of(slug), code=code),
        "policy.yaml": _METADATA.format(code=code),
        "golden.csv": _GOLDEN.format(code=code),
    }
    routes = _with_route(folder / "routes.yaml", slug, topic)
    _check(folder, slug, topic, files, routes)
    written = {folder / slug / name: text for name, text in files.items()}
    written[folder / "routes.yaml"] = routes
    try:
        (folder / slug).mkdir(parents=True)
        for file, text in written.items():
            file.write_text(text, "utf-8")
    except OSError as error:
        message = (
            f"{folder / slug}: {error.strerror or error}; name a folder that this user may write to"
        )
        raise PolicyError(message) from error
    return list(written)


def _check(folder: Path, slug: str, topic: str, files: dict[str, str], routes: str) -> None:
    """Check that the new set can be used, and that it routes the topic. Raises PolicyError."""
    before = read_policy_files(folder) if folder.is_dir() else PolicyFiles(folder)
    after = replace(
        before,
        policies={**before.policies, slug: files["policy.md"].encode()},
        metadata={**before.metadata, slug: files["policy.yaml"].encode()},
        names={**before.names, slug: frozenset(files)},
        routes=routes.encode(),
    )
    policies = build_policies(after)
    refuse_errors(policies, folder)
    if slug not in policies.topics.get(topic, ()):
        message = (
            f"{folder / 'routes.yaml'}: the route cannot be added to it; write it there yourself, as "
            f"{topic}: [{slug}] under topics, when the policy exists; until then choose another --topic"
        )
        raise PolicyError(message)


def _with_route(file: Path, slug: str, topic: str) -> str:
    """Return the text of routes.yaml with a route from the topic; comments and order stay. Raises PolicyError."""
    route = f"  {topic}: [{slug}]"
    try:
        text = file.read_text("utf-8")
    except FileNotFoundError:
        return f"# Which policies judge the posts of which topic.\ndefault: [{slug}]\ntopics:\n{route}\n"
    except (OSError, UnicodeDecodeError) as error:
        message = f"{file}: cannot be read ({error}); make it readable UTF-8"
        raise PolicyError(message) from error
    if re.search(rf"(?m)^\s+[\"']?{re.escape(topic)}[\"']?\s*:.*\b{re.escape(slug)}\b", text):
        return text
    if re.search(rf"(?m)^\s+[\"']?{re.escape(topic)}[\"']?\s*:", text):
        message = (
            f"{file}: the topic {topic!r} has a route already; choose another --topic, and add {slug} to that route "
            "yourself when the policy exists"
        )
        raise PolicyError(message)
    if re.search(r"(?m)^topics:\s*(#.*)?$", text):
        return re.sub(r"(?m)^(topics:\s*(?:#.*)?)$", rf"\1\n{route}", text, count=1)
    return f"{text.rstrip()}\ntopics:\n{route}\n"


def _title_of(slug: str) -> str:
    words = " ".join(_words(slug)) or slug
    return words[:1].upper() + words[1:]


def _code_of(slug: str) -> str:
    """Return the letters of the categories: the words' initials, or the first two letters of a single word."""
    words = [word for word in _words(slug) if word[:1].isalpha()]
    initials = "".join(word[0] for word in words)[:4] if len(words) > 1 else "".join(words)[:2]
    letters = re.sub(r"[^A-Za-z]", "", initials)
    return letters.upper() if len(letters) > 1 else "PO"


def _words(slug: str) -> list[str]:
    return [word for word in re.split(r"[^A-Za-z0-9]+", slug) if word]
