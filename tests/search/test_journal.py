import pytest

from jaxdl.errors import InputError
from jaxdl.search import journal

LINES = [{"kind": "proposed", "x": 0.1 + 0.2}, {"kind": "result", "y": [1, None]}]


def test_what_is_written_is_read(tmp_path):
    path = tmp_path / "journal.jsonl"
    assert journal.mend(path) == []
    journal.append(path, LINES[:1])
    journal.append(path, LINES[1:])
    assert journal.mend(path) == LINES


def test_a_kill_at_any_byte_loses_no_whole_line(tmp_path):
    path = tmp_path / "journal.jsonl"
    journal.append(path, LINES)
    whole = path.read_bytes()
    first = whole.index(b"\n") + 1
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        kept = LINES[:1] if length >= first else []
        assert journal.mend(path) == kept
        journal.append(path, LINES[1:])  # as a resumed study does
        assert journal.mend(path) == [*kept, LINES[1]]


@pytest.mark.parametrize("line", ["5", "{}", "null", "[]", '[{"kind": "result"}]', ""])
def test_a_line_that_is_no_object_is_damaged(tmp_path, line):
    path = tmp_path / "journal.jsonl"
    text = f'{{"kind": "proposed"}}\n{line}\n'
    path.write_text(text)
    with pytest.raises(InputError, match="damaged at line 2"):
        journal.mend(path)
    assert path.read_text() == text


def test_damage_and_a_full_disk_are_told(tmp_path):
    path = tmp_path / "journal.jsonl"
    path.write_text('{"kind": "proposed"}\nrubbish\n{}\n')
    with pytest.raises(InputError, match="damaged at line 2"):
        journal.mend(path)
    with pytest.raises(InputError, match="cannot write"):
        journal.append(tmp_path / "gone" / "journal.jsonl", LINES)
    with pytest.raises(ValueError):
        journal.append(path, [{"loss": float("nan")}])  # no JSON
