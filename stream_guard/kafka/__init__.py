"""The edge to Kafka: a source of records and a publisher, on aiokafka. Never imports the pipeline."""
