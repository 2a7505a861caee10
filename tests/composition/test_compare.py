from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from jetscale.common.config_safety import CONF
from jetscale.common.usage import UsageError
from jetscale.composition.__main__ import PROGRAM, main
from jetscale.composition.named import choose, shipped
from jetscale.composition.observables import OBSERVABLES
from jetscale.composition.sampling import draw
from jetscale.jets.errors import JetDataError
from jetscale.jets.settings import DataSettings


@pytest.fixture(scope="session")
def store(simulated_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("composition-store")


def settings_of(data: Path, store: Path) -> DataSettings:
    return DataSettings(dir=str(data), store=str(store))


def test_observables_are_those_of_the_files(simulated_data, store) -> None:
    """Read again from the published columns, with separate code."""
    found = draw(settings_of(simulated_data, store), "jetclass2", {"QCD": 1}, 200, seed=0)
    (file,) = (simulated_data / "JetClassII").rglob("QCD_*.parquet")
    jets = pq.read_table(file).to_pandas()
    expected = []
    for _, jet in jets.iterrows():
        tau = [max(jet[f"jet_tau{n}"], 0.0) for n in (1, 2, 3, 4)]
        ratios = [tau[n] / tau[n - 1] if tau[n - 1] > 0 else 0.0 for n in (1, 2, 3)]
        d0, error = jet["part_d0val"], jet["part_d0err"]
        far = sum(abs(value) > 5 * sigma and value != 0 for value, sigma in zip(d0, error, strict=True))
        expected.append([jet["jet_pt"], jet["jet_sdmass"], *ratios, jet["jet_nparticles"], far])
    ours, theirs = found.values_BO, np.array(expected)
    assert len(ours) == len(theirs) == 200
    ours, theirs = (values[np.argsort(values[:, 0])] for values in (ours, theirs))
    assert np.allclose(ours[:, :-1], theirs[:, :-1], rtol=1e-6)
    assert theirs[:, -1].sum() > 50
    assert (ours[:, -1] != theirs[:, -1]).mean() < 0.03, (
        "half precision moves a track across 5 sigma at times"
    )
    assert np.abs(ours[:, -1] - theirs[:, -1]).max() <= 1


def test_jets_are_those_of_the_run_and_never_twice(simulated_data, store) -> None:
    settings = settings_of(simulated_data, store)
    request = {"QCD": 1, "Res34P": 1}
    whole = draw(settings, "jetclass2", request, 240, seed=3)
    assert np.array_equal(
        draw(settings, "jetclass2", request, 40, seed=3, skip=200).values_BO, whole.values_BO[200:]
    )
    assert len({tuple(jet) for jet in whole.values_BO}) == 240
    with pytest.raises(
        JetDataError, match=r"340 jets asked in a single pass, .* of 'Res34P' .*runs out at jet 291"
    ):
        draw(settings, "jetclass2", request, 300, seed=3, skip=40)


@pytest.mark.slow
def test_compare_orders_compositions_by_alignment(warm, simulated_data, store, tmp_path) -> None:
    words = [
        "compare", f"dir={simulated_data}", f"store={store}", "jets=180", "draws=4",
        "names=[qcd,bsm_all,qcd_res2p]", f"out={tmp_path}/out", "own.two={X_*: 1, QCD_light: 1}",
    ]  # fmt: skip
    done = warm.run("jetscale.composition", words, tmp_path)
    assert done.returncode == 0, done.stderr
    content = json.loads((tmp_path / "out/compare.json").read_text())
    measures = content["measures"]
    assert list(measures) == ["(downstream)", "qcd", "bsm_all", "qcd_res2p", "two"]

    def value(name: str, key: str) -> float:
        return float(measures[name][key]["value"])

    assert abs(value("(downstream)", "auc") - 0.5) < 0.12, "jets of the same classes cannot be told apart"
    assert value("qcd", "auc") > value("bsm_all", "auc") > 0.6
    assert value("qcd", "distance") > value("bsm_all", "distance") > value("(downstream)", "distance")
    assert value("bsm_all", "effective_classes") > 3 * value("qcd", "effective_classes")
    for row in measures.values():
        assert {f"distance.{name}" for name in OBSERVABLES} <= set(row)
        assert all(entry["ci95"][0] <= entry["value"] <= entry["ci95"][1] for entry in row.values())
        assert all(entry["sd"] > 0 for entry in row.values())
    lines = [line for line in done.stdout.splitlines() if line.startswith("│")]
    assert [line.split()[1] for line in lines] == sorted(measures, key=lambda name: value(name, "auc"))
    for name in ("map.svg", "map.png", "observables.svg", "observables.png"):
        assert (tmp_path / "out" / name).stat().st_size > 5_000
    command = [sys.executable, "-m", "jetscale.composition", *words]  # with another seed of hashes
    again = subprocess.run(command, capture_output=True, text=True, check=True)
    assert again.stdout == done.stdout
    assert json.loads((tmp_path / "out/compare.json").read_text()) == content


def test_show_says_where_a_single_pass_ends(simulated_data, store, capsys) -> None:
    main(["show", f"dir={simulated_data}", f"store={store}", "names=[qcd]", "own.mine={QCD: 1, Res2P: 3}"])
    shown = capsys.readouterr().out
    assert "27: QCD_bbccss" in shown
    assert [line.split()[-2] for line in shown.splitlines() if line.startswith("│ qcd")] == ["200"]
    (res2p,) = (line for line in shown.splitlines() if " Res2P " in line)
    assert 130 / 0.75 - 1 < int(res2p.split()[-2]) < 130 / 0.75 + 10, "130 jets are three quarters of that"


def test_show_of_a_store_without_a_bucket(simulated_data, tmp_path, capsys) -> None:
    (file,) = (simulated_data / "JetClassII").rglob("QCD_*.parquet")
    (tmp_path / "JetClassII").mkdir()
    (tmp_path / "JetClassII" / file.name).symlink_to(file)
    main(["show", f"dir={tmp_path}", "names=[qcd,qcd_res2p]"])
    shown = capsys.readouterr().out
    (res2p,) = (line.split() for line in shown.splitlines() if " Res2P " in line)
    assert res2p[-4:-1:2] == ["0", "0"], "jets, and single pass"
    (qcd,) = (line.split() for line in shown.splitlines() if line.startswith("│ qcd "))
    assert qcd[-4:-1:2] == ["200", "200"]
    assert "since a component has no jets: qcd_res2p (Res2P)" in shown
    with pytest.raises(UsageError, match="holds no jet of 'Res2P', which has a weight"):
        main(["compare", f"dir={tmp_path}", "names=[qcd_res2p]", f"out={tmp_path}/out"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "'nothing' is no command"),
        (["measure"], "'measure' is no command; commands: compare, show"),
        (["compare", "names=[bsm]"], "names: no experiment 'bsm' with a composition; there are .*bsm_all"),
        (["show", "own.qcd={QCD: 1}"], "own.qcd: an experiment has that name"),
        (["compare", "own.x={QDC: 1}"], "'QDC' matches no class"),
        (["compare", "own.x={QCD: 1}", "jets=1000"], "1,000 jets asked in a single pass"),
        (["compare", "own.x={QCD: 1}", "jets=39"], "jets=39: must be a whole number from 40"),
        (["compare", "jet=3"], "unknown key 'jet'"),
    ],
)
def test_errors(simulated_data, store, tmp_path, arguments, message) -> None:
    command, rest = arguments[:1], arguments[1:]
    where = [f"dir={simulated_data}", f"store={store}"]
    if "compare" in command:
        where += ["draws=2", f"out={tmp_path}"]
    with pytest.raises(UsageError, match=message):
        main([*command, *(where if command in (["compare"], ["show"]) else []), *rest])
    assert not list(tmp_path.iterdir()), "nothing is written before all is known to be there"


