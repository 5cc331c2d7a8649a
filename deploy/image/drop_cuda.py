"""Removes CUDA from PyPI's build of torch, for the CPU image.

PyPI has one build of torch for Linux, and it is linked against 3.4 GB of NVIDIA's libraries. Nothing calls them on a
machine without a GPU. The image does not install them. The dynamic linker still needs a library of each name, so this
program writes small stand-ins into torch's own folder:

- A function of NVIDIA's libraries returns 100, ``cudaErrorNoDevice`` (CUDA Runtime API, ``cudaError_t``). So
  ``torch.cuda.is_available()`` is false, as it is where a driver finds no card.
- A function of torch's own CUDA libraries names itself on stderr and ends the process. Code for the CPU calls none.

Torch's "+cpu" build (build argument ``TORCH_INDEX_URL``) needs none of this; the program then changes nothing.

    python drop_cuda.py /opt/venv/lib/python3.12/site-packages/torch/lib
"""

import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

HOLDER = "libtorch_cuda.so"
"""Torch's CUDA code. Its stand-in also holds the functions whose library no symbol version names."""
DROPPED = (HOLDER, "libtorch_cuda_linalg.so", "libtorch_nvshmem.so", "libcaffe2_nvrtc.so")
"""Libraries of torch that are replaced. ``libc10_cuda.so`` stays: it is small, and it counts the devices."""
OPTIONS = "_ZN4c10d16ProcessGroupNCCL7OptionsC1Eb"
SPECIAL = {
    # A reference to a variable: libtorch_python.so sets it while it loads.
    "_ZN4c10d15get_gil_checkerEv": "static void *variable; return &variable;",
    # The constructor of a default argument in torch.distributed: the object needs its class's table of functions.
    OPTIONS: "*(void **)self = OPTIONS_TABLE + 2; return 0;",
}
"""Functions of the dropped libraries that ``import torch`` calls; their bodies, in C."""

_SYMBOL = re.compile(
    r"^\s*\d+: \w+\s+(?P<size>\w+) (?P<type>\w+)\s+(?P<bind>\w+)\s+\w+\s+(?P<section>\w+) (?P<name>\S+)"
)
_NEEDED = re.compile(r"\(NEEDED\).*\[(.+)\]")


class Symbol(NamedTuple):
    """A dynamic symbol.

    Attributes:
        name: without its version.
        version: the symbol version; empty where it has none.
        kind: ``FUNC``, ``OBJECT`` or ``NOTYPE``.
        defined: whether this file defines it.
        weak: whether it may stay undefined.
        size_bytes: size of an object.
    """

    name: str
    version: str
    kind: str
    defined: bool
    weak: bool
    size_bytes: int


