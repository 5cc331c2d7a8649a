"""Error codes that brokers send and aiokafka 0.14 does not know: it would call each of them ``UnknownError``.

Source: Kafka's protocol guide, table "Error Codes" (``org.apache.kafka.common.protocol.Errors``), brokers 2.5 to 4.3.
"""

from __future__ import annotations

from typing import Any, Final

import aiokafka.errors as kafka_errors

_RETRIABLE: Final = True
_PERMANENT: Final = False

# Code: (name, whether a retry may help).
_CODES: Final[dict[int, tuple[str, bool]]] = {
    73: ("TopicDeletionDisabled", _PERMANENT),
    74: ("FencedLeaderEpoch", _RETRIABLE),
    75: ("UnknownLeaderEpoch", _RETRIABLE),
    76: ("UnsupportedCompressionType", _PERMANENT),
    77: ("StaleBrokerEpoch", _PERMANENT),
    78: ("OffsetNotAvailable", _RETRIABLE),
    80: ("PreferredLeaderNotAvailable", _RETRIABLE),
    81: ("GroupMaxSizeReached", _PERMANENT),
    82: ("FencedInstanceId", _PERMANENT),
    83: ("EligibleLeadersNotAvailable", _RETRIABLE),
    84: ("ElectionNotNeeded", _RETRIABLE),
    85: ("NoReassignmentInProgress", _PERMANENT),
    86: ("GroupSubscribedToTopic", _PERMANENT),
    87: ("InvalidRecord", _PERMANENT),
    88: ("UnstableOffsetCommit", _RETRIABLE),
    89: ("ThrottlingQuotaExceeded", _RETRIABLE),
    90: ("ProducerFencedByBroker", _PERMANENT),
    91: ("ResourceNotFound", _PERMANENT),
    92: ("DuplicateResource", _PERMANENT),
    93: ("UnacceptableCredential", _PERMANENT),
    94: ("InconsistentVoterSet", _PERMANENT),
    95: ("InvalidUpdateVersion", _PERMANENT),
    96: ("FeatureUpdateFailed", _PERMANENT),
    97: ("PrincipalDeserializationFailure", _PERMANENT),
    98: ("SnapshotNotFound", _PERMANENT),
    99: ("PositionOutOfRange", _PERMANENT),
    100: ("UnknownTopicId", _RETRIABLE),
    101: ("DuplicateBrokerRegistration", _PERMANENT),
    102: ("BrokerIdNotRegistered", _PERMANENT),
    103: ("InconsistentTopicId", _RETRIABLE),
    104: ("InconsistentClusterId", _PERMANENT),
    105: ("TransactionalIdNotFound", _PERMANENT),
    106: ("FetchSessionTopicIdError", _RETRIABLE),
    107: ("IneligibleReplica", _PERMANENT),
    108: ("NewLeaderElected", _PERMANENT),
    109: ("OffsetMovedToTieredStorage", _PERMANENT),
    110: ("FencedMemberEpoch", _PERMANENT),
    111: ("UnreleasedInstanceId", _PERMANENT),
    112: ("UnsupportedAssignor", _PERMANENT),
    113: ("StaleMemberEpoch", _PERMANENT),
    114: ("MismatchedEndpointType", _PERMANENT),
    115: ("UnsupportedEndpointType", _PERMANENT),
    116: ("UnknownControllerId", _PERMANENT),
    117: ("UnknownSubscriptionId", _PERMANENT),
    118: ("TelemetryTooLarge", _PERMANENT),
    119: ("InvalidRegistration", _PERMANENT),
    120: ("TransactionAbortable", _PERMANENT),
    121: ("InvalidRecordState", _PERMANENT),
    122: ("ShareSessionNotFound", _RETRIABLE),
    123: ("InvalidShareSessionEpoch", _RETRIABLE),
    124: ("FencedStateEpoch", _PERMANENT),
    125: ("InvalidVoterKey", _PERMANENT),
    126: ("DuplicateVoter", _PERMANENT),
    127: ("VoterNotFound", _PERMANENT),
    128: ("InvalidRegularExpression", _PERMANENT),
    129: ("RebootstrapRequired", _PERMANENT),
    130: ("StreamsInvalidTopology", _PERMANENT),
    131: ("StreamsInvalidTopologyEpoch", _PERMANENT),
    132: ("StreamsTopologyFenced", _PERMANENT),
    133: ("ShareSessionLimitReached", _RETRIABLE),
}


def _define(code: int, name: str, *, retriable: bool) -> Any:  # noqa: ANN401 - aiokafka ships no types
    known = kafka_errors.kafka_errors.get(code)
    if known is not None:  # a newer aiokafka names it
        return known
    made = type(
        f"{name}Error",
        (kafka_errors.BrokerResponseError,),
        {"errno": code, "message": name, "retriable": retriable, "__module__": __name__},
    )
    kafka_errors.kafka_errors[code] = made
    return made


_defined: Final = {
    name: _define(code, name, retriable=retriable) for code, (name, retriable) in _CODES.items()
}
FencedInstanceIdError: Final = _defined["FencedInstanceId"]
"""Another process has joined the group with our ``kafka.group_instance_id``."""
InvalidRecordError: Final = _defined["InvalidRecord"]
"""The broker refuses a record: for one, a record without a key in a compacted topic."""


_NO_BROKER_ANSWERS: Final = "cluster metadata"


def may_pass(error: kafka_errors.KafkaError) -> bool:
    """Return whether another try may succeed.

    aiokafka's client raises a bare ``KafkaError``, not a retriable one, where no broker answers its question about the
    cluster (``fetch_all_metadata``).
    """
    return bool(error.retriable) or (
        type(error) is kafka_errors.KafkaError and _NO_BROKER_ANSWERS in str(error)
    )


def is_fenced(error: BaseException) -> bool:
    """Return whether another member has taken over a ``group_instance_id``."""
    # aiokafka wraps what it does not expect in a KafkaError that holds its text.
    return FencedInstanceIdError.__name__ in f"{error!r}"
