"""Coverage-guided fuzzing of everything that reads files: damaged ones must give one sentence (`UserError`), nothing else.

Usage: python benchmarks/fuzz_readers.py [--seconds 60] [--readers onnx,npz,...] > fuzz_readers.md

Each reader runs under atheris (libFuzzer for Python) in a process of its own, from small whole files; where an input ends the
process, it is started again and the input counts as a finding, as do errors other than `UserError` (one for each place in our
code), and inputs that take longer than ten seconds. Findings are kept in `fuzz_findings/`. "Executions" are all inputs tried;
"edges" is what libFuzzer saw of the readers' Python code.
"""

from __future__ import annotations

import argparse
import functools
import hashlib
import io
import json
import os
import re
import subprocess
import sys
import tempfile
import time
import traceback
import zipfile
from collections.abc import Callable
from pathlib import Path

FINDINGS = Path("fuzz_findings")
_ROOT = Path(__file__).resolve().parent.parent


def readers() -> dict[str, tuple[str, Callable[[Path], object], Callable[[], list[bytes]]]]:
    """For each reader the suffix of its files, what reads a file, and whole files to start from."""
    import numpy as np

    import tvmcompress
    from tvmcompress.data.files import read_path
    from tvmcompress.files.manifest import foreign_files
    from tvmcompress.importing import from_onnx
    from tvmcompress.model import Model
    from tvmcompress.recipe.recipe import Recipe
    from tvmcompress.search.quantization_sensitivity import QuantizationSensitivity
    from tvmcompress.sensitivity.channels import Sensitivity
    from tvmcompress.targets import artifact_folder, load_artifact
    from tvmcompress.targets.registry import get_target
    from tvmcompress.targets.tuning_log import RECORDS, WORKLOADS, TuningLog

    def npz(**arrays: np.ndarray) -> bytes:
        stream = io.BytesIO()
        np.savez(stream, **arrays)
        return stream.getvalue()

    def npy(array: np.ndarray) -> bytes:
        stream = io.BytesIO()
        np.save(stream, array)
        return stream.getvalue()

    def arrays(path: Path) -> object:
        return [np.asarray(array).sum() for array in read_path(path, 4).arrays.values() if array.dtype.kind in "fiub"]

    small = _onnx()
    model = from_onnx(small)
    with tempfile.TemporaryDirectory() as scratch:
        model.save(Path(scratch) / "model.tvmc")
        saved = (Path(scratch) / "model.tvmc").read_bytes()
        with zipfile.ZipFile(io.BytesIO(saved)) as archive:
            meta, rest = archive.read("model.json"), {n: archive.read(n) for n in archive.namelist() if n != "model.json"}

    def description() -> list[bytes]:
        with tempfile.TemporaryDirectory() as scratch:
            tvmcompress.build(model, "cortex-m4", scratch, emit="c")
            return [(Path(scratch) / artifact_folder.FILE).read_bytes()]

    def described(path: Path) -> object:
        folder = path.parent / "built"
        folder.mkdir(exist_ok=True)
        (folder / artifact_folder.FILE).write_bytes(path.read_bytes())
        return load_artifact(folder)

    def resealed(path: Path) -> object:
        """As one that somebody has edited, and made whole again."""
        try:
            content = json.loads(path.read_bytes())
            content.pop("sha256", None)
            content["sha256"] = artifact_folder._checksum(content)
            path.write_text(json.dumps(content))
        except (ValueError, AttributeError, TypeError, RecursionError):
            return None
        return described(path)

    def repacked(path: Path) -> object:
        """The description of a model, in a file that is whole."""
        place = path.with_suffix(".tvmc")
        with zipfile.ZipFile(place, "w") as archive:
            for name, data in {"model.json": path.read_bytes(), **rest}.items():
                archive.writestr(name, data)
        return Model.load(place)

    def log(file: str) -> Callable[[Path], object]:
        def read(path: Path) -> object:
            folder = path.parent / "log"
            folder.mkdir(exist_ok=True)
            (folder / WORKLOADS).write_bytes(b'["1","x"]\n')
            (folder / file).write_bytes(path.read_bytes())
            found = TuningLog(folder)
            return found.best(model.module), found.measured(model.module)

        return read

    def manifest(path: Path) -> object:
        folder = path.parent / "out"
        folder.mkdir(exist_ok=True)
        (folder / "manifest.json").write_bytes(path.read_bytes())
        return foreign_files(folder, ".partial-")

    recipe = Recipe.of({"prune": {"ratio": 0.5}, "quantize": {"precision": "int8"}}).to_toml().encode()
    target = (Path(get_target.__code__.co_filename).parent / "descriptions" / "cortex-m4.toml").read_bytes()
    listed = b'{"a": {"size": 1, "sha256": "' + b"0" * 64 + b'"}}'
    x = np.arange(8, dtype=np.float32).reshape(1, 2, 2, 2)
    sys.path.insert(0, str(_ROOT))
    from tests.tvmcompress.importing.test_tflite import small_network

    found: dict[str, tuple[str, Callable[[Path], object], list[bytes] | Callable[[], list[bytes]]]] = {
        "ONNX": (".onnx", tvmcompress.load, [small.SerializeToString()]),
        "TFLite": (".tflite", tvmcompress.load, [small_network(), small_network(float_ends=True)]),
        ".npz": (".npz", arrays, [npz(x=x, y=np.arange(1)), npz(x=x.astype(np.uint8))]),
        ".npy": (".npy", arrays, [npy(x), npy(np.array(["a"])), npy(x.astype(np.float64).T)]),
        ".tvmc": (".tvmc", Model.load, [saved]),
        ".tvmc, description": (".json", repacked, [meta]),
        "artifact.json": (".json", described, description),
        "artifact.json, resealed": (".json", resealed, description),
        "manifest.json": (".json", manifest, [listed, b"{}"]),
        "recipe": (".toml", Recipe.load, [recipe]),
        "target description": (".toml", get_target, [target]),
        "tuning log, workloads": (".json", log(WORKLOADS), [b'["1","x"]\n["2",{}]\n']),
        "tuning log, records": (".json", log(RECORDS), [b'[0,[[[],[]],[0.1],{"kind":"llvm"},[]]]\n']),
        "sensitivity": (".json", Sensitivity.load, [b'{"fingerprint":"a","importance":"l1","groups":[]}']),
        "quantization sensitivity": (".json", QuantizationSensitivity.load, [b'{"fingerprint":"a","precision":"int8"}']),
    }
    return {
        name: (suffix, read, seeds if callable(seeds) else functools.partial(list, seeds))
        for name, (suffix, read, seeds) in found.items()
    }


