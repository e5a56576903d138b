"""What the documents name exists: files, links, scripts with their options and configurations."""

import importlib.util
import re
import runpy
import shlex
import sys
from pathlib import Path

import pytest

from utils.config import TestingConfig, TrainSection, load_config

ROOT = Path(__file__).parents[1]
OWN_SCRIPTS = ("submit.py",)
"""Which a document shows how to write."""
DOCUMENTS = [ROOT / "README.md", ROOT / "benchmarks" / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
README = DOCUMENTS[0].read_text(encoding="utf-8")


def commands() -> list[list[str]]:
    """The different `python` commands of the code blocks, line continuations joined, but those of one's own scripts."""
    text = "\n".join(document.read_text(encoding="utf-8") for document in DOCUMENTS)
    blocks = re.findall(r"^```(\w*)\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    lines = "\n".join(block for language, block in blocks if not language).replace("\\\n", " ").splitlines()
    found = [shlex.split(line, comments=True) for line in dict.fromkeys(lines) if line.startswith("python ")]
    return [command for command in found if command[1] not in OWN_SCRIPTS]


def help_of(script: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture) -> str:
    monkeypatch.setattr(sys, "argv", [script, "--help"])
    with pytest.raises(SystemExit):
        runpy.run_path(str(ROOT / script), run_name="__main__")
    return capfd.readouterr().out


def test_there_are_commands() -> None:
    assert {command[1] for command in commands()} >= {"train.py", "re-train.py", "test.py", "-m"}


@pytest.mark.parametrize("command", commands(), ids=" ".join)
def test_commands_name_scripts_options_and_configurations(
    command: list[str], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture
) -> None:
    if command[1] == "-m":
        module = importlib.util.find_spec(command[2])
        assert module
        assert module.submodule_search_locations is None or importlib.util.find_spec(f"{command[2]}.__main__")
        return
    text = help_of(command[1], monkeypatch, capfd)
    assert all(word in text for word in command if word.startswith("--"))
    overrides = command[command.index("--set") + 1 :] if "--set" in command else []
    load_config(ROOT / command[command.index("--config") + 1], overrides, TestingConfig)


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda document: str(document.relative_to(ROOT)))
def test_links_and_pictures_lead_somewhere(document: Path) -> None:
    links = links_of(document)
    assert links or document.parent != ROOT
    for file, anchor in links:
        target = (document.parent / file).resolve() if file else document
        assert target.exists()
        assert not anchor or anchor in anchors(target)


def links_of(document: Path) -> list[tuple[str, str]]:
    """(file, anchor) of the links that do not leave the project."""
    return re.findall(r"\]\((?!http)([^)#]*)#?([^)]*)\)", without_code(document))


def without_code(document: Path) -> str:
    return re.sub(r"^```.*?^```", "", document.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)


def anchors(document: Path) -> set[str]:
    """What links to the headings of a document are called."""
    headings = re.findall(r"^#+ (.+)$", without_code(document), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading).strip().lower().replace(" ", "-") for heading in headings}


def test_the_table_of_keys_is_complete() -> None:
    named = set(re.findall(r"`(\w+)`", README))
    sections = {"train", "test", "paths", "dataload"}
    assert set(TestingConfig.model_fields) - sections <= named
    assert set(TrainSection.model_fields) <= named
    for section in ("paths", "dataload"):
        assert set(TestingConfig.model_fields[section].annotation.model_fields) <= named


def test_the_map_of_the_repository_names_files_that_exist() -> None:
    table = README.split("## Where is what")[1]
    files = re.findall(r"`([\w/-]+(?:\.py|/))`", table)
    assert len(files) > 20
    assert not [file for file in files if not (ROOT / file).exists()]
