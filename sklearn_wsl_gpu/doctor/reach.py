"""What lies between client and worker: a session, the versions on both sides, the carriers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sklearn_wsl_gpu import config
from sklearn_wsl_gpu.carriers import calibration
from sklearn_wsl_gpu.carriers.base import BACK, THERE
from sklearn_wsl_gpu.carriers.calibration import Rates
from sklearn_wsl_gpu.doctor import packages
from sklearn_wsl_gpu.doctor.asking import Answer, ask_probe, describe
from sklearn_wsl_gpu.doctor.checks import OK, Circumstances, Finding, failed, information, ok, skipped, warning
from sklearn_wsl_gpu.protocol.version import PROTOCOL, minor

REACH_SECONDS = 180.0
_MISMATCH = "version-mismatch"
_REMEDIES = {
    "configuration": "Correct that setting; README, Settings, lists them.",
    "authentication": "Name the directory of this worker's keys with --keys, or SKLEARN_WSL_GPU_KEYS.",
    _MISMATCH: "Upgrade sklearn_wsl_gpu and scikit-learn on the older side.",
    "worker-start": "The rows above say what it lacks; offload(verbose=1) shows all that it prints.",
    "worker-unreachable": "Start it (sklearn-wsl-gpu worker start), or unset endpoint for one of each process's own. "
    "Between Windows and WSL: wsl --shutdown; or a VPN or firewall is in the way of 127.0.0.1.",
}
_REMEDY = "Look at the failed rows first; offload(fallback='raise', verbose=1) shows all that the worker prints."


def judge_reach(facts: Mapping[str, Any], answer: Answer) -> Finding:
    """Decide on a session, by what `probes.reach` told."""
    code, error = facts.get("code"), facts.get("error")
    if "trip_seconds" not in facts:
        return failed(str(error or describe(answer, REACH_SECONDS)), _REMEDIES.get(str(code), _REMEDY))
    evidence = (
        f"{facts['endpoint']}: a session in {facts['open_seconds']:.1f} s, engine {', '.join(facts['engines'])}, "
        f"a question and its answer in {facts['trip_seconds'] * 1e3:.2f} ms"
    )
    if facts.get("reach_seconds") is not None:
        evidence += f"; its port was there for this side {facts['reach_seconds']:.1f} s after it was opened"
    if facts.get("echo"):
        return ok(f"{evidence}, 64 KiB there and back unchanged")
    if "no_echo" in facts:
        return ok(f"{evidence}; 64 KiB were not sent: {facts['no_echo']}")
    if error or answer.code:
        return failed(f"{evidence}. A call: {error or describe(answer, REACH_SECONDS)}", _REMEDY)
    return failed(f"{evidence}. 64 KiB came back changed.", "Do not use this carrier; please report this.")


def look_at_reach(circumstances: Circumstances) -> Finding:
    started = circumstances.results.get("interpreter", OK) == OK
    if not started and config.resolve(circumstances.arguments).endpoint is None:
        return skipped("It depends on interpreter.")  # whatever hangs there would hang again
    facts, answer = ask_probe("reach", circumstances.arguments, REACH_SECONDS)
    circumstances.noted["reach"] = facts
    return judge_reach(facts, answer)


def judge_versions(facts: Mapping[str, Any], here: Mapping[str, str], there: Mapping[str, str]) -> Finding:
    """Decide on whether the sides fit.

    Parameters
    ----------
    facts : mapping
        What `probes.reach` told.
    here, there : mapping of str to str
        Versions by name, on the client's side and on the worker's.
    """
    if facts.get("code") == _MISMATCH:
        return failed(str(facts["error"]), _REMEDIES[_MISMATCH])
    if not there:
        return skipped("The worker told no versions.")
    told = [f"{name} {here[name]}" for name, other in there.items() if other == here.get(name)]
    differing = [
        f"{name} {here.get(name) or 'none'} here and {other or 'none'} there"
        for name, other in there.items()
        if other != here.get(name)
    ]
    evidence = "; ".join([f"Protocol {PROTOCOL}, equal on both sides: {', '.join(told) or 'nothing'}", *differing])
    wrong = [name for name in there if name in ("numpy", "sklearn-wsl-gpu") and there[name] != here.get(name)]
    if wrong and any(minor(there[name]) != minor(here.get(name, "")) for name in wrong):
        return warning(evidence, "Install equal versions: sklearn-wsl-gpu setup does that in WSL.")
    if here.get("pandas", "") not in ("", there.get("pandas")):
        return information(
            f"{evidence}. Pipelines and searches on DataFrames go in parts.",
            f"If you have such: install pandas {here['pandas']} on the worker's side, or the worker's on this one.",
        )
    return ok(evidence)


def _there(circumstances: Circumstances) -> dict[str, str]:
    told = circumstances.noted.get("reach", {}).get("versions", {})
    found = {name.replace("_", "-"): text for name, text in told.items()}
    return {**circumstances.noted.get("versions", {}), **found}


def look_at_versions(circumstances: Circumstances) -> Finding:
    return judge_versions(circumstances.noted.get("reach", {}), packages.versions(), _there(circumstances))


def judge_models(here: str, there: str) -> Finding:
    """Decide on whether a model that the worker fitted is what this side's scikit-learn would have made.

    Parameters
    ----------
    here, there : str
        Versions of scikit-learn.
    """
    if not there:
        return skipped("The worker told no version of scikit-learn.")
    if minor(here) != minor(there):
        return failed(
            f"scikit-learn {here} here and {there} there: fitted models have other attributes.",
            f"Install scikit-learn {'.'.join(map(str, minor(here)))} on the worker's side: pip install "
            f"'scikit-learn=={here}'",
        )
    if here != there:
        return warning(
            f"scikit-learn {here} here and {there} there: results may differ where a bug was fixed.",
            f"On the worker's side: pip install scikit-learn=={here}",
        )
    return ok(f"scikit-learn {here} on both sides; models pickle as this side's own.")


def look_at_models(circumstances: Circumstances) -> Finding:
    return judge_models(packages.versions()["scikit-learn"], _there(circumstances).get("scikit-learn", ""))


def judge_fit(facts: Mapping[str, Any], answer: Answer, seconds: float) -> Finding:
    """Decide on a fit on the GPU, by what `probes.fit` told."""
    if facts.get("right"):
        return ok(f"KMeans on the GPU in {facts['seconds']:.1f} s, importing cuML included")
    if "seconds" in facts:
        return failed("KMeans on the GPU gave wrong labels.", "Please report this, with all of this table.")
    words = str(facts.get("error") or describe(answer, seconds))
    return failed(words, "Run sklearn-wsl-gpu setup again, or see docs/gpu.md for the packages that fit.")


FIT_SECONDS = 180.0


def look_at_fit(circumstances: Circumstances) -> Finding:
    if not any(name.partition("-")[0] == "cuml" for name in packages.installed()):
        return warning(
            "There is a GPU, and cuML is not installed.",
            "Run sklearn-wsl-gpu setup, or pip install 'sklearn-wsl-gpu[cuml-cu13]' (docs/gpu.md).",
        )
    facts, answer = ask_probe("fit", {}, FIT_SECONDS)
    return judge_fit(facts, answer, FIT_SECONDS)


def judge_challenge(carriers: Sequence[Mapping[str, Any]]) -> Finding:
    """Decide on whether what one side writes is what the other reads, by what the session told of its carriers.

    Each was challenged when the session was opened, and then measured with random bytes that had to come back.

    Parameters
    ----------
    carriers : sequence of mapping
        See `sklearn_wsl_gpu.carriers.moving.Moving.describe`.
    """
    used = [str(carrier["name"]) for carrier in carriers if carrier["state"] == "in use"]
    others = [f"{carrier['name']} {carrier['state']}: {carrier['reason']}" for carrier in carriers if carrier["reason"]]
    evidence = " ".join([f"{', '.join(used) or 'No carrier'} passed.", *others])
    if not used:
        return failed(evidence, "No call can be offloaded. docs/windows.md says what each carrier needs.")
    if any(carrier["state"] == "demoted" for carrier in carriers):
        return warning(evidence, f"Set carrier (SKLEARN_WSL_GPU_CARRIER) to {used[0].partition(' ')[0]}.")
    return ok(evidence)


def look_at_challenge(circumstances: Circumstances) -> Finding:
    return judge_challenge(circumstances.noted["reach"].get("carriers", []))


def judge_bandwidth(carriers: Sequence[Mapping[str, Any]], trip_seconds: float) -> Finding:
    """Tell how fast the carriers in use are, which of them takes what, and how long a question takes."""
    trip = f"A question and its answer take {trip_seconds * 1e3:.2f} ms."
    used = [carrier for carrier in carriers if carrier["state"] == "in use"]
    if [carrier["name"] for carrier in used] == ["shared"]:
        return information(f"shared: nothing is moved, both sides map one memory. {trip}")
    rates = {str(one["name"]): Rates(one["round_trip"], one["there"], one["back"]) for one in used if one["there"]}
    told = [
        f"{name}: {calibration.words(rate)}, {rate.round_trip * 1e3:.2f} ms at least." for name, rate in rates.items()
    ]
    if len(rates) > 1:
        for way, words in ((THERE, "there"), (BACK, "back")):
            best = [min(rates, key=lambda name: rates[name].seconds(way, size)) for size in _SIZES]
            told.append(f"Of 64 KiB, 16 MiB and 1 GiB {words}: {', '.join(best)}.")
    return information(" ".join([*told, trip]))


#: For which the carrier is told: 64 KiB, 16 MiB, 1 GiB.
_SIZES = (2**16, 2**24, 2**30)


def look_at_bandwidth(circumstances: Circumstances) -> Finding:
    facts = circumstances.noted["reach"]
    return judge_bandwidth(facts.get("carriers", []), facts["trip_seconds"])
