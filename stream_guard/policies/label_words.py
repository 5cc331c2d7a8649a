"""Lists the words that are labels by custom, in several languages, and says what each means. Pure."""

from __future__ import annotations

import re
from typing import Final

__all__ = ["escalates", "is_for_people", "is_label_word", "label_kind", "label_stance"]

# Words that are labels by themselves. One language a line.
_VIOLATES_WORDS: Final = frozenset(
    word.casefold()
    for word in (  # noqa: SIM905 - a line for each language
        "invalid violates violation violating violated violate in_violation 1 yes true unsafe disallowed "
        "disallow block blocked remove removed reject rejected deny denied flag flagged harmful spam toxic bad "
        "prohibited forbidden noncompliant non-compliant not_allowed not_ok fail "
        "verstoß verstösst verstößt verboten unzulässig löschen entfernen sperren supprimer bloquer eliminar bloquear "
        "infraction interdit infracción infringe enfreint prohibido prohibida viola violación "
        "violação proibido proibida bloquear remover violazione vietato rimuovere "
        "narusza naruszenie niedozwolone zabronione usuń overtreding verboden ihlal yasak bryter förbjudet "
        "違反 禁止 削除 违规 违反 删除 위반 금지 삭제 нарушение нарушает запрещено порушення порушує заборонено "
        "مخالف انتهاك محظور उल्लंघन"
    ).split()
)
_SAFE_WORDS: Final = frozenset(
    word.casefold()
    for word in (  # noqa: SIM905 - a line for each language
        "valid safe 0 no false allowed allow ok okay none keep pass approve approved accept accepted permit "
        "permitted harmless ham benign good clean compliant legit legitimate no_violation not_violating "
        "non-violating nonviolating non_violating not_violation "
        "erlaubt zulässig sicher behalten unbedenklich conforme autorisé autorisée permis permise sûr "
        "permitido permitida seguro segura no_viola aceptable não_viola sem_violação permesso consentito sicuro "
        "dozwolone dopuszczalne bezpieczne zgodne toegestaan veilig ihlal_yok güvenli uygun tillåtet "
        "安全 許可 問題なし 許容 合规 正常 允许 不违规 정상 허용 안전 "
        "норма допустимо безопасно разрешено дозволено безпечно مسموح آمن सुरक्षित"
    ).split()
)
_PHRASES: Final = {
    "not violating": False,
    "no violation": False,
    "does not violate": False,
    "not allowed": True,
}
# The instruction, not the noun: "escalation of violence" is what a category may be about.
_ESCALATES: Final = re.compile(
    r"\bESCALATE\b|(?i:(?:[-\u2013\u2014+(/,;&]\s*|\band\s+)escalate\b|\bescalated?\s+(?:to|for)\b"
    r"|(?:human|manual)\s+(?:review|moderation)|\breview\s+by\s+(?:a\s+)?(?:human|person|people)"
    r"|an einen menschen|menschliche\w*\s+prüfung|revisión humana|examen humain)"
)
# One language a line.
_ESCALATION_WORDS: Final = frozenset(
    word.casefold()
    for word in (  # noqa: SIM905 - a line for each language
        "escalate escalated escalation review needs_review human_review manual_review unsure uncertain unclear "
        "borderline ambiguous undetermined unknown cannot_determine not_sure undecided needs_context "
        "insufficient_context needs_info maybe refer "
        "eskalieren eskaliert eskalation prüfen prüfung unklar "
        "escalader escalade vérifier examiner réviser incertain "
        "escalar escalado revisar revisión dudoso incierto "
        "eskaluj weryfikacja escaleren revisione verificare "
        "エスカレーション 要確認 保留 人工审核 待审 검토 эскалация проверить"
    ).split()
)
"""Words that leave the decision to people."""
_ACTION_WORDS: Final = frozenset(
    (  # noqa: SIM905 - a line for each language
        "remove block reject ban suspend quarantine age_gate age-gate age_restrict age_restricted restrict restricted "
        "demote downrank limit warn warning blur hide "
        "entfernen sperren einschränken altersbeschränkung warnung "
        "supprimer bloquer restreindre avertir eliminar bloquear restringir advertir"
    ).split()
)
"""Words for what becomes of a post that is not left as it is."""


def label_stance(word: str) -> bool | None:
    """Return True for a label word that says violating, False for safe, None for any other word."""
    folded = word.casefold()
    if folded in _PHRASES:
        return _PHRASES[folded]
    if folded in _VIOLATES_WORDS:
        return True
    return False if folded in _SAFE_WORDS else None


def escalates(words: str) -> bool:
    """Return whether words send an item to people: ``INVALID + ESCALATE``, ``requires human review``."""
    return _ESCALATES.search(words) is not None


def is_label_word(word: str) -> bool:
    """Return whether a word is a label by custom: of either stance, for people, or an action."""
    return label_stance(word) is not None or label_kind(word) is not None


def is_for_people(word: str) -> bool:
    """Return whether a label leaves the decision to people."""
    return word.casefold() in _ESCALATION_WORDS


def label_kind(word: str) -> bool | None:
    """Return True for a word that leaves the decision to people, False for an action, None for any other."""
    if is_for_people(word):
        return True
    return False if word.casefold() in _ACTION_WORDS else None