def read_elf(*arguments: str | Path) -> str:
    """Return what readelf prints."""
    command = ["readelf", "--wide", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def needed(file: Path) -> set[str]:
    """Return the names of the libraries that a file loads."""
    return set(_NEEDED.findall(read_elf("--dynamic", file)))


def symbols(file: Path) -> list[Symbol]:
    """Return the dynamic symbols of a file."""
    found = []
    for line in read_elf("--dyn-syms", file).splitlines():
        row = _SYMBOL.match(line)
        if row is not None:
            name, _, version = row["name"].partition("@")
            defined, weak = row["section"] != "UND", row["bind"] == "WEAK"
            size_bytes = int(row["size"], 0)
            found.append(Symbol(name, version.lstrip("@"), row["type"], defined, weak, size_bytes))
    return found


def system_libraries() -> dict[str, Path]:
    """Return the libraries that the dynamic linker finds by itself, by name."""
    command = ["/sbin/ldconfig", "-p"]
    listed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    rows = [line.split() for line in listed.splitlines() if " => " in line]
    return {row[0]: Path(row[-1]) for row in reversed(rows)}


def source(wanted: dict[str, Symbol], body: str) -> str:
    """Return C code that defines each wanted symbol.

    Args:
        wanted: symbols by name. Objects are zeros of their size.
        body: what a function does; ``NAME`` stands for its name.
    """
    lines = [
        "#include <stdio.h>",
        "#include <stdlib.h>",
        # The Itanium C++ ABI, 2.9.5: a class's type is this table and the class's name.
        'extern void *CLASS_TYPE[] __asm__("_ZTVN10__cxxabiv117__class_type_infoE");',
    ]
    if OPTIONS in wanted:
        # The same, 2.5.2: the offset of the object, its type, then its virtual functions.
        entries = ", ".join(["nothing"] * 30)
        lines += [
            'extern void *OPTIONS_TYPE __asm__("_ZTIN4c10d16ProcessGroupNCCL7OptionsE");',
            "static void nothing(void) {}",
            f"static void *OPTIONS_TABLE[] = {{ 0, &OPTIONS_TYPE, {entries} }};",
        ]
    for index, (name, symbol) in enumerate(sorted(wanted.items())):
        label = f's{index} __asm__("{name}")'
        if name.startswith("_ZTI"):
            # The bindings register a class by its name.
            lines.append(f"struct {{ void *table; const char *name; }} {label}")
            lines.append(f'    = {{ CLASS_TYPE + 2, "{name[4:]}" }};')
        elif symbol.kind == "OBJECT":
            size_bytes = max(symbol.size_bytes, 8)
            lines.append(f'_Alignas(16) char s{index}[{size_bytes}] __asm__("{name}");')
        else:
            does = SPECIAL.get(name, body.replace("NAME", name))
            lines.append(f'void *s{index}(void *self) __asm__("{name}");')
            lines.append(f"void *s{index}(void *self) {{ {does} }}")
    return "\n".join(lines)


def compile_library(path: Path, code: str, version: str) -> None:
    """Compile a shared library.

    Args:
        path: the library; its file name is its SONAME.
        code: its source, in C.
        version: symbol version of all that it defines; none where empty.
    """
    path.unlink(missing_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        file, script = Path(folder) / "code.c", Path(folder) / "versions"
        file.write_text(code)
        command = ["gcc", "-shared", "-fPIC", "-O1", "-w", f"-Wl,-soname,{path.name}"]
        if version:
            script.write_text(f"{version} {{ global: *; }};\n")
            command.append(f"-Wl,--version-script={script}")
        subprocess.run([*command, "-o", path, file], check=True)


def main(folder: Path) -> None:
    """Replace torch's CUDA libraries, and write NVIDIA's, where this torch is built with CUDA."""
    if not (folder / HOLDER).exists():
        print("this torch is built without CUDA: nothing to do")
        return
    dropped = {s.name: s for name in DROPPED for s in symbols(folder / name) if s.defined}
    for name in DROPPED:
        (folder / name).unlink()
    kept = [*folder.glob("*.so*"), *folder.parent.glob("*.so")]
    read = [symbol for file in kept for symbol in symbols(file)]
    libraries = {name for file in kept for name in needed(file)} - {file.name for file in kept}
    system = system_libraries()
    present = [system[name] for name in sorted(libraries & system.keys())]
    defined = {s.name for s in read if s.defined}
    defined.update(s.name for file in present for s in symbols(file) if s.defined)
    missing = {s.name: s for s in read if not s.defined and not s.weak and s.name not in defined}
    wanted: dict[str, dict[str, Symbol]] = {name: {} for name in sorted(libraries - system.keys())}
    for name, symbol in missing.items():
        if name in dropped:
            wanted[HOLDER][name] = dropped[name]
        elif symbol.version in wanted:
            wanted[symbol.version][name] = symbol
        elif not symbol.version and not name.startswith(("Py", "_Py")):
            # The interpreter has Python's own. What is left has no version, as NVIDIA's cuFile.
            wanted[HOLDER][name] = symbol
    stop = 'fputs("NAME was called in an image without CUDA\\n", stderr); abort();'
    for name, of_library in wanted.items():
        versions = {s.version for s in of_library.values() if s.version}
        body = stop if name == HOLDER else "return (void *)100;"
        version = versions.pop() if len(versions) == 1 else ""
        compile_library(folder / name, source(of_library, body), version)
        print(f"{name}: a stand-in with {len(of_library)} symbols")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
