"""The tables in the repository are those that its records make."""

import shutil
from pathlib import Path

import pytest

from experiments import compare_report, compare_table
from jaxdl import config as settings
from jaxdl import runs

FOLDER = Path(compare_report.__file__).with_name("results") / "compare"
COMPARISONS = sorted(path.name for path in FOLDER.iterdir())


@pytest.fixture(params=COMPARISONS)
def comparison(request):
    return FOLDER / request.param


def test_the_table_is_that_of_the_records(comparison, tmp_path):
    again = shutil.copytree(comparison, tmp_path / comparison.name)
    compare_report.write(again)
    for name in ("RESULTS.md", "results.csv"):
        assert (again / name).read_text() == (comparison / name).read_text()


def test_records_are_finished_by_the_recipes_of_today(comparison):
    rows, still_open = compare_table.gather(comparison)
    assert rows and not still_open
    assert [row.network.written for row in rows if row.differs] == []


def test_what_is_not_svhn_says_so(comparison):
    table = (comparison / "RESULTS.md").read_text()
    for row in compare_table.gather(comparison)[0]:
        assert compare_table.real(row.data) or "These are not results on SVHN" in table


def test_no_record_names_a_place_of_its_machine(comparison):
    for path in comparison.glob("*/config.json"):
        stored = settings.from_json(runs.read_json(path)["config"])
        assert stored.data.raw_dir is None and not stored.data.cache_dir.is_absolute()
        assert not stored.run.out.is_absolute()
