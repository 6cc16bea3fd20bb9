"""Everything done with `proto/`: stubs, lint, breaking changes; offline.

`buf/validate/validate.proto` is imported by our files and vendored by nobody: its descriptor is taken from
the installed protovalidate wheel, so that rules on the wire and the engine that enforces them are always of
one version. `protoc` resolves it with `--descriptor_set_in`; `buf`, which would fetch it from a registry,
gets an image built here instead of the source folder.

    python -m tools.contract generate     write the Python stubs
    python -m tools.contract stale        exit 1 when the committed stubs are not what `generate` would write
    python -m tools.contract lint         buf lint
    python -m tools.contract breaking     buf breaking against the last release tag, else the parent of HEAD
"""

import filecmp
import subprocess
import sys
import tempfile
from importlib import resources
from pathlib import Path

from google.protobuf import any_pb2, descriptor_pb2, duration_pb2, field_mask_pb2, timestamp_pb2
from google.protobuf.descriptor import FileDescriptor
from google.rpc import error_details_pb2, status_pb2
from grpc_tools import protoc
from protovalidate._gen.buf.validate import validate_pb

ROOT = Path(__file__).resolve().parent.parent
PROTO = ROOT / "proto"
PYTHON_OUT = ROOT / "clients" / "python"
VALIDATE = "buf/validate/validate.proto"
# Everything `generate` writes lies in these folders, and nothing else with these suffixes does.
GENERATED_FOLDERS = ("runway/v1", "buf/validate")
GENERATED_SUFFIXES = ("_pb2.py", "_pb2.pyi", "_pb2_grpc.py", "_pb2_grpc.pyi")
BIN = Path(sys.executable).parent

# `ImageFile.buf_extension = 8042 {is_import = 1: true}`: buf's mark for a file that is only imported.
# Field 8042, length-delimited, 2 bytes: field 1, varint 1. Source: buf.alpha.image.v1.
BUF_IS_IMPORT = b"\xd2\xf6\x03\x02\x08\x01"


class ContractError(Exception):
    """The contract could not be read or compiled."""


def _imported_descriptors() -> descriptor_pb2.FileDescriptorSet:
    """What the contract may import and Python already has: protovalidate, google.rpc; dependencies first."""
    files = descriptor_pb2.FileDescriptorSet()
    known: list[FileDescriptor] = [
        descriptor_pb2.DESCRIPTOR,
        duration_pb2.DESCRIPTOR,
        field_mask_pb2.DESCRIPTOR,
        timestamp_pb2.DESCRIPTOR,
        any_pb2.DESCRIPTOR,
        status_pb2.DESCRIPTOR,
        error_details_pb2.DESCRIPTOR,
    ]
    for descriptor in known:
        files.file.add().MergeFromString(descriptor.serialized_pb)
    files.file.add().MergeFromString(validate_pb.desc().proto.to_binary())
    return files


def _sources(proto: Path) -> list[str]:
    names = sorted(path.relative_to(proto).as_posix() for path in proto.glob("runway/**/*.proto"))
    if not names:
        raise ContractError(f"no .proto files under {proto}")
    return names


def _protoc(proto: Path, work: Path, *arguments: str) -> None:
    """Run protoc over `proto` with the descriptors it imports at hand. `work` takes their file."""
    imported = work / "imported.binpb"
    imported.write_bytes(_imported_descriptors().SerializeToString())
    well_known_protos = resources.files("grpc_tools") / "_proto"
    command = [
        "protoc",
        f"--proto_path={proto}",
        f"--proto_path={well_known_protos}",
        f"--descriptor_set_in={imported}",
        f"--plugin=protoc-gen-mypy={BIN / 'protoc-gen-mypy'}",
        f"--plugin=protoc-gen-mypy_grpc={BIN / 'protoc-gen-mypy_grpc'}",
        *arguments,
    ]
    if protoc.main(command) != 0:
        raise ContractError("protoc refused the contract; its message is above")


