// Writes one record in each format by npm's @kafkajs/confluent-schema-registry, as JSON on stdout: format -> base64.
import pkg from "@kafkajs/confluent-schema-registry"

const { SchemaRegistry, SchemaType } = pkg
const registry = new SchemaRegistry({ host: process.argv[2] })

const AVRO = {
  type: "record",
  name: "Post",
  namespace: "kafkajs",
  fields: [
    { name: "id", type: "string" },
    { name: "text", type: ["null", "string"] },
    { name: "raw", type: "bytes" },
    { name: "kind", type: { type: "enum", name: "Kind", symbols: ["POST", "LIKE"] } },
    { name: "author", type: { type: "record", name: "Author", fields: [{ name: "id", type: "string" }] } },
    { name: "counts", type: { type: "map", values: "long" } },
  ],
}
// The client takes the first type of a file for the message.
const PROTO = `syntax = "proto3";
package kafkajs;
message Post {
  string id = 1;
  string text = 2;
  bytes raw = 3;
  Kind kind = 4;
  Author author = 5;
  map<string, int32> counts = 6;
}
message Author { string id = 1; }
enum Kind { LIKE = 0; POST = 1; }`
const JSON_SCHEMA = {
  type: "object",
  properties: { id: { type: "string" }, text: { type: "string" } },
  required: ["id", "text"],
}
const post = {
  id: "p1",
  text: "héllo",
  raw: Buffer.from([0xff, 0xd8]),
  author: { id: "a1" },
  counts: { likes: 3 },
}

async function write(type, schema, subject, value) {
  const { id } = await registry.register({ type, schema }, { subject })
  return (await registry.encode(id, value)).toString("base64")
}

const written = {
  avro: await write(SchemaType.AVRO, JSON.stringify(AVRO), "kafkajs-avro", { ...post, kind: "POST" }),
  protobuf: await write(SchemaType.PROTOBUF, PROTO, "kafkajs-protobuf", { ...post, kind: 1 }),
  json_schema: await write(SchemaType.JSON, JSON.stringify(JSON_SCHEMA), "kafkajs-json", {
    id: "p1",
    text: "héllo",
  }),
}
console.log(JSON.stringify(written))
