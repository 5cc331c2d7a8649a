// Runs the standard tools of AsyncAPI and JSON Schema over docs/contracts, and generates types from a verdict's schema.
//   node check.mjs CONTRACTS SAMPLES OUT
// CONTRACTS: the folder of schemas. SAMPLES: JSON {schema file: [documents that it must accept]}. OUT: gets the types.
// Prints one line per fault and exits 1 if there is any.
import { mkdirSync, readFileSync, readdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { createRequire } from "node:module";

const require = createRequire(import.meta.url);
const { Parser, fromFile } = require("@asyncapi/parser");
const Ajv = require("ajv/dist/2020").default;
const addFormats = require("ajv-formats").default;
const quicktype = require("quicktype-core");

const [contracts, samplesFile, out] = process.argv.slice(2);
const samples = JSON.parse(readFileSync(samplesFile, "utf8"));
const names = readdirSync(contracts).filter((name) => name.endsWith(".json"));
const read = (name) => JSON.parse(readFileSync(join(contracts, name), "utf8"));
const faults = [];

// AsyncAPI's own parser, which the official command line runs as well.
const { document, diagnostics } = await fromFile(new Parser(), join(contracts, "asyncapi.yaml")).parse();
for (const each of diagnostics.filter((each) => each.severity === 0)) {
  faults.push(`asyncapi.yaml: ${each.path.join("/")}: ${each.message}`);
}
if (!document) faults.push("asyncapi.yaml: the parser returns no document");

// ajv in strict mode, each schema alone.
for (const name of names) {
  try {
    const ajv = new Ajv({ strict: true, strictRequired: false, allowUnionTypes: true, strictTypes: false });
    addFormats(ajv);
    const accepts = ajv.compile(read(name));
    for (const sample of samples[name] ?? []) {
      if (!accepts(sample)) {
        faults.push(`${name}: refuses a sample: ${ajv.errorsText(accepts.errors)}`);
        break;
      }
    }
  } catch (error) {
    faults.push(`${name}: ajv: ${error.message}`);
  }
}

mkdirSync(out, { recursive: true });
const { compile } = await import("json-schema-to-typescript");
for (const name of names) {
  try {
    const types = await compile(read(name), name.replace(/-\d.*/, ""), { cwd: contracts });
    writeFileSync(join(out, name.replace(".json", ".d.ts")), types);
  } catch (error) {
    faults.push(`${name}: json-schema-to-typescript: ${error.message}`);
  }
}

const LANGUAGES = {
  go: ["verdict.go", { package: "main" }],
  java: ["Verdict.java", { package: "verdicts", "array-type": "list" }],
  python: ["verdict_types.py", { "python-version": "3.7" }],
  typescript: ["verdict.ts", {}],
};
for (const [lang, [file, rendererOptions]] of Object.entries(LANGUAGES)) {
  try {
    const input = new quicktype.JSONSchemaInput(new quicktype.FetchingJSONSchemaStore());
    await input.addSource({ name: "Verdict", schema: JSON.stringify(read("verdict-1.1.json")) });
    const inputData = new quicktype.InputData();
    inputData.addInput(input);
    const files = await quicktype.quicktypeMultiFile({ inputData, lang, rendererOptions, outputFilename: file });
    mkdirSync(join(out, lang), { recursive: true });
    for (const [name, { lines }] of files) writeFileSync(join(out, lang, name), lines.join("\n"));
  } catch (error) {
    faults.push(`verdict-1.1.json: quicktype ${lang}: ${error.message}`);
  }
}

for (const fault of faults) console.log(fault);
process.exit(faults.length ? 1 : 0);
