"""Files of other people, in every format: read, or one line that names the fix."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from jetscale.analysis import FitSettings, fit, load_losses
from jetscale.analysis.output.report import draw_figures
from jetscale.analysis.settings import ColumnSettings, UncertaintySettings
from jetscale.common.usage import UsageError
from tests.analysis.test_cases import CASES, grid

ROWS = grid()


def written(path: Path) -> Path:
    """The rows in the format of the name."""
    kind = path.name.split(".", 1)[1]
    if kind in ("jsonl", "ndjson", "jsonl.gz"):
        ROWS.to_json(path, orient="records", lines=True, double_precision=15)
    elif kind == "json":
        ROWS.to_json(path, orient="records", double_precision=15)
    elif kind == "columns.json":
        path.write_text(json.dumps({str(name): ROWS[name].tolist() for name in ROWS}))
    elif kind == "xlsx":
        ROWS.to_excel(path, index=False)
    elif kind == "semicolon.csv":
        ROWS.to_csv(path, index=False, sep=";", decimal=",")
    elif kind == "decimal.tsv":
        ROWS.to_csv(path, index=False, sep="\t", decimal=",")
    elif kind == "tabs.csv":
        ROWS.to_csv(path, index=False, sep="\t")
    elif kind == "bom.csv":
        ROWS.to_csv(path, index=False, encoding="utf-8-sig")
    elif kind == "spaces.csv":
        lines = ROWS.to_csv(index=False).replace(",", " , ")
        path.write_text(lines)
    else:
        ROWS.to_csv(path, index=False)
    return path


KINDS = [
    "csv",
    "csv.gz",
    "tabs.csv",
    "semicolon.csv",
    "decimal.tsv",
    "bom.csv",
    "spaces.csv",
    "jsonl",
    "jsonl.gz",
    "ndjson",
    "json",
    "columns.json",
    "xlsx",
]


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_table_in_every_format(tmp_path: Path, kind: str) -> None:
    found = load_losses(written(tmp_path / f"t.{kind}")).frame
    expected = ROWS.sort_values(["N", "D"])
    for column, name in (("n_params", "N"), ("jets", "D"), ("loss", "loss")):
        np.testing.assert_allclose(found[column], expected[name], rtol=1e-12)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("t.csv", "N,D,loss\n1e7,3e8,4,9331\n", "more fields than the 3 names .* decimal commas"),
        ("t.csv", "N;D;loss\n1e7;3e8;4,933\n", "'4,933' could be 4.933 or 4933"),
        ("t.csv", "N;D;loss\n1e7;3.5e8;4,9331\n", "has a decimal comma and '3.5e8' has not"),
        ("t.csv", 'N,D,loss\n1e7,3e8,"4,9331"\n', "'4,9331', not a number; a decimal comma"),
        ("t.csv", 'N,D,loss\n1e7,3e8,"4,933"\n', "could be 4.933 or 4933; write it with a decimal point"),
        ("t.csv", "N,D,loss,loss\n1e7,3e8,4.9,3\n", "two columns are called 'loss'"),
        ("t.csv", "N;D|loss\n1;2|3\n", "no column for loss"),
        ("t.csv", "", "cannot be read as a table"),
        ("t.jsonl", '{"N": 1, "D": 2, "loss": 3}\n{"N": 1,', "cannot be read as a table"),
        ("t.csv", "N,D,loss,subset\n1e7,3e8,4.9,a\n1e7,4e8,4.8,\n", "'subset' in row 1 is empty"),
        ("t.xyz", "N,D,loss\n", "unknown kind of table; use .csv"),
    ],
)
def test_what_cannot_be_read_is_one_line(tmp_path: Path, name: str, text: str, message: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(UsageError, match=message) as error:
        load_losses(tmp_path / name)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "where", ["`N > 3", "`", "N >", "N > 'a'", "@x > 1", "import os", "((", "`no such` > 1"]
)
def test_a_query_that_is_none_is_one_line(tmp_path: Path, where: str) -> None:
    with pytest.raises(UsageError, match="is not a query of its columns") as error:
        load_losses(written(tmp_path / "t.csv"), where=where)
    assert "\n" not in str(error.value)


def test_a_query_may_begin_with_a_backtick(tmp_path: Path) -> None:
    ROWS.rename(columns={"N": "Model Size"}).to_csv(tmp_path / "t.csv", index=False)
    found = load_losses(tmp_path / "t.csv", where="`Model Size` > 1e8")
    assert found.frame["n_params"].min() == 3e8


def test_a_column_that_is_there_is_not_used_where_it_is_given_empty(tmp_path: Path) -> None:
    frame = ROWS.assign(C=1.0, run="a", seed=1)
    frame.to_csv(tmp_path / "t.csv", index=False)
    found = load_losses(tmp_path / "t.csv", columns={"C": "", "run": "", "seed": ""}).frame
    np.testing.assert_allclose(found["flops"], 6 * found["n_params"] * found["jets"])
    assert found["run"].nunique() == len(ROWS)
    assert set(found["seed"]) == {"0"}
    with pytest.raises(UsageError, match="D or C"):
        load_losses(tmp_path / "t.csv", columns={"C": "", "D": ""})


@pytest.mark.parametrize("name", ["semi.csv", "runs.jsonl"])
def test_files_of_the_developers(name: str) -> None:
    if not (CASES / name).is_file():
        pytest.skip(f"{CASES / name} is missing: an input of the developers")
    settings = FitSettings(uncertainty=UncertaintySettings(method="none", profile=False), multiverse=False)
    found = fit(load_losses(CASES / name), settings).subsets["all"]
    assert found.n_points == 36
    assert found.approach3["a"].value == pytest.approx(0.519, abs=0.001)


def test_every_subset_has_its_own_figures(tmp_path: Path) -> None:
    names = ["x y", "x_y", "$_x$"]
    pd.concat([ROWS.assign(subset=name) for name in names]).to_csv(tmp_path / "t.csv", index=False)
    settings = FitSettings(uncertainty=UncertaintySettings(method="none", profile=False), multiverse=False)
    drawings = draw_figures(fit(load_losses(tmp_path / "t.csv"), settings), tmp_path / "figures")
    drawn = [drawing.path for name, drawing in drawings.items() if name.startswith("subset ")]
    assert len({path.name.casefold() for path in drawn}) == len(names)
    assert len({path.read_bytes() for path in drawn}) == len(names)  # each holds its name


# ---- Excel


def workbook(path: Path, sheets: dict[str, pd.DataFrame], **how: object) -> Path:
    with pd.ExcelWriter(path) as writer:
        for name, frame in sheets.items():
            frame.to_excel(writer, sheet_name=name, index=False, **how)
    return path


def test_a_workbook_with_notes_in_empty_sheets_and_columns_is_read(tmp_path: Path) -> None:
    rows = ROWS.assign(subset="qcd")
    found = load_losses(workbook(tmp_path / "t.xlsx", {"runs": rows, "Sheet2": pd.DataFrame()}))
    assert set(found.frame["subset"]) == {"qcd"}
    np.testing.assert_allclose(np.sort(found.frame["loss"]), np.sort(ROWS["loss"]), rtol=1e-12)


def test_workbooks_that_could_mean_two_things_are_refused(tmp_path: Path) -> None:
    two = workbook(tmp_path / "two.xlsx", {"a": ROWS, "b": ROWS})
    twice = workbook(tmp_path / "twice.xlsx", {"a": pd.concat([ROWS, ROWS["loss"]], axis=1)})
    nameless = workbook(tmp_path / "bare.xlsx", {"a": ROWS}, header=False)
    nameless_column = workbook(tmp_path / "column.xlsx", {"a": ROWS.assign(**{" ": 1.0})})
    empty = workbook(tmp_path / "empty.xlsx", {"a": pd.DataFrame()})
    text = workbook(tmp_path / "text.xlsx", {"a": ROWS.assign(loss="4,9331")})
    broken = tmp_path / "broken.xlsx"
    broken.write_bytes(two.read_bytes()[:3000])
    for path, message in (
        (two, r"2 sheets that hold something \(a, b\)"),
        (twice, "two columns are called 'loss'"),
        (nameless, "no column for loss"),
        (nameless_column, "column 4 has no name in the first row"),
        (empty, "nothing in it"),
        (text, "'4,9331', not a number; a decimal comma"),
        (broken, "cannot be read as a table"),
    ):
        with pytest.raises(UsageError, match=message) as error:
            load_losses(path)
        assert "\n" not in str(error.value)


def test_a_size_under_an_unknown_name_is_not_passed_over(tmp_path: Path) -> None:
    """N under another name must not make the table a law of D alone, unless the user says so."""
    path = tmp_path / "losses.csv"
    rows = [f"{16 * i},{1e6 * 2**i},{1 + 3 * 2 ** (-0.3 * i)}" for i in range(1, 8)]
    path.write_text("\n".join(["width,tokens,loss", *rows]))
    with pytest.raises(UsageError, match=r"no column for N; .* or columns\.N= for a law of D alone"):
        load_losses(path)
    assert "N" in load_losses(path, columns=ColumnSettings(N="")).absent
