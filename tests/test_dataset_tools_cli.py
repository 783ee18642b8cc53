from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from dataset_tools.cli import COMMANDS, main
from dataset_tools.feature_store import read_store

SMALL = ["--users=40", "--items=30", "--ratings_per_user=5"]


def run(*arguments: str, capsys: pytest.CaptureFixture[str]) -> tuple[int, str, str]:
    code = 0
    try:
        main(arguments)
    except SystemExit as stop:
        code = int(stop.code or 0)
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_from_nothing_to_features(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = f"--data_path={tmp_path}"
    code, out, _ = run("synthetic", "--dataset=demo", data, *SMALL, capsys=capsys)
    assert code == 0
    header, movie, cd, last = out.splitlines()
    assert header.split() == ["domain", "items", "users", "ratings", "written", "to"]
    assert movie.split()[:3] == ["demo_movie", "30", "32"]
    assert movie.endswith(str(tmp_path / "demo_movie"))
    assert cd.split()[:3] == ["demo_cd", "30", "33"]
    assert last.startswith("25 overlapped users; ")

    options = ["--encoder=lsa", f"--feature_path={tmp_path / 'f'}", "--dtype=float16"]
    code, out, _ = run("text", "--dataset=demo", data, *options, "--fields=text", capsys=capsys)
    assert code == 0
    assert [line.split()[0] for line in out.splitlines()] == ["domain", "demo_movie", "demo_cd"]
    store = read_store(tmp_path / "f" / "demo_movie", "demo_movie")
    assert store.info["fields"] == ["text"]
    assert store.info["dtype"] == "float16"


def test_options_of_synthetic_reach_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = []
    for folder, options in (
        ("a", []),
        ("b", ["--seed=0", "--structure=demo", "--overlap=0.625"]),
        ("c", ["--seed=1"]),
        ("d", ["--structure=two_groups"]),
        ("e", ["--overlap=1"]),
    ):
        data = f"--data_path={tmp_path / folder}"
        assert run("synthetic", "--dataset=p", data, *SMALL, *options, capsys=capsys)[0] == 0
        files.append((tmp_path / folder / "p_cd" / "p_cd.inter").read_bytes())
    assert files[0] == files[1]
    assert len(set(files)) == 4


def test_converts_amazon(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "ratings_CD.csv").write_text(
        "A10000000,B000000001,5.0,1300000000\nA20000000,B000000001,4.0,1300000000\n"
    )
    (tmp_path / "meta_CD.json").write_text("{'asin': 'B000000001', 'title': 'Heroes'}\n")
    files = [f"--reviews={tmp_path / 'ratings_CD.csv'}", f"--meta={tmp_path / 'meta_CD.json'}"]
    code, out, _ = run("amazon", *files, "--dataset=cd", f"--data_path={tmp_path}", capsys=capsys)
    assert code == 0
    release, _, row = out.splitlines()
    assert release == "release: 2014"
    assert row.split()[:5] == ["cd", "1", "2", "2", "1"]
    assert (tmp_path / "cd" / "cd.item").is_file()


@pytest.mark.parametrize("command", COMMANDS)
def test_help_gives_an_example_that_parses(
    command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, _ = run(command, "--help", capsys=capsys)
    assert code == 0
    example = out.partition("example:\n")[2].partition("\n\n")[0].replace("\\\n", " ").split()
    assert example[:4] == ["python", "-m", "dataset_tools", command]
    assert all(option.partition("=")[0] in out for option in example[4:])


def test_general_help_names_all_commands(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run("--help", capsys=capsys)
    assert code == 0
    assert all(f"\n{command} " in out for command in COMMANDS)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["txet"],
            f"unknown command `txet`; there are {', '.join(COMMANDS)}. Did you mean `text`?",
        ),
        ([], "give a command: download, amazon, "),
        (
            ["text", "--datset=x"],
            "unknown option `--datset`. Did you mean `--dataset`? "
            "See `python -m dataset_tools text --help`.",
        ),
        (["text", "--dataset=x"], "arguments are required: --data_path"),
        (["text", "--data=x"], "unknown option `--data`. Did you mean"),
        (["synthetic", "--dataset=d", "--data_path=.", "--seed=x"], "--seed: invalid int value"),
        (["synthetic", "--dataset=d", "--data_path=.", "more"], "unrecognized arguments: more"),
        (["synthetic", "--dataset=a/b", "--data_path=."], "dataset `a/b` must be a plain name"),
        (
            ["synthetic", "--dataset=d", "--data_path=.", "--structure=dem"],
            "structure `dem` is not one of one_linear_map, two_groups, no_signal, demo. "
            "Did you mean `demo`?",
        ),
        (["amazon", "--dataset=d", "--data_path=.", "--reviews=no.csv"], "no.csv: cannot be read"),
    ],
)
def test_mistakes_end_with_one_message(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, err = run(*arguments, capsys=capsys)
    assert code == 2
    assert out == ""
    assert message in err
    assert len(err.splitlines()) == 1
    assert err.startswith(("ConfigError: ", "DataFormatError: "))
    assert not list(Path.cwd().iterdir())


def test_as_a_program(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "dataset_tools", "text", f"--data_path={tmp_path}"]
    done = subprocess.run(
        [*command, "--dataset=movie", "--encoder=lsa"], capture_output=True, text=True
    )
    assert done.returncode == 2
    assert done.stderr.startswith("DataFormatError: ")
    assert "there is no movie/movie.inter" in done.stderr
    assert "Traceback" not in done.stderr
