"""What the README names exists: files, links, scripts with their options and configurations."""

import importlib.util
import re
import runpy
import shlex
import sys
from pathlib import Path

import pytest

from utils.config import TestingConfig, TrainSection, load_config

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def commands() -> list[list[str]]:
    """The `python` commands of the code blocks, line continuations joined."""
    blocks = re.findall(r"^```(\w*)\n(.*?)^```", README, re.DOTALL | re.MULTILINE)
    lines = "\n".join(block for language, block in blocks if not language).replace("\\\n", " ").splitlines()
    return [shlex.split(line, comments=True) for line in lines if line.startswith("python ")]


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
        assert importlib.util.find_spec(f"{command[2]}.__main__")
        return
    text = help_of(command[1], monkeypatch, capfd)
    assert all(word in text for word in command if word.startswith("--"))
    overrides = command[command.index("--set") + 1 :] if "--set" in command else []
    load_config(ROOT / command[command.index("--config") + 1], overrides, TestingConfig)


def test_links_and_pictures_lead_somewhere() -> None:
    targets = re.findall(r"\]\(([^)#]+?)\)", README)
    files = [target for target in targets if not target.startswith("http")]
    assert files
    assert not [target for target in files if not (ROOT / target).exists()]
    anchors = {re.sub(r"[^\w\- ]", "", title).strip().lower().replace(" ", "-") for title in headings()}
    assert set(re.findall(r"\]\(#([^)]+)\)", README)) <= anchors


def headings() -> list[str]:
    return re.findall(r"^#+ (.+)$", README, re.MULTILINE)


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
