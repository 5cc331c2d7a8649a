"""The classifier tier: compares a small model's probability with the two thresholds that a policy declares.

Below the first threshold a post is safe, above the second it violates. Between them, ends included, the next tier
decides. A policy without thresholds is not screened. A text that was cut is never settled as safe. The policy declares
the category.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal, NamedTuple

from stream_guard.core.errors import PolicyError, SettingsError
from stream_guard.judging.contract import Answer
from stream_guard.judging.tiers.classifier.files import classifier_folder, read_classifier_files
from stream_guard.judging.tiers.classifier.model import ClassifierModel, load_classifier
from stream_guard.judging.tiers.tier import Escalated, Settled, with_threads

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from stream_guard.judging.tiers.classifier.model import Score
    from stream_guard.judging.tiers.tier import Outcome
    from stream_guard.policies.policy import Policy, PolicySet
    from stream_guard.records.post import Post

__all__ = ["ClassifierTier", "decide", "scored_text", "violating_category"]

_SETTING: Final = "cascade.classifier"


class _Ambiguous(NamedTuple):
    """A post would violate, and nobody said in which of several categories."""


_AMBIGUOUS: Final = _Ambiguous()


class ClassifierTier:
    """See :class:`stream_guard.judging.tiers.tier.CheapTier`.

    Args:
        default: the classifier of policies with thresholds that name none: ``builtin:NAME`` or a folder, from the
            working directory.
        threads: that one run may use.

    Raises:
        SettingsError: the default cannot be used; names the setting, the file and the remedy.
    """

    name: Final = "classifier"
    blocking: Final = True

    def __init__(self, default: str | None = None, *, threads: int = 1) -> None:
        self._default = default
        self._threads = threads
        # By folder. Replaced whole, so that the thread that looks sees one state or the other.
        self._models: Mapping[Path, ClassifierModel] = {}
        self._current: frozenset[Path] = frozenset()
        if default is not None:
            try:
                folder = classifier_folder(default, Path())
                self._models = {folder: load_classifier(folder, threads=threads)}
            except PolicyError as error:
                message = f"{_SETTING}: {error}"
                raise SettingsError(message) from error
            self._current = frozenset(self._models)

    def prepare(self, policies: PolicySet) -> None:
        """Load the classifiers that these policies ask.

        Those of the set before are kept for posts in flight; older ones are dropped.

        Raises:
            PolicyError: one cannot be used, or a policy has thresholds and nobody named a classifier.
        """
        needed: dict[Path, ClassifierModel] = {}
        for policy in policies.policies.values():
            if not _asks(policy):
                continue
            try:
                folder = self._folder(policy)
                if folder not in needed:
                    needed[folder] = self._load(folder)
            except PolicyError as error:
                message = f"{self._namer(policy)}: {error}"
                raise PolicyError(message) from error
        if self._default is not None:
            folder = classifier_folder(self._default, Path())
            needed.setdefault(folder, self._models[folder])
        kept = {folder: self._models[folder] for folder in self._current if folder in self._models}
        self._models = kept | needed
        self._current = frozenset(needed)

    def wants(self, policy: Policy) -> bool:
        """Return whether the policy has thresholds."""
        return policy.thresholds is not None

    def screen(self, posts: Sequence[Post], policy: Policy) -> Sequence[Outcome]:
        """Return one outcome per post, in their order; never raises on account of a post."""
        if policy.thresholds is None:
            return [Escalated("no_thresholds")] * len(posts)
        model = self._model(policy)
        if model is None:
            return [Escalated("no_classifier")] * len(posts)
        scores = model.score([scored_text(post) for post in posts])
        outcomes = [decide(score, policy, model) for score in scores]
        return with_threads(outcomes, posts, policy)

    def _namer(self, policy: Policy) -> str:
        named_here = policy.classifier is not None or self._default is None
        where = Path(policy.folder) / "policy.yaml" if policy.folder else f"policy {policy.id}"
        return f"{where}: {'classifier' if named_here else _SETTING}"

    def _folder(self, policy: Policy) -> Path:
        """Return the folder of a policy's classifier. Raises PolicyError where nobody named one."""
        if policy.classifier is not None:
            return classifier_folder(policy.classifier, Path(policy.folder))
        if self._default is None:
            message = (
                "there are thresholds, and no classifier is named; name one, for example "
                f"classifier: builtin:toxicity, or set {_SETTING}; or remove the thresholds"
            )
            raise PolicyError(message)
        return classifier_folder(self._default, Path())

    def _load(self, folder: Path) -> ClassifierModel:
        """Return the folder's classifier; load it again if its files changed. Raises PolicyError."""
        loaded = self._models.get(folder)
        if loaded is not None and loaded.identity == read_classifier_files(folder).identity:
            return loaded
        return load_classifier(folder, threads=self._threads)

    def _model(self, policy: Policy) -> ClassifierModel | None:
        """Return a policy's classifier; loads that of a policy that was never prepared, or None where it cannot."""
        try:
            folder = self._folder(policy)
            model = self._models.get(folder)
            if model is None:
                model = load_classifier(folder, threads=self._threads)
                self._models = {**self._models, folder: model}
        except PolicyError:
            return None
        return model


def _asks(policy: Policy) -> bool:
    return policy.thresholds is not None and (policy.tiers is None or "classifier" in policy.tiers)


def scored_text(post: Post) -> str:
    """Return what a classifier reads of a post: title and text, without the thread."""
    return post.text if not post.title else f"{post.title}\n{post.text}"


def violating_category(policy: Policy) -> str | _Ambiguous | None:
    """Return the category of posts above the upper threshold.

    It is the declared one; else the policy's only violating one; None where it has none at all.
    """
    assert policy.thresholds is not None, "asked of policies with thresholds alone"
    if policy.thresholds.category is not None:
        return policy.thresholds.category
    violating = [c.code for c in policy.taxonomy.categories if c.violates]
    if len(violating) > 1:
        return _AMBIGUOUS
    return violating[0] if violating else None


def decide(score: Score, policy: Policy, model: ClassifierModel) -> Outcome:
    """Return what a score means under a policy with thresholds."""
    thresholds = policy.thresholds
    assert thresholds is not None, "asked of policies with thresholds alone"
    probability = score.probability
    if probability is None:
        return Escalated("no_score")
    if probability > thresholds.violates_above:
        category = violating_category(policy)
        if isinstance(category, _Ambiguous):
            return Escalated("above_without_category")
        return _settle("violates", category, probability, policy, model)
    if probability < thresholds.safe_below:
        if score.truncated:
            return Escalated("truncated")
        safe = [c.code for c in policy.taxonomy.categories if not c.violates]
        return _settle("safe", safe[0] if len(safe) == 1 else None, probability, policy, model)
    return Escalated("between")


def _settle(
    decision: Literal["violates", "safe"],
    category: str | None,
    probability: float,
    policy: Policy,
    model: ClassifierModel,
) -> Settled:
    thresholds = policy.thresholds
    assert thresholds is not None, "asked of policies with thresholds alone"
    if decision == "violates":
        where, threshold = "above", thresholds.violates_above
    else:
        where, threshold = "below", thresholds.safe_below
    rationale = f"The classifier {model.name} gave {probability:.4f}, {where} {threshold:g}."
    answer = Answer(decision, category, rationale=rationale, parse_status="not_applicable")
    return Settled(
        answer=answer,
        reason=f"{where}:{threshold:g}",
        model=model.label,
        confidence=probability,
        confidence_method=f"classifier:{model.name}",
    )
