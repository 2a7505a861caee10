"""The answers that open the report: one sentence a question, every number from results.json or the losses.

What the data do not show is said in plain words: "no difference was found" is an answer, "not known" another.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from jetscale.analysis.answers.fitted import fitted_of
from jetscale.analysis.fitting.approach import approaches
from jetscale.analysis.output.formatting import amount, amounts, brief, joined, percent, size_of
from jetscale.analysis.output.optima import Optimum, common_budget, optima
from jetscale.analysis.output.published import published_difference
from jetscale.analysis.tables.variants import REFERENCE

if TYPE_CHECKING:
    from jetscale.analysis.tables.loss_table import LossTable

LEVEL = 0.05
"""Of a test that finds a difference."""
POWER_80 = 0.8416
"""Standard deviations beyond the edge of an interval at which an effect is seen in 80% of studies."""


@dataclass(frozen=True)
class Answer:
    """A question of the study, its answer in one sentence, and what the sentence rests on."""

    question: str
    sentence: str
    detail: str = ""


def answers(results: dict[str, Any], losses: LossTable) -> list[Answer]:
    """Answer every question of the study.

    Parameters
    ----------
    results : content of results.json, of this or of an earlier version: keys that it lacks are said to be
        missing.
    losses : the table that was fitted.

    Returns
    -------
    The answers, in the order in which the report gives them.
    """
    return [
        Answer("Does the composition change the exponent?", *_exponent(results)),
        Answer("How large a difference could this design have seen?", *_seen(results)),
        Answer("What is the gain of pretraining, and where?", *_gain(results)),
        Answer("What is pretraining worth in jets?", *_worth(results)),
        Answer("What would you do with a budget C?", *_budget(results, losses)),
    ]


def _exponent(results: dict[str, Any]) -> tuple[str, str]:
    if len(results["subsets"]) < 2:
        return _of_one(results), ""
    joint = results.get("joint") or {}
    test = joint.get("tests", {}).get("same_exponents")
    if test is None or test["p"] is None:
        sentence, detail = _by_differences(results)
        missing = "no joint test is in these results" if test is None else f"no joint test: {test['problem']}"
        return sentence, f"{detail} {missing[0].upper()}{missing[1:]}.".strip()
    p = f"p = {test['p']:.2g}" + (f" ± {test['p_sd']:.1g}" if test.get("p_sd") else "")
    n = len(joint["subsets"])
    if test["verdict"].startswith("not"):
        sentence = f"No difference was found: the exponents of the {n} subsets are not distinguishable ({p})."
    else:
        moved = [
            f"{pair}: {brief(contrast['a'], signed=True)}"
            for pair, contrast in test["contrasts"].items()
            if pair.partition(" - ")[0] in test["differs"] and contrast["a"]["value"] is not None
        ]
        named = f"; a differs by {'; '.join(moved)}" if moved else "; no single subset stands out"
        sentence = f"Yes: the exponents of the {n} subsets differ ({p}){named}."
    return sentence, " ".join(part for part in (*_of_the_test(test), *_of_the_joint_fit(joint)) if part)


def _of_one(results: dict[str, Any]) -> str:
    """The exponents of the only subset, by every approach that gives one."""
    (fit,) = results["subsets"].values()
    found = [(one.label, fit[one.name]["a"]) for one in approaches()]
    told = [f"{brief(entry)} ({label})" for label, entry in found if entry["value"] is not None]
    known = f"a = {joined(told)}" if told else "for which no approach gives an exponent"
    return f"Not asked: these losses are of one subset, {'with ' if told else ''}{known}."


def _of_the_test(test: dict[str, Any]) -> Iterator[str]:
    """What the p of a nested test rests on, where the law's own misfit decides it."""
    runs, misfit = test.get("p_runs"), test.get("p_misfit")
    if runs is not None and misfit is not None and runs < LEVEL <= misfit:
        yield (
            f"They differ by more than runs and test jets scatter (p = {runs:.2g}), but by less than the law "
            "itself misses of the losses."
        )


