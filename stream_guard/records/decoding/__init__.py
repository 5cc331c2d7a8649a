"""Decodes values in Confluent's wire format into JSON-like documents: Avro, Protobuf and JSON Schema. No I/O.

May import: ``core``, ``settings`` and :mod:`stream_guard.records.json_document`.

fastavro and protobuf are optional (the extra ``registry``). Only ``avro`` and ``protobuf`` import them.
"""
