"""Which file at which strength, what speaks against the others, and what to change next time; from measured figures only.

Losses are compared picture by picture. A difference counts where it is larger than its 95 % interval (Student's t).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from .probes import Evidence, Probe

LEAST_PICTURES = 2  # held out, for any statement about over-training
NO_CHANGE = 0.02  # relative change of the model's answer below which a LoRA does nothing
WORSE = 0.02  # share by which a loss must lie above the model's own to count as damage
# Share of an attribute's effect that must survive. On the demo base 0.75 of it does in a good run, 0.69 in one far too long, 0 in one
# at a rate that is too high (benchmarks/RESULTS.md).
STIFF = 0.5
# A best strength above or below these says that a file learned a quarter too little or too much. On the demo base it is 1.5 or more
# after two epochs, 1.3 after three, 1.2 after six, 1.1 after fifteen; 0.85 to 0.5 in a run far too long on few pictures.
WEAK, STRONG = 1.25, 0.8
BEHIND = 0.8  # a file that surely gains less than this share of what another one gains is left behind by it
NEAR = 0.9  # strengths and files with so much of the best gain are nearly as good
ALMOST = 0.95  # a quarter beside its best strength 1, a file misses 6 %: so of measured strengths the nearest counts, or the one below

MEANINGS = {
    "good": "use it",
    "under-trained": "it learned too little",
    "over-trained": "it learned the training pictures by heart",
    "stiff": "it paints its subject whatever else is asked",
    "no effect": "it changes next to nothing",
    "damaged": "it makes the model worse",
    "unknown": "not enough evidence",
}
NEXT_TIME = {
    "good": "Nothing has to change; of files that cannot be told apart, the earliest is the most flexible.",
    "too few steps": "Train longer: two to three times the steps, or a higher learning rate.",
    "too many steps": "Stop where the recommended file was saved, and save often around it; a lower rate or more pictures help too.",
    "rate too high": "Lower the learning rate to a third or a tenth: the files are damaged from the start.",
    "not enough evidence": "Hold out pictures (validate.split, or a folder) so that learning and memorising can be told apart.",
}


@dataclass(frozen=True)
class FileVerdict:
    """What a file's figures say."""

    file: Path
    verdict: str  # a key of `MEANINGS`
    reasons: tuple[str, ...]
    best_strength: float | None = None
    gain: float | None = None  # share by which the held-out loss falls at that strength

    def line(self) -> str:
        return f"{self.file.stem}: {self.verdict} ({MEANINGS[self.verdict]}): {'; '.join(self.reasons)}"


@dataclass(frozen=True)
class Advice:
    """`strengths` is the recommended range; `diagnosis` is a key of `NEXT_TIME`."""

    file: Path | None
    strength: float | None
    strengths: tuple[float, float] | None
    diagnosis: str
    verdicts: tuple[FileVerdict, ...]
    notes: tuple[str, ...] = ()

    def lines(self) -> list[str]:
        """The advice for a person."""
        lines = []
        if self.file and self.strengths:
            low, high = self.strengths
            reach = f"strength {low:g}" if low == high else f"strength {low:g} to {high:g}; begin with {self.strength:g}"
            lines.append(f"Use {self.file.stem} at {reach}.")
        else:
            lines.append("No file can be recommended.")
        lines += [verdict.line() for verdict in self.verdicts]
        return [*lines, *self.notes, f"{self.diagnosis}: {NEXT_TIME[self.diagnosis]}"]

    def as_dict(self) -> dict[str, Any]:
        return (
            asdict(self)
            | {"file": str(self.file) if self.file else None, "text": self.lines()}
            | {"verdicts": [asdict(verdict) | {"file": str(verdict.file)} for verdict in self.verdicts]}
        )


