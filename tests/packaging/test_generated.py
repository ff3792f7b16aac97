"""The generated code in proto/gen is what proto/*.proto gives today."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PROTOS = sorted((ROOT / "proto").glob("*.proto"))


@pytest.mark.parametrize("proto", PROTOS, ids=lambda path: path.stem)
def test_generated_code_is_fresh(proto, tmp_path):
    pytest.importorskip("grpc_tools")
    words = ["--python_out", "--pyi_out", "--grpc_python_out"]
    subprocess.run(
        [
            sys.executable, "-m", "grpc_tools.protoc", f"-Isteersman/pb={ROOT / 'proto'}",
            *(f"{word}={tmp_path}" for word in words), f"steersman/pb/{proto.name}",
        ],
        check=True,
    )  # fmt: skip
    made = sorted((tmp_path / "steersman" / "pb").glob(f"{proto.stem}_pb2*"))
    assert made
    for file in made:
        committed = ROOT / "proto" / "gen" / file.name
        if file.name.endswith("_grpc.py") and not committed.exists():
            assert "class " not in file.read_text(), f"{file.name} has services and is not committed"
            continue
        assert committed.read_text() == file.read_text(), f"{file.name} is stale: run `make proto`"
