// Reads records in Avro by npm's @kafkajs/confluent-schema-registry: arguments are the registry and base64 values.
import pkg from "@kafkajs/confluent-schema-registry"

const { SchemaRegistry } = pkg
const registry = new SchemaRegistry({ host: process.argv[2] })
const read = await Promise.all(
  process.argv.slice(3).map((value) => registry.decode(Buffer.from(value, "base64"))),
)
console.log(JSON.stringify(read))