def give_advice(evidence: Evidence) -> Advice:
    """The advice that the figures support."""
    pictures = len(evidence.base.held_out)
    notes = [f"{pictures} held-out pictures, trigger {evidence.trigger!r}" + (
        f", attributes {', '.join(evidence.attributes)}" if evidence.attributes else ", no attribute was tried"
    )]  # fmt: skip
    if pictures < LEAST_PICTURES:
        verdicts = tuple(_without_held_out(file, probes, evidence.base) for file, probes in evidence.files.items())
        return Advice(None, None, None, "not enough evidence", verdicts, tuple(notes))
    best = _best_file(evidence)
    verdicts = tuple(_verdict(file, probes, evidence, best) for file, probes in evidence.files.items())
    usable = {item.file: item for item in verdicts if item.verdict in ("good", "under-trained", "over-trained", "stiff")}
    chosen = _chosen(evidence, usable)
    if chosen is None:
        return Advice(None, None, None, _diagnosis(verdicts, None), verdicts, tuple(notes))
    strength, reach = _strengths(evidence.files[chosen], evidence.base)
    return Advice(chosen, strength, reach, _diagnosis(verdicts, chosen), verdicts, tuple(notes))


def _gain(probe: Probe, base: Probe) -> float:
    """The share by which the loss on held-out pictures is below the model's own; not a number where the loss is none."""
    return 1 - float(np.mean(probe.held_out)) / float(np.mean(base.held_out))


def _is_sure(first: Sequence[float], second: Sequence[float]) -> bool:
    """Whether the losses of the same pictures differ by more than chance: their mean difference against its 95 % interval."""
    from scipy.stats import t

    differences = np.asarray(first) - np.asarray(second)
    error = differences.std(ddof=1) / math.sqrt(len(differences))
    return bool(abs(differences.mean()) > t.ppf(0.975, len(differences) - 1) * error + 1e-12)


def _finite(probe: Probe) -> bool:
    return all(math.isfinite(value) for value in (*probe.held_out, *probe.training, probe.change))


def _survival_text(share: float) -> str:
    """A reaction against what the words say counts as none."""
    return f"{max(0.0, share):.0%} of an attribute survives"


def _full(probes: Sequence[Probe]) -> Probe:
    """The probe at strength 1, or the nearest to it."""
    return min(probes, key=lambda probe: abs(probe.strength - 1))


def _peak(probes: Sequence[Probe], base: Probe) -> Probe:
    return max((probe for probe in probes if _finite(probe)), key=lambda probe: _gain(probe, base), default=probes[0])


def _best_strength(probes: Sequence[Probe], base: Probe) -> float:
    """Where the parabola through the peak and its neighbours has its top; the highest strength where that is the peak.

    A file whose loss falls along a parabola with its lowest point at strength b misses the share (1 - 1/b)^2 of its best gain at
    strength 1: 4 % at 1.25, 6 % at 0.8. So little is lost in the noise of a few pictures; the place of the top is not, for it
    rests on the slopes on both sides.
    """
    known = [(0.0, 0.0), *((probe.strength, _gain(probe, base)) for probe in probes if _finite(probe))]
    top = max(range(len(known)), key=lambda number: known[number][1])
    if top in (0, len(known) - 1):
        return known[top][0]
    strengths, gains = zip(*known[top - 1 : top + 2], strict=True)
    square, slope, _ = np.polyfit(strengths, gains, 2)
    return float(-slope / (2 * square)) if square < 0 else known[top][0]


def _flexible(probes: Sequence[Probe]) -> list[Probe]:
    """Strengths at which attributes survive."""
    return [probe for probe in probes if _finite(probe) and (probe.survival is None or probe.survival >= STIFF)]


def _best_file(evidence: Evidence) -> Path | None:
    """The file with the lowest held-out loss at strength 1."""
    gains = {file: _gain(_full(probes), evidence.base) for file, probes in evidence.files.items() if _finite(_full(probes))}
    return max(gains, key=lambda file: gains[file], default=None)


def _verdict(file: Path, probes: Sequence[Probe], evidence: Evidence, best: Path | None) -> FileVerdict:
    base, full = evidence.base, _full(probes)
    if not _finite(full):
        return FileVerdict(file, "damaged", ("its answers are not finite",))
    peak, strength = _peak(probes, base), _best_strength(probes, base)
    gain, most = _gain(full, base), _gain(peak, base)
    learned = 1 - float(np.mean(full.training)) / float(np.mean(base.training))
    lowest = f"lowest near {strength:.2f}" if strength < probes[-1].strength else "falling as far as was measured"
    reasons = [f"held-out loss {-gain:+.1%} at strength {full.strength:g}"]
    reasons[0] += f", {lowest} ({-most:+.1%} at {peak.strength:g})" if most > 0 else ""
    reasons.append(f"training loss {-learned:+.1%}")
    reasons += [] if full.survival is None else [_survival_text(full.survival)]
    verdict = _word(file, probes, evidence, best, learned)
    if verdict == "no effect":
        reasons.append(f"the model's answer changes by {full.change:.1%}")
    return FileVerdict(file, verdict, tuple(reasons), strength, most)


