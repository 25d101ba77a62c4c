"""Readers with known effects: the same tables that a real study exports, made from stated numbers and a seed.

The proof of the analysis (does its interval cover the truth, how often does it find what is not there) and the sample
size of a study both come from here. Readers differ in level and in how much an aid sways them, cases likewise, and
ratings are whole points of a bounded scale, so `true_contrast` states the effect on that scale and not on the latent
one. Everything made here is marked `simulated`; it says nothing about real readers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import pandas as pd
from scipy.special import expit, logit
from scipy.stats import norm

from skinclip.study.analysis.tables import AID_ITEMS, ANSWERS, SESSION, SIMULATED, StudyTables
from skinclip.study.protocol.arms import arm_named, explaining
from skinclip.study.protocol.protocol import CANNOT_TELL

_CLASSES = ("akiec", "bcc", "bkl", "df", "mel", "nv", "vasc")  # those that the default protocol offers
_PREVALENCE = np.array([0.08, 0.12, 0.15, 0.04, 0.25, 0.32, 0.04])  # of akiec, bcc, bkl, df, mel, nv, vasc
_SHARED_ERROR, _CANNOT_TELL = 0.35, 0.08  # of unaided errors: the AI's own error where it errs, and "cannot tell"
_SAME_AGAIN = 0.85  # a repeat gets the same unaided diagnosis
_ITEM_LEVEL = {"correct": 3.4, "grounded": 3.2, "complete": 3.1, "harmful": 2.1}
_YEARS = ("lt1", "1_3", "4_10", "gt10")  # of experience, as `questions.yaml` asks
_REVERSED = ("ess_4",)  # a high answer speaks against, as in `questions.yaml`
_ESS, _TRUST_ITEMS, _DISTRUST_ITEMS = 9, 5, 3


@dataclass(frozen=True)
class ArmEffect:
    """Effects of an aid, as differences from showing the differential alone; 0 is no effect.

    Attributes:
        trust: points of the 7-point item.
        items: points of the 5-point items correct, grounded and complete; `harmful` moves the other way.
        time: factor on the seconds spent with the aid.
        follow_right: probability to take over the AI's answer where it is right and differs from one's own.
        follow_wrong: the same where the AI is wrong.
        preference: strength in the Bradley-Terry model.
        satisfaction: points of the scales asked after the block.
    """

    trust: float = 0.0
    items: float = 0.0
    time: float = 1.0
    follow_right: float = 0.45
    follow_wrong: float = 0.25
    preference: float = 0.0
    satisfaction: float = 0.0


ARMS: Mapping[str, ArmEffect] = {
    "none": ArmEffect(),
    "grad_cam": ArmEffect(0.1, 0.0, 1.15, 0.47, 0.25, 0.0, 0.0),
    "grad_cam_text": ArmEffect(0.3, 0.3, 1.4, 0.52, 0.26, 0.5, 0.3),
    "regions": ArmEffect(0.5, 0.5, 1.4, 0.55, 0.25, 0.9, 0.5),
}


@dataclass(frozen=True)
class Spread:
    """Standard deviations of trust, in points: between readers, between cases, and how much both differ by aid.

    `reader_case` is what a reader's answers to a case have in common in two sessions.
    """

    reader: float = 0.6
    case: float = 0.5
    reader_arm: float = 0.3
    case_arm: float = 0.25
    residual: float = 1.0
    reader_case: float = 0.0

    @property
    def total(self) -> float:
        parts = (self.reader, self.case, self.reader_arm, self.case_arm, self.residual, self.reader_case)
        return float(np.sqrt(sum(part**2 for part in parts)))


@dataclass(frozen=True)
class Simulation:
    """A study to simulate.

    Attributes:
        cases: cases that are not out of distribution; `wrong_share` of them are AI errors, `natural_wrong` in practice.
        ood_cases: further cases out of distribution.
        level: mean trust on the latent scale where the AI is right and only the differential is shown.
        wrong_trust: points that trust falls where the AI is wrong.
        accuracy: log-odds of a right unaided diagnosis at a mean reader and case; `skill` and `ease` spread them.
        missing: share of ratings that a reader left out.
        dropout: share of readers who stop somewhere in the session; `withdrawal` of those who withdraw.
        following: standard deviation between readers of following the AI, in log-odds; `following_arm` of how much that
            differs by aid within a reader, `convincing` between cases; 0 for none.
        pauses: share of answers interrupted by something else, whose time is far too long.
        repeat_share: of the cases shown again; `pairs`: preference pairs per reader.
        sessions: 1 or 2; in the second each case is met again, in another arm. `session_shift` is in points of trust.
    """

    readers: int = 20
    cases: int = 60
    arms: Mapping[str, ArmEffect] = field(default_factory=lambda: ARMS)
    wrong_share: float = 0.3
    natural_wrong: float = 0.2
    ood_cases: int = 0
    level: float = 4.2
    wrong_trust: float = -0.5
    spread: Spread = Spread()
    accuracy: float = 0.5
    skill: float = 0.5
    ease: float = 1.0
    missing: float = 0.01
    dropout: float = 0.0
    withdrawal: float = 0.0
    pauses: float = 0.01
    following: float = 0.0
    following_arm: float = 0.0
    convincing: float = 0.0
    repeat_share: float = 0.1
    pairs: int = 6
    sessions: int = 1
    session_shift: float = 0.0

    def without_effect(self, arm: str, against: str) -> Simulation:
        """The same study where `arm` does exactly what `against` does: what is found then is a false positive."""
        return replace(self, arms={**self.arms, arm: self.arms[against]})


def true_contrast(simulation: Simulation, arm: str, against: str, weighted: bool = True) -> float:
    """The mean difference in trust that the simulated readers' answers have, in points of the 7-point item.

    Exact: the expected value of a normal variable rounded to 1-7, at the share of AI errors in practice (or, not
    `weighted`, in the study).
    """
    wrong = simulation.natural_wrong if weighted else simulation.wrong_share
    total = 0.0
    for share, shift in ((1 - wrong, 0.0), (wrong, simulation.wrong_trust)):
        means = [simulation.level + shift + simulation.arms[key].trust for key in (arm, against)]
        first, second = (_expected_rating(mean, simulation.spread.total) for mean in means)
        total += share * (first - second)
    return float(total)


def _expected_rating(mean: float, spread: float) -> float:
    thresholds = np.arange(1.5, 7)  # a latent value above 1.5 is at least a 2, and so on
    return float(1 + norm.sf(thresholds, mean, spread).sum())


def simulate(simulation: Simulation, seed: int = 0, study: str = "simulated") -> StudyTables:
    """One study drawn from `simulation`; the same seed gives the same study."""
    rng = np.random.default_rng(seed)
    cases = _draw_cases(simulation, rng)
    presentations = _presentations(simulation, cases, rng)
    rows = _answers(simulation, cases, presentations, rng)
    readers = _draw_readers(simulation, rng)
    rows = _leave_out(rows, readers, simulation, rng)
    kept = readers.loc[~readers["withdrawn"], "reader"]
    return StudyTables(
        cases=rows[rows["reader"].isin(kept)],
        blocks=_scales(simulation, kept, rng),
        preferences=_preferences(simulation, kept, cases["case"].to_numpy(), rng),
        readers=readers,
        mark=SIMULATED,
        study=study,
    )


# --- who sees what ------------------------------------------------------------------------------------------------


def _draw_cases(simulation: Simulation, rng: np.random.Generator) -> pd.DataFrame:
    """Cases in shuffled order, with the list of the Latin square that each belongs to, balanced by stratum."""
    n_wrong = round(simulation.cases * simulation.wrong_share)
    counts = {"right": simulation.cases - n_wrong, "wrong": n_wrong, "ood": simulation.ood_cases}
    stratum = np.repeat(list(counts), list(counts.values()))
    lists = np.concatenate([(np.arange(n) + offset) % len(simulation.arms) for offset, n in enumerate(counts.values())])
    share = n_wrong / simulation.cases if simulation.cases else 0.0
    weight = {"right": (1 - simulation.natural_wrong) / (1 - share) if share < 1 else 1.0, "ood": 1.0}
    weight["wrong"] = simulation.natural_wrong / share if share else 1.0
    truth = rng.choice(len(_CLASSES), len(stratum), p=_PREVALENCE)
    other = (truth + rng.integers(1, len(_CLASSES), len(stratum))) % len(_CLASSES)
    ai = np.where(stratum == "right", truth, other)
    frame = pd.DataFrame({"stratum": stratum, "list": lists, "truth_index": truth, "ai_index": ai})
    frame = frame.iloc[rng.permutation(len(frame))].reset_index(drop=True)
    frame["case"] = [f"C{i + 1:03d}" for i in range(len(frame))]
    frame["weight"] = frame["stratum"].map(weight)
    return frame


def _presentations(simulation: Simulation, cases: pd.DataFrame, rng: np.random.Generator) -> pd.DataFrame:
    """Reader, case and arm (numbers) of every showing in session order: a Latin square of case lists over readers."""
    n_arms, n_cases = len(simulation.arms), len(cases)
    reader = np.repeat(np.arange(simulation.readers), n_cases)
    case = np.tile(np.arange(n_cases), simulation.readers)
    arm = (cases["list"].to_numpy()[case] + reader) % n_arms
    block = _block_of_arm(n_arms)[reader // n_arms % n_arms, arm]
    frame = pd.DataFrame({"reader": reader, "case": case, "arm": arm, "block": block + 1, "repeat": False})
    frame["order"] = rng.random(len(frame))
    again = frame.groupby("reader").sample(frac=simulation.repeat_share, random_state=rng)
    frame = pd.concat([frame, again.assign(repeat=True, block=n_arms + 1)], ignore_index=True)
    order = ["reader", "block", "order"]
    if simulation.sessions == 2:
        second = _second_session(frame[~frame["repeat"]], n_arms, rng)
        frame = pd.concat([frame.assign(session=1), second], ignore_index=True)
        order = ["reader", SESSION, "block", "order"]
    frame = frame.sort_values(order).drop(columns="order").reset_index(drop=True)
    frame["position"] = frame.groupby("reader").cumcount() + 1
    return frame


def _second_session(first: pd.DataFrame, n_arms: int, rng: np.random.Generator) -> pd.DataFrame:
    """The presentations of a second session: each case in another arm, all lists moved on alike within a reader."""
    reader = first["reader"].to_numpy()
    arm = (first["arm"].to_numpy() + 1 + reader // n_arms % (n_arms - 1)) % n_arms
    block = _block_of_arm(n_arms)[(reader // n_arms + 1) % n_arms, arm] + 1
    return first.assign(arm=arm, block=block, session=2, order=rng.random(len(first)))


def _block_of_arm(n: int) -> np.ndarray:
    """[n, n] the block (from 0) in which row i shows arm j: the rows of a Williams square, each arm everywhere once."""
    zigzag = [(k + 1) // 2 if k % 2 else -(k // 2) for k in range(n)]
    order = (np.arange(n)[:, None] + np.array(zigzag)[None, :]) % n  # [row, block] -> arm
    return np.argsort(order, axis=1)


# --- what they answer ---------------------------------------------------------------------------------------------


def _answers(
    simulation: Simulation, cases: pd.DataFrame, presentations: pd.DataFrame, rng: np.random.Generator
) -> pd.DataFrame:
    """One row a showing, with every answer."""
    names, effects = list(simulation.arms), list(simulation.arms.values())
    reader, case, arm = (presentations[name].to_numpy() for name in ("reader", "case", "arm"))
    rows = cases.loc[case].reset_index(drop=True)
    before, after = _diagnoses(simulation, rows, presentations, rng)
    later = (presentations[SESSION] == 2).to_numpy() if SESSION in presentations else np.zeros(len(arm), dtype=bool)
    level = simulation.level + np.where(later, simulation.session_shift, 0.0)
    rated = _ratings(simulation, level, rows["stratum"].to_numpy() == "wrong", (reader, case, arm), rng)
    truth = np.array(_CLASSES)[rows["truth_index"]]
    ood = rows["stratum"].to_numpy() == "ood"
    hit = [(answer == rows["truth_index"].to_numpy()).astype(float) for answer in (before, after)]
    agree = (after == rows["ai_index"].to_numpy()).astype(float)
    speed = rng.normal(0, 0.3, simulation.readers)[reader]
    factor = np.array([effect.time for effect in effects])[arm]
    return pd.DataFrame(
        {
            "reader": [f"R{i + 1:03d}" for i in reader],
            "site": [f"S{i % 3 + 1}" for i in reader],
            **{name: rows[name] for name in ("case", "stratum", "weight")},
            "arm": np.array(names)[arm],
            **{name: presentations[name] for name in ("block", "position", "repeat", SESSION) if name in presentations},
            "truth": pd.Series(truth).where(~ood, None),
            "ai_leading": np.array(_CLASSES)[rows["ai_index"]],
            "ai_correct": pd.Series(rows["stratum"] == "right").astype("boolean").mask(ood),
            "diagnosis_before": np.array(ANSWERS)[before],
            "diagnosis_after": np.array(ANSWERS)[after],
            "confidence_before": _percent(48 + 14 * hit[0], rng),
            "confidence_after": _percent(50 + 10 * hit[1] + 12 * agree, rng),
            "act_before": _would_act(before, rng),
            "act_after": _would_act(after, rng),
            **rated,
            "seconds_before": _seconds(26.0 * np.exp(speed), simulation, rng),
            "seconds_after": _seconds(14.0 * np.exp(speed) * factor, simulation, rng),
        }
    )


def _diagnoses(
    simulation: Simulation, rows: pd.DataFrame, presentations: pd.DataFrame, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Unaided and aided diagnosis of every showing, as places in `ANSWERS`."""
    reader, case, arm = (presentations[name].to_numpy() for name in ("reader", "case", "arm"))
    skill = rng.normal(0, simulation.skill, simulation.readers)[reader]
    ease = rng.normal(0, simulation.ease, int(case.max()) + 1 if len(case) else 0)[case]
    truth, ai = rows["truth_index"].to_numpy(), rows["ai_index"].to_numpy()
    n = len(truth)
    error = (truth + rng.integers(1, len(_CLASSES), n)) % len(_CLASSES)
    error = np.where((ai != truth) & (rng.random(n) < _SHARED_ERROR), ai, error)
    error = np.where(rng.random(n) < _CANNOT_TELL, ANSWERS.index(CANNOT_TELL), error)
    before = np.where(rng.random(n) < expit(simulation.accuracy + skill + ease), truth, error)
    before = _like_first_time(before, presentations, rng)
    effects = list(simulation.arms.values())
    follow = np.array([[effect.follow_wrong, effect.follow_right] for effect in effects])[
        arm, (ai == truth).astype(int)
    ]
    if simulation.following or simulation.following_arm or simulation.convincing:
        follow = expit(logit(follow) + _swayed_by_ai(simulation, reader, case, arm, rng))
    return before, np.where(rng.random(n) < follow, ai, before)


