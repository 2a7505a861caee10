"""JetClass-II: 188 labels in three buckets, parquet files whose classes are mixed.

Sources: ``jet-universe/jetclass2_generation:delphes_analyzers/makeNtuples.C`` (columns) and
``FatJetMatching.h`` beside it (labels). In label names q is u or d, e and m are leptons, tauh, taue and taum
are tau decays, v is a neutrino. Momenta and energies in GeV, impact parameters and vertices in mm, times in s
(as in the public file), angles in rad.

The public definition has 27 QCD labels: n_b, n_c, n_s each in {0, 1, at least 2}. arXiv:2606.19781 counts 17,
which no public code defines; the 17 here are the labels that name at most three partons, one reading of that
number, not a confirmed one. So the map from labels to classes is a setting, 27 the default.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from jetscale.jets.datasets.base import Anatomy, Dataset, JetFile, JetReader
from jetscale.jets.datasets.jetclass import COLUMNS, PART_FLOATS
from jetscale.jets.errors import JetDataError

if TYPE_CHECKING:
    from jetscale.jets.reading.locations import File

QCD_MAPS = ("27", "17", "1")
"""All 27 QCD labels as classes | the 17 that name at most three partons | QCD as one class."""

_RES2P = """
bb cc ss qq bc cs bq cq sq gg ee mm tauhtaue tauhtaum tauhtauh
"""
_RES34P = """
bbbb bbcc bbss bbqq bbgg bbee bbmm bbtauhtaue bbtauhtaum bbtauhtauh bbb bbc bbs bbq bbg bbe bbm cccc
ccss ccqq ccgg ccee ccmm cctauhtaue cctauhtaum cctauhtauh ccb ccc ccs ccq ccg cce ccm ssss ssqq ssgg
ssee ssmm sstauhtaue sstauhtaum sstauhtauh ssb ssc sss ssq ssg sse ssm qqqq qqgg qqee qqmm
qqtauhtaue qqtauhtaum qqtauhtauh qqb qqc qqs qqq qqg qqe qqm gggg ggee ggmm ggtauhtaue ggtauhtaum
ggtauhtauh ggb ggc ggs ggq ggg gge ggm bee cee see qee gee bmm cmm smm qmm gmm btauhtaue ctauhtaue
stauhtaue qtauhtaue gtauhtaue btauhtaum ctauhtaum stauhtaum qtauhtaum gtauhtaum btauhtauh ctauhtauh
stauhtauh qtauhtauh gtauhtauh qqqb qqqc qqqs bbcq ccbs ccbq ccsq sscq qqbc qqbs qqcs bcsq bcs bcq
bsq csq bcev csev bqev cqev sqev qqev bcmv csmv bqmv cqmv sqmv qqmv bctauev cstauev bqtauev cqtauev
sqtauev qqtauev bctaumv cstaumv bqtaumv cqtaumv sqtaumv qqtaumv bctauhv cstauhv bqtauhv cqtauhv
sqtauhv qqtauhv
"""
_QCD = """
bbccss bbccs bbcc bbcss bbcs bbc bbss bbs bb bccss bccs bcc bcss bcs bc bss bs b ccss ccs cc css cs
c ss s light
"""

BUCKET_LABELS: dict[str, tuple[str, ...]] = {
    "Res2P": tuple(f"X_{name}" for name in _RES2P.split()),
    "Res34P": tuple(f"X_YY_{name}" for name in _RES34P.split()),
    "QCD": tuple(f"QCD_{name}" for name in _QCD.split()),
}
"""The class names of each bucket; buckets in label order (15 + 146 + 27)."""

JETCLASS2_LABELS = tuple(name for names in BUCKET_LABELS.values() for name in names)
"""All 188 names; position = ``jet_label``."""

JETCLASS2_COLUMNS: dict[str, str] = {
    **{f"part_{name}": "list<float32>" for name in PART_FLOATS},
    "part_charge": "list<int32>",
    **{
        f"part_is{kind}": "list<bool>"
        for kind in ("Electron", "Muon", "Photon", "ChargedHadron", "NeutralHadron")
    },
    **{f"jet_{name}": "float32" for name in ("pt", "eta", "phi", "energy", "sdmass")},
    "jet_nparticles": "int32",
    **{f"jet_tau{n}": "float32" for n in (1, 2, 3, 4)},
    "jet_label": "int32",
    **{f"genpart_{name}": "list<float32>" for name in ("px", "py", "pz", "energy", "jet_deta", "jet_dphi")},
    **{f"genpart_{name}": "list<float32>" for name in ("x", "y", "z", "t")},
    "genpart_pid": "list<int32>",
    **{f"genjet_{name}": "float32" for name in ("pt", "eta", "phi", "energy", "sdmass")},
    "genjet_nparticles": "int32",
    **{f"aux_genpart_{name}": "list<float32>" for name in ("pt", "eta", "phi", "mass")},
    "aux_genpart_pid": "list<int32>",
    **{
        f"aux_genpart_is{kind}": "list<bool>"
        for kind in ("ResX", "ResY", "ResDecayProd", "TauDecayProd", "QcdParton")
    },
}
"""The 54 parquet columns and their published types."""

JETCLASS2_NUMBERS = {
    "Res2P": {"train": range(200), "val": range(200, 250), "test": range(250, 300)},
    "Res34P": {"train": range(860), "val": range(860, 1075), "test": range(1075, 1290)},
    "QCD": {"train": range(280), "val": range(280, 350), "test": range(350, 420)},
}
"""File numbers of each split, by bucket."""

_PARTON = re.compile("tauh|taue|taum|light|[bcsqgemv]")
_TAU = frozenset({"tauh", "taue", "taum"})


def _anatomy(name: str) -> Anatomy:
    """Prongs and flavours of a class from its published name."""
    bucket, _, partons = name.rpartition("_")
    found = _PARTON.findall(partons)
    flavours = frozenset("tau" if parton in _TAU else parton for parton in found if parton != "v")
    return Anatomy(1 if bucket == "QCD" else sum(parton != "v" for parton in found), flavours)


def _class_of(label: str, qcd_labels: str) -> str | None:
    """Class of a label, None where its jets are left out."""
    if qcd_labels not in QCD_MAPS:
        raise JetDataError(f"qcd_labels={qcd_labels!r} is none of {', '.join(QCD_MAPS)}")
    if not label.startswith("QCD_"):
        return label
    if qcd_labels == "1":
        return "QCD"
    partons = label.removeprefix("QCD_")
    if qcd_labels == "17" and partons != "light" and len(partons) > 3:
        return None
    return label


def _numbered(process: str, number: int) -> JetFile:
    if process not in JETCLASS2_NUMBERS:
        raise ValueError(f"no process {process!r} in dataset 'jetclass2'")
    for split, numbers in JETCLASS2_NUMBERS[process].items():
        if number in numbers:
            path = Path("JetClassII", "Pythia", f"{process}_{number:04d}.parquet")
            return JetFile("jetclass2", process, number, split, path)
    raise ValueError(f"{process}_{number} is outside the published file numbers {JETCLASS2_NUMBERS[process]}")


def _file_of(name: str) -> JetFile:
    match = re.fullmatch(r"([A-Za-z0-9]+)_([0-9]{3,4})\.parquet", name)
    if not match:
        raise ValueError(f"{name}: not named {{Bucket}}_{{NNNN}}.parquet")
    return _numbered(match[1], int(match[2]))


def _open(path: Path, called: File) -> JetReader:
    from jetscale.jets.reading.parquet_reader import ParquetReader  # pyarrow, which --help does not need

    return ParquetReader(path, called, "jet_label", len(JETCLASS2_LABELS))


JETCLASS2 = Dataset(
    name="jetclass2",
    title="JetClass-II",
    origin="the Hugging Face dataset jet-universe/jetclass2",
    folder="JetClassII",
    suffixes=(".parquet",),
    file_names="{Bucket}_{NNNN}.parquet",
    layout="parquet files {Bucket}_{NNNN}.parquet",
    labels=JETCLASS2_LABELS,
    columns=COLUMNS,
    file_of=_file_of,
    open=_open,
    # with data.qcd_labels=1 the QCD jets are one class
    anatomy={**{name: _anatomy(name) for name in JETCLASS2_LABELS}, "QCD": Anatomy(1, frozenset())},
    buckets=BUCKET_LABELS,
    class_of=_class_of,
    numbered=_numbered,
    downloadable=True,
    processes=tuple(JETCLASS2_NUMBERS),
)
