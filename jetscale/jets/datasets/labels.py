"""Class names of JetClass and JetClass-II, in the published index order.

Sources: ``jet-universe/particle_transformer:data/JetClass/JetClass_full.yaml`` and
``jet-universe/jetclass2_generation:delphes_analyzers/FatJetMatching.h``. In JetClass-II names q is u or d,
e and m are leptons, tauh/taue/taum are tau decays, v is a neutrino.
"""

from __future__ import annotations

JETCLASS_LABELS = ("QCD", "Hbb", "Hcc", "Hgg", "H4q", "Hqql", "Zqq", "Wqq", "Tbqq", "Tbl")
"""JetClass: index in the model's output = position here."""

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
"""JetClass-II: the class names of each bucket; buckets in label order (15 + 146 + 27)."""

JETCLASS2_LABELS = tuple(name for names in BUCKET_LABELS.values() for name in names)
"""JetClass-II: all 188 names; position = ``jet_label``."""