def _of_the_joint_fit(joint: dict[str, Any]) -> Iterator[str]:
    """What sharing costs, whether the offsets differ, and whether intervals cover."""
    rms, separate = (100 * joint[key] for key in ("rms", "rms_separate"))
    yield f"With one alpha and one beta for all the residuals are {rms:.2f}% (rms), else {separate:.2f}%."
    offset = joint["tests"].get("offset_only") or {}
    if offset.get("p") is not None:
        verb = "are not distinguishable" if offset["verdict"].startswith("not") else "differ"
        yield f"The offsets (A and B) {verb} (p = {offset['p']:.2g})."
    yield (joint.get("coverage") or {}).get("sentence", "")


def _pairs(results: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Paired differences of a by the surface that have a value."""
    found = {pair: group.get("approach3.a") for pair, group in results["differences"].items()}
    return {pair: entry for pair, entry in found.items() if entry and entry["value"] is not None}


def _by_differences(results: dict[str, Any]) -> tuple[str, str]:
    pairs = _pairs(results)
    bounded = {pair: entry for pair, entry in pairs.items() if entry["ci95"] is not None}
    if not bounded:
        why = "no two subsets have an a to compare" if not pairs else "the differences have no interval"
        return f"Not known: {why}.", ""
    off = {pair: entry for pair, entry in bounded.items() if excludes_zero(entry)}
    n = len(bounded)
    told = "; ".join(f"{pair}: {brief(entry, signed=True)}" for pair, entry in (off or bounded).items())
    if not off:
        return f"No difference was found: every interval of a difference of a holds 0 ({told}).", ""
    caution = f"Intervals are not corrected for {n} comparisons." if n > 1 else ""
    start = "Perhaps" if n > 1 else "Yes"
    return f"{start}: {len(off)} of {n} differences of a (surface) exclude 0 ({told}).", caution


def _seen(results: dict[str, Any]) -> tuple[str, str]:
    test = (results.get("joint") or {}).get("tests", {}).get("same_exponents") or {}
    seen = {
        pair: contrast["a"]["detectable"]
        for pair, contrast in test.get("contrasts", {}).items()
        if contrast["a"].get("detectable") is not None
    }
    how = "From the paired contrasts of the joint fit."
    alone = (test.get("detectable_by_runs") or {}).get("a")
    if alone is not None and test.get("p_misfit") is not None:
        how += f" What the law misses is counted; by runs and test jets alone it is {alone:.2f} at worst."
    if not seen:
        how = "From the paired differences: half of an interval plus 0.84 standard deviations."
        seen = {
            pair: 0.5 * (entry["ci95"][1] - entry["ci95"][0]) + POWER_80 * entry["sd"]
            for pair, entry in _pairs(results).items()
            if entry["ci95"] is not None
        }
    if not seen:
        return "Not known: no difference of exponents has an interval.", ""
    ordered = sorted(seen, key=lambda pair: seen[pair])
    least, most = ordered[0], ordered[-1]
    text = f"At best a difference in a of {seen[least]:.2f} ({least})"
    text += f", at worst one of {seen[most]:.2f} ({most})" if most != least else ""
    sentence = f"{text}, with 80% power at the 5% level; smaller ones mostly go unseen."
    return sentence, f"{how} {_against_paper(seen)}".strip()


def _against_paper(seen: dict[str, float]) -> str:
    paper = {pair: published_difference(pair) for pair in seen}
    known = {pair: value for pair, value in paper.items() if value is not None}
    if not known:
        return ""
    large = [pair for pair, value in known.items() if abs(value) >= seen[pair]]
    told = ", ".join(f"{value:+.2f} ({pair})" for pair, value in known.items())
    return f"Of the differences that the paper reports, {told}, {len(large)} of {len(known)} are as large."


def _comparisons(results: dict[str, Any], key: str) -> Iterator[tuple[str, dict[str, Any], dict[str, Any]]]:
    """Subset, entry and the last point of its curve that has a value for `key`."""
    for name, entries in results.get("gain", {}).items():
        for entry in entries:
            known = [point for point in entry["curve"] if point[key]["value"] is not None]
            if known:
                yield name, entry, known[-1]


def _gain(results: dict[str, Any]) -> tuple[str, str]:
    points = [
        (name, entry, point)
        for name, entries in results.get("gain", {}).items()
        for entry in entries
        for point in entry["curve"]
        if point["difference"]["value"] is not None
    ]
    if not points:
        return f"Not known: there is no {REFERENCE} to compare with.", ""
    bounded = [one for one in points if one[2]["difference"]["ci95"] is not None]
    if not bounded:
        return "Not known: with one seed a gain has no interval.", ""
    ends = [one for one in _comparisons(results, "difference") if one[2]["difference"]["ci95"] is not None]
    below, above = _counted([point["difference"] for _, _, point in ends])
    end = f"at the end of the curves {below} of {len(ends)} are below scratch, and {above} above"
    clear = [one for one in bounded if excludes_zero(one[2]["difference"])]
    lower = [one for one in clear if one[2]["difference"]["value"] < 0]
    if not lower:
        return f"No gain is seen: no loss is below scratch beyond its interval; {end}.", ""
    name, entry, point = min(lower, key=lambda one: one[2]["difference"]["value"])
    sentence = (
        f"The largest is that of {name} at {size_of(entry)} and D = {amount(point['jets'])} "
        f"{results['sample']}s: the loss is {percent(point['difference'])} against scratch; {end} (beyond "
        "their intervals)."
    )
    caution = f"The largest of {len(bounded)} values compared errs to the high side."
    return sentence, f"{caution} {_paid_back(results)}".strip()


def _counted(entries: list[dict[str, Any]]) -> tuple[int, int]:
    """How many are below and above 0 beyond their intervals."""
    clear = [entry["value"] for entry in entries if excludes_zero(entry)]
    return sum(value < 0 for value in clear), sum(value > 0 for value in clear)


def _paid_back(results: dict[str, Any]) -> str:
    compared = [
        point["same_flops"]
        for _, _, point in _comparisons(results, "same_flops")
        if point["same_flops"]["ci95"] is not None
    ]
    if not compared:
        return ""
    below, above = _counted(compared)
    return (
        f"With the pretraining counted, at equal FLOPs, {below} of {len(compared)} comparisons are below "
        f"scratch beyond their interval, and {above} above."
    )


def _worth(results: dict[str, Any]) -> tuple[str, str]:
    transfer = results.get("transfer") or {}
    if not transfer:
        return _by_multiplier(results)
    known = {name: entry for name, entry in transfer.items() if entry["D_T"]["value"] is not None}
    unknown = [
        f"{name} ({'; '.join(dict.fromkeys(entry['refused'].values())) or 'no reason given'})"
        for name, entry in transfer.items()
        if name not in known
    ]
    parts = ["By the law of extra data."] if known else []
    parts += [f"Not determined: {joined(unknown)}."] if unknown else []
    verdict = (results.get("transfer_laws") or {}).get("verdict")
    parts += [f"Of the laws compared, {verdict}."] if verdict else []
    if not known:
        return "Not known: no law of transfer determines it.", " ".join(parts)
    places = {name: _at(entry["at"]) for name, entry in known.items()}
    common = set(places.values()).pop() if len(set(places.values())) == 1 else ""
    told = [f"{name} {amounts(known[name]['D_T'])}{'' if common else places[name]}" for name in known]
    return f"Fine-tuning {results['sample']}s that it replaces{common}: {'; '.join(told)}.", " ".join(parts)


def _at(at: dict[str, Any]) -> str:
    size = f"width {at['dim']:g}" if at.get("dim") else f"N = {amount(at['n_params'])}"
    spent = at.get("pretrain_jets")
    return f" at {size}" + (f" after {amount(spent)} of pretraining" if spent else "")


def _by_multiplier(results: dict[str, Any]) -> tuple[str, str]:
    """What scratch needs beyond D for the same loss, off the curves at the last D where it gets there."""
    missing = "No transfer law is in these results: read off the curves."
    best: dict[str, tuple[float, str]] = {}
    for name, entries in results.get("gain", {}).items():
        for entry in entries:
            known = [point for point in entry["curve"] if point["multiplier"]["ci95"] is not None]
            if known:
                point = known[-1]
                low, high = ((end - 1) * point["jets"] for end in point["multiplier"]["ci95"])
                worth = {"value": (point["multiplier"]["value"] - 1) * point["jets"], "ci95": [low, high]}
                text = f"{name}: {amounts(worth)} at {size_of(entry)} and D = {amount(point['jets'])}"
                if name not in best or worth["value"] > best[name][0]:
                    best[name] = (worth["value"], text)
    if not best:
        return "Not known: there is no curve from scratch that reaches the same loss.", ""
    told = "; ".join(text for _, text in best.values())
    sentence = f"{results['sample'].capitalize()}s that scratch needs besides for the same loss: {told}."
    return sentence, f"{missing} For each subset the width where it is most."


def _budget(results: dict[str, Any], losses: LossTable) -> tuple[str, str]:
    """What to do with a total budget where the law of transfer says it, else with one of fine-tuning."""
    sentence, detail = _finetuning(results, losses)
    total = results.get("total_budget") or {}
    if "splits" not in total:
        refused = f"With the pretraining in the budget: not known, since {total['refused']}." if total else ""
        return sentence, f"{detail} {refused}".strip()
    command = "python -m jetscale.analysis.plan results=DIR total_budget=FLOPS price.simulate=FLOPS"
    other = f"Other budgets, and jets that cost simulation: {command}."
    return _total(total, f"{results['sample']}s"), f"Fine-tuning alone: {sentence} {detail} {other}"


def _total(total: dict[str, Any], sample: str) -> str:
    """The split of a total budget with the lowest loss."""
    name, best = next(iter(total["splits"].items()))
    head = f"With {amount(total['budget'])} FLOPs in total, pretraining included, "
    bought = f"N = {amounts(best['N'])} parameters and D = {amounts(best['D'])} {sample} of fine-tuning"
    if best["D_pre"] is not None:
        bought += f" after {amounts(best['D_pre'])} of pretraining"
        bought += f", a loss of {best['against_scratch']['value']:.3f} times that of scratch"
    beyond = (
        " (a projection outside what was trained)" if any("extra" in text for text in best["flags"]) else ""
    )
    return f"{head}{name} has the lowest loss, with {bought}{beyond}; which composition: {total['which']}."


def _finetuning(results: dict[str, Any], losses: LossTable) -> tuple[str, str]:
    """What to do with a budget of fine-tuning, whatever the pretraining cost."""
    fitted = fitted_of(results, losses)
    C = common_budget(results, fitted)
    found = optima(results, fitted, C) if C else {}
    if not found:
        return "Not known: no subset has a fitted law.", ""
    best = min(found, key=lambda name: found[name].loss)
    head = f"With C = {amount(C)} FLOPs"
    if len(found) == 1:
        return f"{head}: {_described(found[best], results)}.", ""
    others = [name for name in found if name != best]
    against = REFERENCE if REFERENCE in others else min(others, key=lambda name: found[name].loss)
    gap = math.log(found[against].loss / found[best].loss)
    missed = max(found[best].missed, found[against].missed)
    if gap <= missed:
        low, high = found[best].loss, max(one.loss for one in found.values())
        sentence = (
            f"{head} of fine-tuning no subset stands out: fitted losses go from {low:.3f} ({best}) to "
            f"{high:.3f}, and {against} has {found[against].loss:.3f}, less apart than the law misses "
            f"({100 * missed:.1f}%); for {best}, {_described(found[best], results)}."
        )
    else:
        sentence = (
            f"{head} of fine-tuning take {best}: {_described(found[best], results)} (loss of {against}: "
            f"{found[against].loss:.3f})."
        )
    return sentence, _paid_back(results)


def _described(one: Optimum, results: dict[str, Any]) -> str:
    text = f"N* = {amount(one.N)} parameters, D* = {amount(one.D)} {results['sample']}s, loss {one.loss:.3f}"
    return f"{text}, a projection outside what was trained" if one.outside else text


def excludes_zero(entry: dict[str, Any]) -> bool:
    """Whether the interval of a difference has 0 outside."""
    ends = entry["ci95"]
    return ends is not None and not ends[0] <= 0 <= ends[1]
