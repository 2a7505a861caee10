"""Tables as strangers write them: the right value, or one line that says what could be meant."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from jetscale.analysis import LossTable, load_losses
from jetscale.analysis.tables.loading import load_with_held_out
from jetscale.common.usage import UsageError
from tests.analysis.test_cases import grid

ROWS = grid()
BODY = "\n".join(f"{N:.0f},{D:.0f},{loss!r}" for N, D, loss in ROWS.to_numpy().tolist())


def read(path: Path, content: str | bytes | pd.DataFrame, **how: Any) -> LossTable:
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif isinstance(content, str):
        path.write_text(content)
    elif path.suffix == ".parquet":
        content.to_parquet(path)
    else:
        content.to_csv(path, index=False)
    return load_losses(path, **how)


def same(losses: LossTable, rows: pd.DataFrame = ROWS) -> None:
    """The table holds these N, D and losses, whatever their order."""
    expected = rows.sort_values(["N", "D", "loss"])
    found = losses.frame.sort_values(["n_params", "jets", "loss"])
    for column, name in (("n_params", "N"), ("jets", "D"), ("loss", "loss")):
        np.testing.assert_allclose(found[column], expected[name], rtol=1e-12)


# ---- rows


@pytest.mark.parametrize(
    "where", ["seed", "seed - 1", "(seed == 1) * 1", "[0, 1, 2]", "True", "loss.head(3) > 0"]
)
def test_a_query_that_is_not_true_or_false_selects_nothing(tmp_path: Path, where: str) -> None:
    """Pandas takes numbers for names of rows: where="seed" gave three rows, again and again."""
    rows = pd.concat([ROWS.assign(seed=seed) for seed in (0, 1, 2)])
    with pytest.raises(UsageError, match=r"is not a query of its columns: it is .*true or false"):
        read(tmp_path / "t.csv", rows, where=where)


@pytest.mark.parametrize(
    ("where", "message"),
    [
        ("name != 3", "name holds text: compare it with '3', in quotes"),
        ("D > 1e9 & name != 3", "name holds text: compare it with '3', in quotes"),
        ("not (`the run` == 'a' | name in [1, 2])", "name holds text: compare it with '1', '2', in quotes"),
        ("seed != '3'", "seed holds numbers: compare it with 3, without quotes"),
        ("'3' == seed", "seed holds numbers: compare it with 3, without quotes"),
        ("`the run` != -1", "the run holds text: compare it with '-1', in quotes"),
    ],
)
def test_a_text_compared_with_a_number_is_no_choice(tmp_path: Path, where: str, message: str) -> None:
    """It is never equal: "seed != 3" left out nothing where seeds are text, as those of runs are."""
    rows = pd.concat([ROWS.assign(seed=seed, name=f"s{seed}", **{"the run": "a"}) for seed in (0, 3)])
    with pytest.raises(UsageError, match=f"is not a query of its columns: {re.escape(message)}"):
        read(tmp_path / "t.csv", rows, where=where)
    for right in ("seed != 3", "name != 's3'", "D > 1e8 & seed in [0]", "name == 's' + '0'", "seed < 3"):
        same(read(tmp_path / "t.csv", rows, where=right))


def test_rows_of_a_frame_with_repeated_numbers_are_told_apart(tmp_path: Path) -> None:
    """pd.concat without ignore_index: best_of_cell kept every row, and a split cell was a traceback."""
    worse = ROWS.assign(loss=1.01 * ROWS["loss"], lr=2e-3)
    rows = pd.concat([ROWS.assign(lr=1e-3), worse])
    assert not rows.index.is_unique
    same(read(tmp_path / "t.parquet", rows, best_of_cell=True))
    with pytest.raises(UsageError, match=r"column 'lr' .* is read by nothing"):
        read(tmp_path / "t.parquet", rows)


@pytest.mark.parametrize("index", [["N"], ["N", "D"], ["subset", "N", "D"]])
def test_an_index_with_names_is_columns(tmp_path: Path, index: list[str]) -> None:
    losses = read(tmp_path / "t.parquet", ROWS.assign(subset="qcd").set_index(index))
    same(losses)
    assert set(losses.frame["subset"]) == {"qcd"}
    assert not losses.absent


def test_rows_without_anything_in_them_are_no_rows(tmp_path: Path) -> None:
    same(read(tmp_path / "t.csv", f"N,D,loss\n\n{BODY}\n,,\n,,\n"))
    with pytest.raises(UsageError, match="N is nan in row 37"):  # numbered as they stand
        read(tmp_path / "t.csv", f"N,D,loss\n{BODY}\n,,\n,1e9,3\n")


def test_a_query_may_be_longer_than_a_file_name(tmp_path: Path) -> None:
    ROWS.to_csv(tmp_path / "t.csv", index=False)
    query = " or ".join(f"(N == {N:.0f} and D == 1e11)" for N in ROWS["N"].unique())
    assert len(query) > 100
    fitted, held_out = load_with_held_out(str(tmp_path / "t.csv"), f"{query} or {query} or {query}", "table")
    assert held_out is not None
    assert (len(fitted.frame), len(held_out.frame)) == (30, 6)


# ---- names of columns


def test_two_columns_that_could_be_the_loss(tmp_path: Path) -> None:
    """The training loss is often called loss, beside val_loss."""
    both = ROWS.assign(val_loss=1.1 * ROWS["loss"])
    table = read(tmp_path / "t.csv", both)
    same(table)
    (warning,) = table.warnings
    assert "'loss' is read as loss, though 'val_loss' could be it too; columns.loss=NAME" in warning
    assert read(tmp_path / "t.csv", both, columns={"loss": "loss"}).warnings == []
    assert read(tmp_path / "t.csv", ROWS.assign(Loss=ROWS["loss"])).warnings == [], "the same numbers"
    (warning,) = read(tmp_path / "t.csv", ROWS.assign(params=1.3 * ROWS["N"])).warnings
    assert "'params' could be it too" in warning
    with pytest.raises(
        UsageError, match=r"'test_loss', 'val_loss' could all be loss; say columns\.loss=NAME"
    ):
        read(tmp_path / "t.csv", both.rename(columns={"loss": "test_loss"}))
    runs = ROWS.assign(run=[f"a{i}" for i in range(36)], run_id=range(36))
    assert read(tmp_path / "t.csv", runs).frame["run"].nunique() == 36


@pytest.mark.parametrize(
    ("N", "D", "scale"),
    [
        ("Params (M)", "Tokens (B)", (1e6, 1e9)),
        ("params_M", "tokens_b", (1e6, 1e9)),
        ("Model size in millions", "Training tokens [10^9]", (1e6, 1e9)),
        ("Params (M params)", "tokens / 1e9", (1e6, 1e9)),
        ("n_params (thousands)", "jets (k)", (1e3, 1e3)),
    ],
)
def test_units_in_names_are_read(tmp_path: Path, N: str, D: str, scale: tuple[float, float]) -> None:
    rows = pd.DataFrame({N: ROWS["N"] / scale[0], D: ROWS["D"] / scale[1], "loss": ROWS["loss"]})
    losses = read(tmp_path / "t.csv", rows)
    same(losses)
    assert sum("by its name" in text for text in losses.warnings) == 2
    same(read(tmp_path / "t.csv", rows, columns={"N": N, "D": D}))


@pytest.mark.parametrize(
    ("name", "factor"),
    [("C (PFLOPs)", 1e15), ("compute [PF-days]", 8.64e19), ("FLOPs (1e18)", 1e18), ("C", 1.0)],
)
def test_units_of_compute(tmp_path: Path, name: str, factor: float) -> None:
    rows = ROWS[["N", "loss"]].assign(**{name: 6 * ROWS["N"] * ROWS["D"] / factor})
    same(read(tmp_path / "t.csv", rows))


def test_names_that_contradict_the_numbers_or_hold_logarithms(tmp_path: Path) -> None:
    plain = ROWS.rename(columns={"N": "Params (B)"})
    with pytest.raises(UsageError, match=r"in units of 1e\+09 by its name, but then N is up to 3e\+18"):
        read(tmp_path / "t.csv", plain)
    same(read(tmp_path / "t.csv", ROWS.rename(columns={"N": "params_b"}), columns={"N": "params_b"}))
    same(read(tmp_path / "t.csv", ROWS.rename(columns={"loss": "log_loss"}), columns={"loss": "log_loss"}))
    for name in ("log10 N", "ln_params", "logN"):
        rows = ROWS.assign(N=np.log10(ROWS["N"])).rename(columns={"N": name})
        with pytest.raises(UsageError, match="holds logarithms by its name; write N itself"):
            read(tmp_path / "t.csv", rows, columns={"N": name})
    twice = ROWS.assign(N=[f"{N / 1e6}M" for N in ROWS["N"]]).rename(columns={"N": "Params (M)"})
    with pytest.raises(UsageError, match="the name of the column has a unit too"):
        read(tmp_path / "t.csv", twice)


def test_names_with_spaces_that_become_one(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="two columns are called 'loss'"):
        read(tmp_path / "t.parquet", ROWS.assign(**{"loss ": 1.0}))


# ---- labels


@pytest.mark.parametrize(("one", "other"), [("1.1", "1.10"), ("01", "1"), ("1e3", "1000")])
def test_labels_that_are_one_number_are_not_merged(tmp_path: Path, one: str, other: str) -> None:
    rows = pd.concat([ROWS.assign(subset=one), ROWS.assign(subset=other, loss=1.01 * ROWS["loss"])])
    with pytest.raises(UsageError, match="which are one number but may be two names"):
        read(tmp_path / "t.csv", rows)


def test_labels_are_kept_as_they_are_written(tmp_path: Path) -> None:
    rows = ROWS.assign(subset=["1.10", "007"] * 18, seed=["None", "null"] * 18)
    found = read(tmp_path / "t.csv", rows).frame
    assert set(found["subset"]) == {"1.10", "007"}
    assert set(found["seed"]) == {"None", "null"}
    chosen = read(tmp_path / "t.csv", rows, where="seed == 'None'").frame
    assert set(chosen["subset"]) == {"1.10"}
    with pytest.raises(UsageError, match="'subset' in row 1 is empty or NA"):
        read(tmp_path / "t.csv", ROWS.assign(subset=["qcd", "NA"] * 18))


def test_a_run_of_several_seeds_is_no_curve(tmp_path: Path) -> None:
    """A model's name as the run, and a seed for every D: they were taken for one curve."""
    rows = ROWS.assign(run=[f"{N:.3g}" for N in ROWS["N"]], seed=[*range(6)] * 6)
    with pytest.raises(
        UsageError, match=r'run 1e\+07 has several seeds \(0, 1, 2\); 6 such runs\. .*"run,seed"'
    ):
        read(tmp_path / "t.csv", rows)
    assert read(tmp_path / "t.csv", rows, columns={"run": "run,seed"}).frame["run"].nunique() == 36