def _onnx() -> object:
    import numpy as np
    from onnx import TensorProto, helper, numpy_helper

    random = np.random.default_rng(0)
    weights = {"w": (2, 1, 3, 3), "b": (2,), "f": (2, 3)}
    nodes = [
        helper.make_node("Conv", ["x", "w", "b"], ["c"], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c"], ["r"]),
        helper.make_node("GlobalAveragePool", ["r"], ["p"]),
        helper.make_node("Flatten", ["p"], ["v"]),
        helper.make_node("MatMul", ["v", "f"], ["y"]),
    ]
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 1, 4, 4])]
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 3])]
    tensors = [numpy_helper.from_array(random.standard_normal(s).astype(np.float32), n) for n, s in weights.items()]
    graph = helper.make_graph(nodes, "g", inputs, outputs, tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def fuzz(name: str, corpus: Path, seconds: int) -> None:
    """In a process of its own: feed one reader."""
    import atheris

    with atheris.instrument_imports(include=["tvmcompress"]):
        import tvmcompress.importing.tflite  # noqa: F401
        from tvmcompress.errors import UserError

        suffix, read, seeds = readers()[name]
    for index, seed in enumerate(seeds()):
        (corpus / f"seed{index}").write_bytes(seed)
    scratch = Path(tempfile.mkdtemp(dir=corpus.parent))
    os.chdir(scratch)
    seen: set[str] = set()

    def once(data: bytes) -> None:
        path = scratch / f"file{suffix}"
        path.write_bytes(data)
        try:
            read(path)
        except UserError as error:
            if len(str(error)) > 1000:
                keep(data, f"a message of {len(str(error))} characters", "UserError")
        except Exception as error:
            frames = [frame for frame in traceback.extract_tb(error.__traceback__) if str(_ROOT) in frame.filename]
            place = f"{Path(frames[-1].filename).name}:{frames[-1].name}" if frames else "?"
            keep(data, str(error).strip().split("\n")[-1][:100], f"{type(error).__name__} at {place}")

    def keep(data: bytes, words: str, kind: str) -> None:
        if kind not in seen:
            seen.add(kind)
            digest = hashlib.sha256(data).hexdigest()[:12]
            (corpus.parent / f"finding-{digest}").write_bytes(data)
            print(f"FINDING {json.dumps([kind, words, digest])}", flush=True)

    options = [f"-max_total_time={seconds}", "-timeout=10", "-rss_limit_mb=4096", "-max_len=8192", "-print_final_stats=1"]
    atheris.Setup([sys.argv[0], str(corpus), *options, f"-artifact_prefix={corpus.parent}/"], once)
    atheris.Fuzz()


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=int, default=60)
    parser.add_argument("--readers", default=None)
    parser.add_argument("--one", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        fuzz(options.one[0], Path(options.one[1]), options.seconds)
        return
    print("# Fuzzing the readers", "", (__doc__ or "").split("\n\n")[-1].strip(), "", sep="\n")
    print("| reader | seconds | executions | edges | findings |")
    print("|---|---|---|---|---|")
    for name in options.readers.split(";") if options.readers else readers():
        print(_row(name, options.seconds), flush=True)


def _row(name: str, seconds: int) -> str:
    executions = edges = 0
    findings: dict[str, str] = {}
    with tempfile.TemporaryDirectory() as scratch:
        corpus = Path(scratch) / "corpus"
        corpus.mkdir()
        start = time.monotonic()
        while (left := int(seconds - (time.monotonic() - start))) > 2:
            command = [sys.executable, __file__, "--one", name, str(corpus), "--seconds", str(left)]
            done = subprocess.run(command, capture_output=True, text=True, errors="replace")
            output = done.stdout + done.stderr
            counts = re.findall(r"stat::number_of_executed_units: (\d+)", output) or re.findall(r"#(\d+)", output)
            executions += int(counts[-1]) if counts else 0
            edges = max([edges, *map(int, re.findall(r"cov: (\d+)", output))])
            for line in re.findall(r"FINDING (.*)", output):
                kind, words, digest = json.loads(line)
                findings.setdefault(kind, f"{words} ({digest})")
            if done.returncode:
                why = re.findall(r"(?:ERROR|SUMMARY): (.*)", output) or output.strip().splitlines()[-1:] or ["?"]
                findings.setdefault(f"the process ended ({done.returncode})", why[0][:100])
                if not executions:
                    break
        for path in [*Path(scratch).glob("finding-*"), *Path(scratch).glob("crash-*"), *Path(scratch).glob("timeout-*")]:
            FINDINGS.mkdir(exist_ok=True)
            path.replace(FINDINGS / f"{re.sub(r'[^a-z]+', '-', name.lower())}-{path.name}")
    told = "<br>".join(f"{kind}: {words}".replace("|", "/") for kind, words in findings.items()) or "none"
    return f"| {name} | {seconds} | {executions:,} | {edges:,} | {told} |"


if __name__ == "__main__":
    main()