def _swayed_by_ai(
    simulation: Simulation, reader: np.ndarray, case: np.ndarray, arm: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """Log-odds [n] by which following the AI differs between readers, within them by aid, and between cases."""
    by_reader = rng.normal(0, simulation.following, simulation.readers)[reader]
    by_arm = rng.normal(0, simulation.following_arm, (simulation.readers, len(simulation.arms)))[reader, arm]
    by_case = rng.normal(0, simulation.convincing, int(case.max()) + 1 if len(case) else 0)[case]
    return np.asarray(by_reader + by_arm + by_case)


def _like_first_time(before: np.ndarray, presentations: pd.DataFrame, rng: np.random.Generator) -> np.ndarray:
    """Most repeats get the unaided diagnosis of the first showing."""
    keys = presentations[["reader", "case"]]
    once = ~presentations["repeat"].to_numpy()
    if SESSION in presentations:
        once &= (presentations[SESSION] == 1).to_numpy()
    first = keys[once].assign(first=before[once])
    known = keys.merge(first, on=["reader", "case"], how="left")["first"].to_numpy()
    return np.where(presentations["repeat"].to_numpy() & (rng.random(len(before)) < _SAME_AGAIN), known, before)


def _ratings(
    simulation: Simulation,
    level: np.ndarray,
    wrong: np.ndarray,
    met: tuple[np.ndarray, np.ndarray, np.ndarray],
    rng: np.random.Generator,
) -> dict[str, np.ndarray]:
    """Trust and the items on the explanation, whole points; the items are missing where there is no explanation.

    `level` [n] is the mean trust of a showing, `met` its reader, case and arm.
    """
    reader, case, arm = met
    spread, effects, names = simulation.spread, list(simulation.arms.values()), list(simulation.arms)
    n_cases = int(case.max()) + 1 if len(case) else 0

    def swayed() -> np.ndarray:
        """Reader, case, reader x arm and case x arm effects of one item."""
        shared = rng.normal(0, spread.reader, simulation.readers)[reader] + rng.normal(0, spread.case, n_cases)[case]
        by_reader = rng.normal(0, spread.reader_arm, (simulation.readers, len(names)))[reader, arm]
        if spread.reader_case:
            shared = shared + rng.normal(0, spread.reader_case, (simulation.readers, n_cases))[reader, case]
        return shared + by_reader + rng.normal(0, spread.case_arm, (n_cases, len(names)))[case, arm]

    def rate(mean: np.ndarray, points: int, scale: float) -> np.ndarray:
        noise = rng.normal(0, spread.residual, len(mean))
        return np.clip(np.round(mean + scale * (swayed() + noise)), 1, points)

    fall = np.where(wrong, simulation.wrong_trust, 0.0)
    rated = {"trust": rate(level + fall + np.array([e.trust for e in effects])[arm], 7, 1.0)}
    no_aid = ~np.array([arm_named(name).explains for name in names])[arm]
    for item in AID_ITEMS:
        sign = -1.0 if item == "harmful" else 1.0
        mean = _ITEM_LEVEL[item] + sign * (fall + np.array([e.items for e in effects])[arm])
        rated[item] = np.where(no_aid, np.nan, rate(mean, 5, 0.7))
    return rated


def _percent(mean: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return np.clip(np.round(mean + rng.normal(0, 16, len(mean))), 0, 100)


def _would_act(answer: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    malignant = np.isin(np.array(ANSWERS)[answer], ["akiec", "bcc", "mel", CANNOT_TELL])
    return rng.random(len(answer)) < np.where(malignant, 0.9, 0.12)


def _seconds(median: np.ndarray, simulation: Simulation, rng: np.random.Generator) -> np.ndarray:
    pause = np.where(rng.random(len(median)) < simulation.pauses, rng.uniform(60, 200, len(median)), 1.0)
    return np.round(median * np.exp(rng.normal(0, 0.4, len(median))) * pause, 1)


# --- the rest of the session --------------------------------------------------------------------------------------


def _draw_readers(simulation: Simulation, rng: np.random.Generator) -> pd.DataFrame:
    n = simulation.readers
    stops = rng.random(n) < simulation.dropout
    withdrawn = stops & (rng.random(n) < simulation.withdrawal)
    return pd.DataFrame(
        {
            "reader": [f"R{i + 1:03d}" for i in range(n)],
            "site": [f"S{i % 3 + 1}" for i in range(n)],
            "role": rng.choice(["consultant", "resident", "general practitioner"], n),
            "years": np.array(_YEARS)[np.digitize(rng.gamma(2.0, 4.0, n), (1.0, 3.5, 10.5))],
            "completed": ~stops,
            "withdrawn": withdrawn,
        }
    )


def _leave_out(
    rows: pd.DataFrame, readers: pd.DataFrame, simulation: Simulation, rng: np.random.Generator
) -> pd.DataFrame:
    """Ratings left out at random, and the rest of the session of readers who stopped."""
    for item in ("trust", *AID_ITEMS):
        rows[item] = rows[item].mask(rng.random(len(rows)) < simulation.missing)
    last = rows.groupby("reader")["position"].max().reindex(readers["reader"]).to_numpy()
    stop = np.where(readers["completed"], last, np.floor(rng.random(len(readers)) * last))
    limit = rows["reader"].map(dict(zip(readers["reader"], stop, strict=True)))
    return rows[rows["position"] <= limit].reset_index(drop=True)


def _scales(simulation: Simulation, readers: pd.Series, rng: np.random.Generator) -> pd.DataFrame:
    """Answers to the items asked after each block: satisfaction (5 points), trust and distrust (7 points)."""
    rows = []
    for reader in readers:
        leaning = rng.normal(0, 0.4)
        for block, (arm, effect) in enumerate(simulation.arms.items(), start=1):
            aimed = {f"ess_{i + 1}": (3.3, 5) for i in range(_ESS if arm_named(arm).explains else 0)}
            aimed |= {f"trust_{i + 1}": (4.3, 7) for i in range(_TRUST_ITEMS)}
            aimed |= {f"distrust_{i + 1}": (3.0, 7) for i in range(_DISTRUST_ITEMS)}
            for item, (level, points) in aimed.items():
                sign = -1.0 if item.startswith("distrust") else 1.0
                drawn = level + sign * (leaning + effect.satisfaction) + rng.normal(0, 0.8)
                score = float(np.clip(np.round(drawn), 1, points))
                rows.append((reader, arm, block, item, points + 1 - score if item in _REVERSED else score, score))
    return pd.DataFrame(rows, columns=["reader", "arm", "block", "item", "value", "score"])


def _preferences(
    simulation: Simulation, readers: pd.Series, cases: np.ndarray, rng: np.random.Generator
) -> pd.DataFrame:
    """Pairs of aids of one case, sides at random, chosen by the Bradley-Terry model."""
    aids = explaining(simulation.arms)
    rows = []
    for reader in readers if len(aids) > 1 else []:
        for case in rng.choice(cases, min(simulation.pairs, len(cases)), replace=False):
            a, b = rng.choice(aids, 2, replace=False)
            edge = simulation.arms[a].preference - simulation.arms[b].preference
            rows.append((reader, case, a, b, a if rng.random() < expit(edge) else b))
    return pd.DataFrame(rows, columns=["reader", "case", "side_a", "side_b", "chosen"])
