"""The jars of Kafka, fetched once by Maven into `build/kafka/libs`, and what this machine lacks to run them."""

import hashlib
import importlib.util
import re
import shutil
import subprocess
from functools import cache
from pathlib import Path

from local_kafka.locks import BUILD, locked
from model_name.errors import DependencyError

POM = Path(__file__).with_name("pom.xml")
LIBRARIES = BUILD / "libs"
MIN_JAVA = 17
DOWNLOAD_SECONDS = 600  # 54 MB; 15 to 50 s were seen
INSTALL_JAVA = (
    "install a Java runtime of version 17 or later (Debian: default-jre-headless, macOS: brew install openjdk)"
)
INSTALL_MAVEN = "install Maven (Debian: maven, macOS: brew install maven); it fetches Kafka's jars, once"


@cache
def unavailable() -> str:
    """Why no Kafka broker can run here, in one sentence; empty if it can. The first call may download the jars."""
    try:
        require_client()
        require_java()
        libraries()
    except DependencyError as error:
        return error.message
    return ""


def require_client() -> None:
    """Look for kafka-python, which asks a broker whether it is ready.

    Raises:
        DependencyError: It is not installed.
    """
    if importlib.util.find_spec("kafka") is None:
        raise DependencyError("the Python package kafka-python is not installed", hint="make install")


def require_java() -> str:
    """The path of a Java that can run Kafka 4.

    Raises:
        DependencyError: There is none, or it is too old.
    """
    java = shutil.which("java")
    if java is None:
        raise DependencyError("Java is not installed: `java` is not on the path", hint=INSTALL_JAVA)
    asked = subprocess.run([java, "-version"], capture_output=True, text=True, check=False)
    found = re.search(r'version "(?:1\.)?(\d+)', asked.stderr)
    if asked.returncode or found is None:
        told = (asked.stderr.strip() or "it said nothing").splitlines()[0]
        raise DependencyError(f"`{java} -version` failed: {told}", hint=INSTALL_JAVA)
    if int(found[1]) < MIN_JAVA:
        raise DependencyError(f"Java {found[1]} is too old for Kafka 4, which needs {MIN_JAVA}", hint=INSTALL_JAVA)
    return java


def libraries() -> Path:
    """The folder of the jars, downloaded if need be; two processes that ask at once download once.

    Raises:
        DependencyError: Maven is missing or could not download them.
    """
    stamp = LIBRARIES / ".complete"
    wanted = hashlib.sha256(POM.read_bytes()).hexdigest()
    with locked("libs"):
        if not stamp.exists() or stamp.read_text(encoding="utf-8") != wanted:
            partial = LIBRARIES.with_suffix(".partial")
            shutil.rmtree(partial, ignore_errors=True)
            download(partial)
            (partial / stamp.name).write_text(wanted, encoding="utf-8")
            shutil.rmtree(LIBRARIES, ignore_errors=True)
            partial.rename(LIBRARIES)
    return LIBRARIES


def download(folder: Path) -> None:
    """Let Maven copy the jars of the POM and all that they need.

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
            timeout=DOWNLOAD_SECONDS,
        )
    except subprocess.TimeoutExpired as error:
        raise DependencyError(f"Maven did not fetch Kafka's jars within {DOWNLOAD_SECONDS} s", hint=retry) from error
    if done.returncode:
        told = [line for line in (done.stdout + done.stderr).splitlines() if line.startswith("[ERROR]")]
        reason = told[0].removeprefix("[ERROR]").strip() if told else f"exit code {done.returncode}"
        raise DependencyError(f"Maven could not fetch Kafka's jars: {reason}", hint=retry)
