"""The container files: valid, safe, and true to the settings that they name."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from actserve_server.config import Config, environment_name

ROOT = Path(__file__).resolve().parents[2]
BIN = Path(sys.executable).parent


def test_the_dockerfile_passes_hadolint() -> None:
    done = subprocess.run([BIN / "hadolint", ROOT / "Dockerfile"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("service", ["server", "client", "shared-server", "shared-client"])
def test_compose_keeps_services_confined(service: str) -> None:
    command = [
        BIN / "docker-compose",
        "--file",
        ROOT / "docker-compose.yml",
        "--profile",
        "demo",
        "--profile",
        "shared",
        "config",
        "--format",
        "json",
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    described = json.loads(done.stdout)["services"][service]
    assert described["read_only"] is True
    assert described["cap_drop"] == ["ALL"]
    if service == "server":
        assert [port["target"] for port in described["ports"]] == [50051]
        kept = described["environment"]["ACTSERVE_ACTIVATIONS_DIR"]
        assert [(volume["type"], volume["target"]) for volume in described["volumes"]] == [("volume", kept)]
        assert f"install -d -o 10001 -g 10001 {kept} /run/actserve\n" in (ROOT / "Dockerfile").read_text()
        assert set(described["environment"]) <= {environment_name(name) for name in Config.__dataclass_fields__}
    elif service == "client":
        assert described["depends_on"]["server"]["condition"] == "service_healthy"
    else:
        assert described["volumes"] == [
            {"type": "volume", "source": "sockets", "target": "/run/actserve", "volume": {}}
        ]


def test_the_dockerfile_names_real_settings_and_no_root() -> None:
    text = (ROOT / "Dockerfile").read_text()
    real = {environment_name(name) for name in Config.__dataclass_fields__}
    assert set(re.findall(r"ACTSERVE_[A-Z_]+(?==)", text)) <= real
    for stage in text.split("\nFROM ")[3:]:
        assert "USER 10001:10001" in stage