def _word(file: Path, probes: Sequence[Probe], evidence: Evidence, best: Path | None, learned: float) -> str:
    base, full, peak = evidence.base, _full(probes), _peak(probes, evidence.base)
    gain, most, strength = _gain(full, base), _gain(peak, base), _best_strength(probes, base)
    if full.change < NO_CHANGE:
        return "no effect"
    if gain < -WORSE:
        return "over-trained" if learned > WORSE else "damaged"
    if most <= 0 or (most < WORSE and not _is_sure(peak.held_out, base.held_out)):
        return "no effect" if learned < WORSE else "over-trained"
    if strength < STRONG:
        return "over-trained"
    if full.survival is not None and full.survival < STIFF:
        return "stiff"
    if strength > WEAK:
        return "under-trained"
    if best is not None and best != file:
        other = _full(evidence.files[best])
        if gain < BEHIND * _gain(other, base) and _is_sure(full.held_out, other.held_out):
            order = list(evidence.files)
            return "under-trained" if order.index(file) < order.index(best) else "over-trained"
    return "good"


def _without_held_out(file: Path, probes: Sequence[Probe], base: Probe) -> FileVerdict:
    """What can be said all the same."""
    full = _full(probes)
    if not _finite(full) or float(np.mean(full.training)) > (1 + WORSE) * float(np.mean(base.training)):
        return FileVerdict(file, "damaged", ("it predicts its own training pictures worse than the model alone",))
    if full.change < NO_CHANGE:
        return FileVerdict(file, "no effect", (f"the model's answer changes by {full.change:.1%}",))
    if full.survival is not None and full.survival < STIFF:
        return FileVerdict(file, "stiff", (_survival_text(full.survival),))
    return FileVerdict(file, "unknown", ("no pictures were held out",))


def _chosen(evidence: Evidence, usable: dict[Path, FileVerdict]) -> Path | None:
    """The file with the most gain at strengths where attributes survive; of several that cannot be told apart, the earliest.

    Of files that all learned too little there is nothing to spare: the one with the most gain.
    """
    order = ("good", "under-trained", "over-trained", "stiff")
    ranks = {file: order.index(item.verdict) for file, item in usable.items() if (item.gain or 0) > 0}
    candidates = [file for file in ranks if ranks[file] == min(ranks.values())]
    peaks = {file: _peak(_flexible(evidence.files[file]) or evidence.files[file], evidence.base) for file in candidates}
    if not peaks:
        return None
    best = max(candidates, key=lambda file: _gain(peaks[file], evidence.base))
    if usable[best].verdict == "under-trained":
        return best
    equal = [file for file in candidates if file == best or not _is_sure(peaks[file].held_out, peaks[best].held_out)]
    near = [file for file in equal if _gain(peaks[file], evidence.base) >= NEAR * _gain(peaks[best], evidence.base)]
    return near[0]


def _strengths(probes: Sequence[Probe], base: Probe) -> tuple[float, tuple[float, float]]:
    """The least strength that gains almost all that can be gained, and the range from nearly as much up to the best.

    Beyond the least, pictures drawn with guidance lose more than the loss without guidance shows.
    """
    allowed = _flexible(probes) or list(probes)
    peak = _peak(allowed, base)
    rising = [probe for probe in allowed if probe.strength <= peak.strength]
    near, almost = ([probe.strength for probe in rising if _gain(probe, base) >= share * _gain(peak, base)] for share in (NEAR, ALMOST))
    return min(almost), (min(near), peak.strength)


def _diagnosis(verdicts: Sequence[FileVerdict], chosen: Path | None) -> str:
    """What the run as a whole shows."""
    words = [item.verdict for item in verdicts]
    if words.count("damaged") * 2 >= len(words):
        return "rate too high"
    if words[-1] in ("under-trained", "no effect"):
        return "too few steps"
    later = words[[item.file for item in verdicts].index(chosen) :] if chosen else words
    if words[-1] in ("over-trained", "stiff", "damaged") or later.count("over-trained") * 2 > len(later):
        return "too many steps"
    return "good"