def generate(out: Path) -> None:
    """Write the Python stubs of `proto/` below `out`."""
    with tempfile.TemporaryDirectory() as work:
        work_path, sources = Path(work), _sources(PROTO)
        services = [name for name in sources if "\nservice " in (PROTO / name).read_text(encoding="utf-8")]
        _protoc(PROTO, work_path, f"--python_out={out}", f"--mypy_out=quiet:{out}", *sources)
        _protoc(PROTO, work_path, f"--grpc_python_out={out}", f"--mypy_grpc_out=quiet:{out}", *services)
        # Imported by our stubs at run time; nobody types against it.
        _protoc(PROTO, work_path, f"--python_out={out}", VALIDATE)


def _generated(out: Path) -> dict[str, Path]:
    return {
        path.relative_to(out).as_posix(): path
        for folder in GENERATED_FOLDERS
        for path in (out / folder).glob("*")
        if path.name.endswith(GENERATED_SUFFIXES)
    }


def stale() -> list[str]:
    """Stubs that differ from what `generate` would write now: missing, changed, or left over."""
    with tempfile.TemporaryDirectory() as work:
        generate(Path(work))
        fresh, committed = _generated(Path(work)), _generated(PYTHON_OUT)
        return sorted(
            name
            for name in fresh.keys() | committed.keys()
            if name not in fresh
            or name not in committed
            or not filecmp.cmp(fresh[name], committed[name], shallow=False)
        )


def image(proto: Path, target: Path) -> None:
    """Compile `proto` to a buf image: every file, with comments; imports marked as such."""
    sources = _sources(proto)
    _protoc(
        proto,
        target.parent,
        "--include_imports",
        "--include_source_info",
        f"--descriptor_set_out={target}",
        *sources,
    )
    compiled = descriptor_pb2.FileDescriptorSet.FromString(target.read_bytes())
    for file in compiled.file:
        if file.name not in sources:
            file.MergeFromString(BUF_IS_IMPORT)
    target.write_bytes(compiled.SerializeToString())


def _buf(*arguments: str) -> int:
    return subprocess.run([BIN / "buf", *arguments], cwd=ROOT, check=False).returncode


def lint() -> int:
    with tempfile.TemporaryDirectory() as work:
        now = Path(work) / "now.binpb"
        image(PROTO, now)
        return _buf("lint", str(now))


def _git(*arguments: str) -> str | None:
    """Output of a git command in the repository; None when it fails (no git, no such commit)."""
    try:
        done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def _baseline() -> str | None:
    """The commit to compare the contract with: the last release, else the one before this."""
    tag = _git("describe", "--tags", "--abbrev=0", "--match", "v*")
    return tag or _git("rev-parse", "--verify", "HEAD~1")


def _extract(commit: str, proto: Path) -> bool:
    """Write the contract as of `commit` below `proto`; False when that commit had none."""
    names = (_git("ls-tree", "-r", "--name-only", commit, "proto/runway") or "").split()
    for name in names:
        text = _git("show", f"{commit}:{name}")
        if text is None:
            raise ContractError(f"git could not read {name} at {commit}")
        path = proto / Path(name).relative_to("proto")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n", encoding="utf-8")
    return bool(names)


def breaking() -> int:
    commit = _baseline()
    if commit is None:
        print("buf breaking: nothing to compare with: no tag and no earlier commit here")
        return 0
    with tempfile.TemporaryDirectory() as work:
        before_proto = Path(work) / "proto"
        if not _extract(commit, before_proto):
            print(f"buf breaking: nothing to compare with: {commit} has no contract")
            return 0
        now, before = Path(work) / "now.binpb", Path(work) / "before.binpb"
        image(PROTO, now)
        image(before_proto, before)
        return _buf("breaking", str(now), "--against", str(before))


def main(arguments: list[str]) -> int:
    match arguments:
        case ["generate"]:
            for path in _generated(PYTHON_OUT).values():
                path.unlink()
            generate(PYTHON_OUT)
            return 0
        case ["stale"]:
            names = stale()
            if names:
                print("These stubs are not what proto/ says; run `make proto`:", *names, sep="\n  ")
            return 1 if names else 0
        case ["lint"]:
            return lint()
        case ["breaking"]:
            return breaking()
        case _:
            print(__doc__)
            return 2


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except ContractError as error:
        sys.exit(f"contract: {error}")