def test_every_shipped_composition_is_known() -> None:
    known = shipped(CONF)
    design = {
        f"{alignment}_{spread}" for alignment in ("aligned", "misaligned") for spread in ("narrow", "diverse")
    }
    decays = {"multi_prong", "qcd_flavours"}
    assert set(known) == design | decays | {"misaligned_single", "qcd", "qcd_res2p", "qcd_res34p", "bsm_all"}
    assert choose(known, [], {}) == known
    assert list(choose(known, ["qcd"], {"mine": {"QCD": 1}})) == ["qcd", "mine"]
    assert list(choose(known, [], {"mine": {"QCD": 1}})) == ["mine"]


def test_the_kinds_of_decay_differ_in_nothing_else() -> None:
    """Equal classes, shares and momenta: what a run pretrained on the one and on the other differs by."""
    known = shipped(CONF)
    spectra = []
    for name, buckets in (("multi_prong", {"X_YY"}), ("qcd_flavours", {"QCD"})):
        by_class: dict[str, list[tuple[tuple[int, int], int]]] = {}
        for part in known[name].values():
            by_class.setdefault(part["classes"], []).append((tuple(part["jet_pt"]), part["weight"]))
        assert {label.rsplit("_", 1)[0] for label in by_class} == buckets
        (spectrum,) = {tuple(sorted(parts)) for parts in by_class.values()}  # the same for each class
        spectra.append((len(by_class), spectrum))
    assert spectra[0] == spectra[1]
    assert spectra[0][0] == 7


def test_help(capsys) -> None:
    main(["--help"])
    assert "compare" in capsys.readouterr().out
    for command in ("compare", "show"):
        with pytest.raises(SystemExit):
            main([command, "--help"])
        assert f"usage: {PROGRAM} {command} [key=value ...]" in capsys.readouterr().out
