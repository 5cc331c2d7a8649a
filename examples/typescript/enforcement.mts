// An enforcement service in TypeScript: acts on violations alone, once per verdict id, however often one is delivered.
//
//   npm install
//   npx json2ts -i ../../docs/contracts/verdict-1.1.json -o verdict-1.1.d.ts
//   node enforcement.mts HOST:PORT --topic stream-guard.verdicts --database enforcement.sqlite
//
// Node 24 runs TypeScript as it is. The action and the verdict's id are written in one SQLite transaction, so after a
// crash either both exist or neither. Replace act() with your platform's action. If that is a call over the network, pass
// the verdict's id as its idempotency key.
import { DatabaseSync } from "node:sqlite";
import { parseArgs } from "node:util";
import kafkajs from "kafkajs";
import { compressFrame, decompressFrame } from "lz4-napi";
import type { StreamGuardVerdict as Verdict } from "./verdict-1.1.d.ts";

const { CompressionCodecs, CompressionTypes, Kafka } = kafkajs;
// Stream Guard compresses with lz4 (kafka.compression_type), which KafkaJS leaves to its users.
CompressionCodecs[CompressionTypes.LZ4] = () => ({
  compress: (encoder: { buffer: Buffer }) => compressFrame(encoder.buffer),
  decompress: (buffer: Buffer) => decompressFrame(buffer),
});

const { positionals, values } = parseArgs({
  allowPositionals: true,
  options: {
    topic: { type: "string", default: "stream-guard.verdicts" },
    group: { type: "string", default: "enforcement" },
    database: { type: "string", default: "enforcement.sqlite" },
  },
});
if (positionals.length !== 1) throw new Error("name the broker: node enforcement.mts HOST:PORT");

const database = new DatabaseSync(values.database);
database.exec(`
  PRAGMA journal_mode = WAL;
  PRAGMA synchronous = FULL;
  CREATE TABLE IF NOT EXISTS handled (verdict_id TEXT PRIMARY KEY) WITHOUT ROWID;
  CREATE TABLE IF NOT EXISTS actions (verdict_id TEXT, content_id TEXT, policy TEXT, action TEXT);
`);
const remember = database.prepare("INSERT OR IGNORE INTO handled VALUES (?)");
const write = database.prepare("INSERT INTO actions VALUES (?, ?, ?, ?)");

/** Take down, label, warn ... here: write down what would be done. */
function act(verdict: Verdict): void {
  write.run(verdict.id, verdict.content.id, verdict.policy.id, verdict.action);
}

/** Act on a violation unless that was done before; return whether anything was done. */
function handle(verdict: Verdict): boolean {
  if (verdict.decision !== "violates" || verdict.action === "none") return false;
  database.exec("BEGIN IMMEDIATE");
  try {
    const isNew = remember.run(verdict.id).changes === 1;
    if (isNew) act(verdict);
    database.exec("COMMIT");
    return isNew;
  } catch (error) {
    database.exec("ROLLBACK");
    throw error;
  }
}

/** Return the verdict in a record's value, in either mode of CloudEvents. */
function read(value: Buffer): Verdict {
  const document = JSON.parse(value.toString("utf8"));
  const verdict: Verdict = "specversion" in document ? document.data : document;
  // A later minor version only adds fields.
  if (!verdict.schema_version.startsWith("1.")) {
    throw new Error(`schema version ${verdict.schema_version}: update this service`);
  }
  return verdict;
}

const kafka = new Kafka({
  clientId: "enforcement",
  brokers: [positionals[0]!],
  logLevel: kafkajs.logLevel.ERROR,
});
const consumer = kafka.consumer({ groupId: values.group });
// Leave the group, but do not wait for long: what is not committed is read again, and done once all the same.
function stop(): void {
  setTimeout(() => process.exit(0), 2_000);
  void consumer.disconnect().then(() => process.exit(0));
}
process.once("SIGINT", stop);
process.once("SIGTERM", stop);
await consumer.connect();
await consumer.subscribe({ topics: [values.topic], fromBeginning: true });
await consumer.run({
  // The offset is committed after this has returned, so a crash repeats a verdict and loses none.
  eachMessage: async ({ message }) => {
    if (message.value === null) return;
    const verdict = read(message.value);
    if (handle(verdict)) console.log(`${verdict.action} ${verdict.content.id}`);
  },
});
