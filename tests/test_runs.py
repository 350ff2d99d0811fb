"""Run directories: whole files or none, and logs that a kill may cut anywhere."""

import json
import platform
import resource
import subprocess
import sys
import textwrap
from pathlib import Path

import jax
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from jaxdl import runs
from jaxdl.errors import InputError


def refused(action, *words: str) -> None:
    with pytest.raises(InputError) as caught:
        action()
    message = str(caught.value)
    assert "\n" not in message
    for word in words:
        assert word in message


def test_a_run_directory_is_new_and_whole(tmp_path) -> None:
    directory = tmp_path / "mnist" / "run"
    runs.create(directory, {"a": 1})
    assert runs.read_json(directory / "config.json") == {"a": 1}
    refused(lambda: runs.create(directory, {}), str(directory), "--resume", "--name")
    assert list(directory.parent.iterdir()) == [directory]


def test_runs_that_begin_in_the_same_second_have_names_of_their_own(
    tmp_path, monkeypatch
) -> None:
    monkeypatch.setattr(runs.time, "strftime", lambda form: "20260102-030405")
    found = []
    for _ in range(3):
        found.append(runs.stamped(tmp_path, "fnn-"))
        runs.create(tmp_path / found[-1], {})
    assert found == [f"fnn-20260102-030405{end}" for end in ("", "-2", "-3")]


def test_a_directory_that_cannot_be_made_is_refused(tmp_path) -> None:
    (tmp_path / "file").write_text("")
    directory = tmp_path / "file" / "run"
    refused(lambda: runs.create(directory, {}), str(directory), "--out")


def test_a_description_that_cannot_be_written_leaves_nothing(tmp_path) -> None:
    with pytest.raises(TypeError):
        runs.create(tmp_path / "run", {"a": object()})
    assert list(tmp_path.iterdir()) == []


def test_a_run_has_one_process_at_a_time(tmp_path) -> None:
    code = f"""
        from pathlib import Path
        from jaxdl import runs
        with runs.claimed(Path({str(tmp_path)!r})):
            print("claimed", flush=True)
            input()
    """
    command = [sys.executable, "-c", textwrap.dedent(code)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(command, text=True, **pipes) as other:
        assert other.stdout.readline() == "claimed\n"
        refused(lambda: runs.claimed(tmp_path).__enter__(), str(tmp_path), "--name")
        other.kill()  # gives it back as well
    for _ in range(2):
        with runs.claimed(tmp_path):
            pass


def test_json_comes_back(tmp_path) -> None:
    path = tmp_path / "config.json"
    value = {"a": [1, 2.5, None, "ü"], "b": {"c": True}}
    runs.write_json(path, value)
    assert runs.read_json(path) == value
    runs.write_json(path, {"d": 1})
    assert runs.read_json(path) == {"d": 1}
    assert list(tmp_path.iterdir()) == [path]


def test_a_value_that_json_does_not_have_leaves_the_old_file(tmp_path) -> None:
    path = tmp_path / "result.json"
    runs.write_json(path, {"a": 1})
    with pytest.raises(TypeError):
        runs.write_json(path, {"a": 2, "b": object()})
    assert runs.read_json(path) == {"a": 1}
    assert list(tmp_path.iterdir()) == [path]


def test_a_full_disk_leaves_the_old_file(tmp_path) -> None:
    """Files of this process may not grow past a kilobyte: a disk that is full."""
    path = tmp_path / "result.json"
    runs.write_json(path, {"a": 1})
    code = f"""
        import resource
        from pathlib import Path
        from jaxdl import runs
        from jaxdl.errors import InputError
        resource.setrlimit(resource.RLIMIT_FSIZE, (1024, 1024))
        try:
            runs.write_json(Path({str(path)!r}), {{"a": "x" * 100_000}})
        except InputError as error:
            print(error)
    """
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] == resource.RLIM_INFINITY
    process = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True
    )
    assert process.returncode == 0, process.stderr
    assert process.stdout.startswith(f"cannot write {path}: ")
    assert process.stdout.count("\n") == 1
    assert runs.read_json(path) == {"a": 1}
    assert list(tmp_path.iterdir()) == [path]


def test_what_is_no_run_is_refused(tmp_path) -> None:
    path = tmp_path / "config.json"
    refused(lambda: runs.read_json(path), str(tmp_path), "config.json")
    path.write_text('{"a": 1')
    refused(lambda: runs.read_json(path), str(path))
    path.write_text("[1, 2]")
    refused(lambda: runs.read_json(path), str(path), "list")
    path.write_bytes(b"\xff\xfe{}")
    refused(lambda: runs.read_json(path), str(path))
    path.unlink()
    path.mkdir()
    refused(lambda: runs.read_json(path), str(path))


entries = st.lists(
    st.fixed_dictionaries(
        {
            "kind": st.sampled_from(["train", "validation"]),
            "step": st.integers(0, 50),
            "loss": st.floats(allow_nan=False),
            "note": st.text(max_size=5),
        }
    ),
    max_size=6,
)


@given(entries, st.integers(0, 400), st.integers(0, 50))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_a_log_cut_anywhere_goes_on(tmp_path, lines, cut, step) -> None:
    """What a kill leaves of the last line is dropped; all before it stays."""
    path = tmp_path / "metrics.jsonl"
    path.unlink(missing_ok=True)
    lines = sorted(lines, key=lambda entry: entry["step"])
    for line in lines:
        runs.append_metrics(tmp_path, line)
    content = path.read_bytes() if path.exists() else b""
    whole = content[: max(len(content) - cut, 0)]
    path.write_bytes(whole)
    kept = whole.count(b"\n")

    found = runs.read_metrics(tmp_path)
    assert found[:kept] == lines[:kept]
    assert found[kept:] in ([], lines[kept : kept + 1])  # only a newline is missing

    rewound = runs.rewind_metrics(tmp_path, step)
    assert rewound == [entry for entry in found if entry["step"] <= step]
    assert runs.read_metrics(tmp_path) == rewound
    more = {"kind": "train", "step": 99}
    runs.append_metrics(tmp_path, more)
    assert runs.read_metrics(tmp_path) == [*rewound, more]
    assert list(tmp_path.iterdir()) == [path]


def test_a_run_without_a_log_has_no_entries(tmp_path) -> None:
    assert runs.read_metrics(tmp_path) == []
    assert runs.rewind_metrics(tmp_path, 0) == []


def test_lines_are_json_one_by_one(tmp_path) -> None:
    runs.append_metrics(tmp_path, {"note": "a\nb"})
    runs.append_metrics(tmp_path, {"step": 2})
    text = (tmp_path / "metrics.jsonl").read_text()
    assert [json.loads(line) for line in text.splitlines()] == [
        {"note": "a\nb"},
        {"step": 2},
    ]


def test_versions_are_those_imported() -> None:
    found = runs.versions()
    assert found["jax"] == jax.__version__
    assert found["numpy"] == np.__version__
    assert found["python"] == platform.python_version()
    assert set(found) == {"python", *runs.PACKAGES}


def test_the_devices_are_counted_and_named() -> None:
    assert runs.device_name().startswith(f"{jax.device_count()} x cpu (")
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists() and "model name" in cpuinfo.read_text():
        name = cpuinfo.read_text().split("model name")[1].split(":")[1].split("\n")[0]
        assert name.strip() in runs.device_name()
