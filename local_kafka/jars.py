"""Fetch the jars of Kafka with Maven into `build/kafka/libs`, once, and check whether this machine can run them."""

import hashlib
import importlib.util
import re
import shutil
import subprocess
from functools import cache
from pathlib import Path

from local_kafka.locks import BUILD, file_lock
from model_name.errors import DependencyError

POM = Path(__file__).with_name("pom.xml")
LIBRARIES = BUILD / "libs"
MIN_JAVA = 17
DOWNLOAD_TIMEOUT_SECONDS = 600  # 54 MB, measured 15 to 50 s
INSTALL_JAVA = (
    "install a Java runtime of version 17 or later (Debian: default-jre-headless, macOS: brew install openjdk)"
)
INSTALL_MAVEN = "install Maven (Debian: maven, macOS: brew install maven); it fetches Kafka's jars, once"


@cache
def unavailable_reason() -> str:
    """Return why no broker can run here, in one sentence; empty if it can. The first call may download the jars."""
    try:
        require_client()
        require_java()
        fetch_libraries()
    except DependencyError as error:
        return error.message
    return ""


def require_client() -> None:
    """Check that kafka-python is installed, with which the cluster waits for its brokers.

    Raises:
        DependencyError: kafka-python is not installed.
    """
    if importlib.util.find_spec("kafka") is None:
        raise DependencyError("the Python package kafka-python is not installed", hint="make install")


def require_java() -> str:
    """Return the path of a Java that can run Kafka 4.

    Raises:
        DependencyError: Java is missing, broken or too old.
    """
    java = shutil.which("java")
    if java is None:
        raise DependencyError("Java is not installed: `java` is not on the path", hint=INSTALL_JAVA)
    process = subprocess.run([java, "-version"], capture_output=True, text=True, check=False)
    version = re.search(r'version "(?:1\.)?(\d+)', process.stderr)
    if process.returncode or version is None:
        output = (process.stderr.strip() or "it said nothing").splitlines()[0]
        raise DependencyError(f"`{java} -version` failed: {output}", hint=INSTALL_JAVA)
    if int(version[1]) < MIN_JAVA:
        raise DependencyError(f"Java {version[1]} is too old for Kafka 4, which needs {MIN_JAVA}", hint=INSTALL_JAVA)
    return java


def fetch_libraries() -> Path:
    """Return the folder of the jars, after a download if necessary; concurrent processes download once.

    Raises:
        DependencyError: Maven is missing or could not download them.
    """
    stamp = LIBRARIES / ".complete"
    pom_hash = hashlib.sha256(POM.read_bytes()).hexdigest()
    with file_lock("libs"):
        if not stamp.exists() or stamp.read_text(encoding="utf-8") != pom_hash:
            partial = LIBRARIES.with_suffix(".partial")
            shutil.rmtree(partial, ignore_errors=True)
            download(partial)
            (partial / stamp.name).write_text(pom_hash, encoding="utf-8")
            shutil.rmtree(LIBRARIES, ignore_errors=True)
            partial.rename(LIBRARIES)
    return LIBRARIES


def download(folder: Path) -> None:
    """Copy the jars of the POM and their dependencies with Maven.

    Raises:
        DependencyError: Maven is missing, failed or took too long.
    """
    maven = shutil.which("mvn")
    if maven is None:
        raise DependencyError("Kafka's jars are not here, and Maven to fetch them is not installed", hint=INSTALL_MAVEN)
    goal = ["dependency:copy-dependencies", f"-DoutputDirectory={folder}"]
    retry = f"look at the network and Maven's settings, then run `{maven} -B -f {POM} {' '.join(goal)}`"
    try:
        done = subprocess.run(
            [maven, "-q", "-B", "-f", str(POM), *goal],
            capture_output=True,
            text=True,
            check=False,
            timeout=DOWNLOAD_TIMEOUT_SECONDS,
        )
    except subprocess.TimeoutExpired as error:
        raise DependencyError(
            f"Maven did not fetch Kafka's jars within {DOWNLOAD_TIMEOUT_SECONDS} s", hint=retry
        ) from error
    if done.returncode:
        errors = [line for line in (done.stdout + done.stderr).splitlines() if line.startswith("[ERROR]")]
        reason = errors[0].removeprefix("[ERROR]").strip() if errors else f"exit code {done.returncode}"
        raise DependencyError(f"Maven could not fetch Kafka's jars: {reason}", hint=retry)