# ---- text


def test_comments_and_encodings(tmp_path: Path) -> None:
    same(read(tmp_path / "t.csv", f"# HEPData, 2026\n\n#: a, comment; with marks\nN,D,loss\n{BODY}"))
    same(read(tmp_path / "t.csv", f"# made by savetxt\n# N,D,loss\n{BODY}"))  # above bare numbers: the header
    same(read(tmp_path / "t.txt", f"N\tD\tloss\n{BODY}".replace(",", "\t").encode("utf-16")))
    with pytest.raises(UsageError, match="it is not UTF-8 text; save it as UTF-8"):
        read(tmp_path / "t.csv", f"N,D,loss,Größe\n{BODY}".encode("latin-1"))
    same(read(tmp_path / "v1.json.parquet.csv", f"N,D,loss\n{BODY}"))  # the last ending counts


def test_commas_that_mean_one_thing_or_none(tmp_path: Path) -> None:
    small = "N;D;loss\n" + "\n".join(f"{10 + i};{20 + i % 7};0,{600 + i}" for i in range(20))
    assert read(tmp_path / "t.csv", small).frame["loss"].max() == 0.619
    with pytest.raises(UsageError, match="'0,693' has a decimal comma and '1,000,000' has not"):
        read(tmp_path / "t.csv", "N;D;loss\n1,000,000;20,000,000;0,693\n")
    late = "N;D;loss\n" + "\n".join(f"{10 + i};{20 + i};3" for i in range(300)) + "\n400;400;4,933\n"
    with pytest.raises(UsageError, match=r"'4,933' could be 4\.933 or 4933"):
        read(tmp_path / "t.csv", late)
    for text in ("2,500B", "0,500B"):
        with pytest.raises(UsageError, match=r"could be 2\.500B or 2500B|a decimal comma"):
            read(tmp_path / "t.csv", f'N,D,loss\n1e7,"{text}",3\n')


# ---- conditions


def test_conditions_whose_cells_never_meet_are_named(tmp_path: Path) -> None:
    """Validation and training losses at other D: no cell holds two losses, and all were fitted as one law."""
    other = ROWS.assign(N=1.05 * ROWS["N"], D=1.05 * ROWS["D"], loss=1.1 * ROWS["loss"])
    rows = pd.concat([ROWS.assign(split="val", seen=True), other.assign(split="train", seen=False)])
    described = rows.assign(model=[f"{N:.3g}" + "-model" for N in rows["N"]], place="here")
    losses = read(tmp_path / "t.csv", described)
    named = [text.split("'")[1] for text in losses.warnings if "is read by nothing, though" in text]
    assert named == ["split", "seen"]
    apart = read(tmp_path / "t.csv", described, columns={"subset": "split"})
    assert not any("'split'" in text or "'seen'" in text for text in apart.warnings)
    alone = read(tmp_path / "t.csv", described, where="split == 'val'")
    assert not any("is read by nothing" in text for text in alone.warnings)
