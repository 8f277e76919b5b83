"""Machines without Java, Maven or jars, simulated by scripts in their place."""

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

from local_kafka import jars, locks
from model_name.errors import DependencyError

JAVA_17 = "echo 'openjdk version \"17.0.15\" 2025-04-15' >&2"
COUNTING = """
for word in "$@"; do case "$word" in -DoutputDirectory=*) folder="${word#*=}" ;; esac; done
echo once >> "$0.calls"; sleep 0.2; mkdir -p "$folder"; echo jar > "$folder/kafka.jar"
"""


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """Simulate a machine without Java, Maven and jars; `machine(name, script)` installs a program."""
    programs = tmp_path / "bin"
    programs.mkdir()
    monkeypatch.setattr(jars, "LIBRARIES", tmp_path / "kafka" / "libs")
    monkeypatch.setattr(locks, "BUILD", tmp_path / "kafka")
    monkeypatch.setattr("shutil.which", lambda name: str(programs / name) if (programs / name).exists() else None)

    def install(name, script):
        program = programs / name
        program.write_text(f"#!/bin/sh\n{script}\n")
        program.chmod(0o755)
        return program

    return install


@pytest.mark.parametrize(
    ("programs", "reason"),
    [
        pytest.param({}, "Java is not installed", id="no Java"),
        pytest.param({"java": "echo 'Unable to locate a Java Runtime.' >&2; exit 1"}, "Unable to locate", id="a stub"),
        pytest.param({"java": "echo 'openjdk version \"11.0.2\"' >&2"}, "Java 11 is too old", id="an old Java"),
        pytest.param({"java": "echo 'java version \"1.8.0_402\"' >&2"}, "Java 8 is too old", id="the oldest Java"),
        pytest.param({"java": JAVA_17}, "Maven to fetch them is not installed", id="no Maven"),
        pytest.param(
            {"java": JAVA_17, "mvn": "echo '[ERROR] Could not transfer artifact'; echo '[ERROR] more'; exit 1"},
            "could not fetch Kafka's jars: Could not transfer artifact",
            id="no network",
        ),
        pytest.param({"java": JAVA_17, "mvn": "exit 3"}, "jars: exit code 3", id="a Maven without output"),
    ],
)
def test_a_missing_program_is_reported_in_one_sentence(machine, programs, reason):
    for name, script in programs.items():
        machine(name, script)
    found = jars.unavailable_reason.__wrapped__()
    assert reason in found
    assert "\n" not in found


def test_maven_is_not_needed_once_the_jars_are_downloaded(machine):
    machine("java", JAVA_17)
    maven = machine("mvn", COUNTING)
    assert jars.unavailable_reason.__wrapped__() == ""
    maven.unlink()
    assert jars.unavailable_reason.__wrapped__() == ""
    assert [path.name for path in jars.fetch_libraries().glob("*.jar")] == ["kafka.jar"]


def test_a_missing_client_is_reported(machine, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert "kafka-python" in jars.unavailable_reason.__wrapped__()


def test_concurrent_calls_download_once(machine):
    maven = machine("mvn", COUNTING)
    with ThreadPoolExecutor(2) as pool:
        folders = {*pool.map(lambda _: jars.fetch_libraries(), range(2))}
    assert len(folders) == 1
    assert maven.with_suffix(".calls").read_text() == "once\n"


def test_a_changed_pom_downloads_again(machine, tmp_path, monkeypatch):
    maven = machine("mvn", COUNTING)
    jars.fetch_libraries()
    monkeypatch.setattr(jars, "POM", tmp_path / "pom.xml")
    jars.POM.write_text("<project/>")
    jars.fetch_libraries()
    assert maven.with_suffix(".calls").read_text() == "once\nonce\n"


def test_a_failed_download_leaves_no_jars(machine):
    machine("mvn", COUNTING + "exit 1")
    with pytest.raises(DependencyError):
        jars.fetch_libraries()
    assert not jars.LIBRARIES.exists()


def test_a_lock_is_released_when_its_process_is_killed(machine):
    code = "import time\nfrom pathlib import Path\nfrom local_kafka import locks\n"
    code += f"locks.BUILD = Path({str(locks.BUILD)!r})\n"
    code += "with locks.file_lock('one'):\n    print('held', flush=True)\n    time.sleep(60)\n"
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as holder:
        holder.stdout.readline()
        assert locks.is_locked("one")
        holder.kill()
    assert not locks.is_locked("one")
