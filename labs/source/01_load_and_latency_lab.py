# %% [markdown] name="title" tags=["learner"]
# # Lab 1: load and latency
#
# > **This lab**
# >
# > Four parts, 45 minutes. You write two latencies and a wait, find a knee, and decide which of four reports to believe.
# > **Before you start**: [chapter 1](../chapters/01_load_and_latency.ipynb). **Hardware**: any; everything here is *simulated*,
# > step times *predicted* from data sheets.
#
# Wherever you see `NOT_YET`, the answer is yours. Run a check as often as you like: it says *passed*, or *not yet* with a hint,
# and never stops the notebook. Run the cells one after the other: a guess is yours to change until the evidence is shown, and
# from then on the first one counts. Guesses and verdicts are kept on this machine only (`hybrid-serving lessons progress`
# shows them). Solutions lie in `labs/solutions`.

# %% [markdown] name="title" tags=["solution"]
# # Lab 1: load and latency, with solutions
#
# Every answer is filled in, and every check passes. The tasks and explanations are those of the lab.

# %% [markdown] name="slides-title" tags=["slide-only"]
# # Lab 1: load and latency
#
# 45 minutes: two latencies, a wait, a knee, and four reports of which one is sound.
#
# Guess first. The first guess counts.

# %% [markdown] name="notes-plan" tags=["instructor", "slide"]
# **Minute plan.** 0-2 guesses: everybody writes a number before any cell runs. 2-12 part 1 · 12-22 part 2 · 22-32 part 3 ·
# 32-47 part 4 in pairs · 47-50 calibration chart, one sentence each: where was I furthest off? With 30 minutes, leave out
# part 2 and give its formula.
#
# **Before class.** `make lab` once on every machine; run the solution notebook from top to bottom (a few seconds). No GPU.

# %% name="setup" tags=["slide-hidden"]
from textwrap import fill

from helpers.lessons import (
    NOT_YET,
    calibration,
    check,
    exercise,
    predict,
    reconcile,
)
from helpers.lessons import load_and_latency as lab
from helpers.metrics.stability import stability
from helpers.widgets import load_and_latency as figures
from helpers.widgets.runs import latency_table
from helpers.widgets.table import Table
from helpers.workload.hygiene import describe

# %% [markdown] name="part-1"
# ## Part 1: two latencies
#
# **What you need to know.** A `Timeline` says when things happened to one request, in seconds: `arrival_s` (scheduled),
# `dispatched_s` (sent to a worker), `prefill_start_s`, `first_token_s`, `finished_s`; `status` is `finished`, `rejected`
# or `unfinished`; `output_tokens` counts the answer, the first token included. What never happened is `None`.

# %% name="part-1-card"
exercise("TTFT", "TPOT")

# %% [markdown] name="slides-part-1" tags=["slide-only"]
# ## How many of these five requests have a TTFT?
#
# And how many have a TPOT?

# %% name="part-1-cases" tags=["slide"]
figures.cases(lab.CASES)

# %% [markdown] name="part-1-guess"
# **Your prediction.** How many of the five requests have a TTFT? (And how many a TPOT?)

# %% name="part-1-predict"
ttft_guess = predict("requests with a TTFT", "of 5", default=3)

# %% [markdown] name="part-1-do"
# **Do it.** Write both. A latency that a request does not have is `None`; only a finished request has a TPOT.

# %% [markdown] name="slides-part-1-answer" tags=["slide-only"]
# ## From the arrival, and only where there is one


# %% name="part-1-answer" tags=["learner"]
def my_ttft_s(t):
    """Seconds from the scheduled arrival to the first token."""
    return NOT_YET


def my_tpot_s(t):
    """Mean seconds between tokens, the first token left out."""
    return NOT_YET


# %% name="part-1-answer" tags=["solution", "slide"]
def my_ttft_s(t):
    """Seconds from the scheduled arrival to the first token."""
    return None if t.first_token_s is None else t.first_token_s - t.arrival_s


def my_tpot_s(t):
    """Mean seconds between tokens, the first token left out."""
    if t.status != "finished" or t.output_tokens < 2:
        return None
    return (t.finished_s - t.first_token_s) / (t.output_tokens - 1)


# %% name="ttft-from-the-send" tags=["mutant"] exercise="TTFT" hint="from the send"
def my_ttft_s(t):
    return None if t.first_token_s is None else t.first_token_s - t.dispatched_s


# %% name="ttft-of-finished-requests-only" tags=["mutant"] exercise="TTFT" hint="request 4 (unfinished, 7 tokens) has a TTFT"
def my_ttft_s(t):
    return t.first_token_s - t.arrival_s if t.status == "finished" else None


# %% name="ttft-of-every-request" tags=["mutant"] exercise="TTFT" hint="request 3 (rejected, 7 tokens): your function stops with"
def my_ttft_s(t):
    return t.first_token_s - t.arrival_s


# %% name="ttft-to-the-last-token" tags=["mutant"] exercise="TTFT" hint="that is E2E"
def my_ttft_s(t):
    return None if t.finished_s is None else t.finished_s - t.arrival_s


# %% name="tpot-over-all-tokens" tags=["mutant"] exercise="TPOT" hint="n - 1 gaps"
def my_tpot_s(t):
    if t.status != "finished":
        return None
    return (t.finished_s - t.first_token_s) / t.output_tokens


# %% name="tpot-from-the-arrival" tags=["mutant"] exercise="TPOT" hint="TTFT is in it"
def my_tpot_s(t):
    if t.status != "finished" or t.output_tokens < 2:
        return None
    return (t.finished_s - t.arrival_s) / (t.output_tokens - 1)


# %% name="tpot-of-one-token" tags=["mutant"] exercise="TPOT" hint="has no TPOT"
def my_tpot_s(t):
    if t.status != "finished":
        return None
    return (t.finished_s - t.first_token_s) / max(1, t.output_tokens - 1)


# %% name="part-1-check-ttft"
ttft_verdict = check("TTFT", my_ttft_s)
ttft_verdict

# %% name="part-1-check-tpot"
check("TPOT", my_tpot_s)

# %% name="part-1-reconcile"
there = NOT_YET
if ttft_verdict.passed:
    there = sum(my_ttft_s(t) is not None for t in lab.CASES)
reconcile(
    ttft_guess,
    own={"by your function": there},
    note="N = 5 requests, made up.",
    origin="generated",
)

# %% [markdown] name="part-1-mind"
# **What changed your mind?** Request 0 waited before it was sent, request 1 after. Which of these waits does a client miss that
# counts from the send?

# %% [markdown] name="notes-part-1" tags=["instructor", "slide"]
# **Usual misconceptions.** "An unfinished request has no TTFT" (it has had its first token). "TPOT is the time over the
# tokens" (n tokens have n - 1 gaps). "The client's clock starts when it sends" (then a full client hides the wait).
#
# **Questions to ask.** Who would rather report from the send, and why? What does leaving out unfinished requests do to a
# TTFT percentile of an overloaded fleet?
#
# **Answer key.** Four requests have a TTFT (all but the rejected one), two have a TPOT (0 and 1; request 2 has one token).
# A client that counts from the send sees 0.4 s less of request 0, and all of the wait of request 1.

# %% [markdown] name="part-2"
# ## Part 2: the wait
#
# **What you need to know.** For one worker, random arrivals at `rate_per_s`, a mean service time of `service_s` and a squared
# coefficient of variation `c2`, Pollaczek and Khinchine give the mean wait before service; with the load
# $\rho = \lambda S$,
#
# $$W = \frac{\rho}{1-\rho} \cdot \frac{1+c^2}{2} \cdot S .$$
#
# **Your prediction.** Prompts of equal length and prompts with $c^2 = 4$, at the same load: how many times longer is the wait?

# %% name="part-2-card"
exercise("the wait")

# %% [markdown] name="slides-part-2" tags=["slide-only"]
# ## Equal prompts, and very unequal ones
#
# One worker, the same load. $c^2$ goes from 0 to 4.
#
# How many times longer is the wait?

# %% name="part-2-predict"
factor_guess = predict("wait of unequal over equal prompts", "times", default=4)

# %% [markdown] name="part-2-do"
# **Do it.** Write the wait, and say what it is from a load of 1 on (`float("inf")` is a number too).


# %% name="part-2-answer" tags=["learner"]
def my_wait_s(rate_per_s, service_s, c2):
    """Mean seconds before service starts."""
    return NOT_YET


# %% name="part-2-answer" tags=["solution", "slide-hidden"]
def my_wait_s(rate_per_s, service_s, c2):
    """Mean seconds before service starts."""
    load = rate_per_s * service_s
    if load >= 1:
        return float("inf")
    return load / (1 - load) * (1 + c2) / 2 * service_s


# %% name="wait-of-equal-prompts" tags=["mutant"] exercise="the wait" hint="c2 is missing"
def my_wait_s(r, s, c2):
    return r * s * s / (2 * (1 - r * s)) if r * s < 1 else float("inf")


# %% name="wait-in-the-system" tags=["mutant"] exercise="the wait" hint="the service itself is no wait"
def my_wait_s(r, s, c2):
    if r * s >= 1:
        return float("inf")
    return s + r * s * s * (1 + c2) / 2 / (1 - r * s)


# %% name="wait-that-stops" tags=["mutant"] exercise="the wait" hint="check it by hand there"
def my_wait_s(r, s, c2):
    return r / s / (1 - r / s) * (1 + c2) / 2 * s


# %% name="wait-past-a-load-of-1" tags=["mutant"] exercise="the wait" hint="never ends"
def my_wait_s(r, s, c2):
    return r * s * s * (1 + c2) / 2 / (1 - r * s) if r * s != 1 else 0.0


# %% name="part-2-check"
wait_verdict = check("the wait", my_wait_s)
wait_verdict

# %% [markdown] name="part-2-evidence"
# **Evidence.** The wait of your function against the load, for both kinds of prompts; it needs the answer above.

# %% [markdown] name="slides-part-2-evidence" tags=["slide-only"]
# ## The same load, two kinds of prompts

# %% name="part-2-evidence-figure" tags=["slide"]
loads = [i / 20 for i in range(1, 19)]
waits = {c2: lab.waits(my_wait_s, loads, 0.5, c2) for c2 in (0, 4)}
figures.own_waits(loads, waits, service_s=0.5)

# %% name="part-2-reconcile"
factor = waits[4][0] / waits[0][0] if wait_verdict.passed else NOT_YET
reconcile(
    factor_guess,
    own={"by your formula": factor},
    note="No sampling.",
    origin="predicted",
)

# %% [markdown] name="part-2-mind"
# **What changed your mind?** The factor does not depend on the load. Which of the two would you rather shorten in a
# fleet: the mean prompt, or the longest?

# %% [markdown] name="notes-part-2" tags=["instructor", "slide"]
# **Usual misconceptions.** "The mean service time decides" (its spread counts as much). "Four times the variance, four
# times the wait" (the 1 in 1 + c² stays). "At 95 % load it is nearly fine" (ρ / (1 - ρ) is 19 there).
#
# **Questions to ask.** Where does c² come from in your own traffic? What would chunked prefill do to it?
#
# **Answer key.** (1 + 4) / (1 + 0) = 5 at every load.

# %% [markdown] name="part-3"
# ## Part 3: the knee
#
# **What you need to know.** Two H100 serve the first 2,000 requests of the generated conversation hour with the router
# `least_tokens`. The promise is a TTFT of 2 s and a TPOT of 50 ms for the share `lab.TARGET` of the requests.
# `lab.attainment(workload, rate)` replays them at a rate and says for how many the promise held.
#
# **Your prediction.** In the chapter you saw the knee of four workers with this router. And two?

# %% name="part-3-card"
exercise("the knee")

# %% [markdown] name="slides-part-3" tags=["slide-only"]
# ## Half the workers
#
# You know the knee of four workers. Where is the knee of two?

# %% name="part-3-predict"
knee_guess = predict("knee of two workers", "requests/s", default=2)

# %% name="part-3-evidence" tags=["learner"]
knee_guess.lock()
workload, rates = lab.lab_workload(), (0.5, 1.0, 3.0)  # change the rates
found = [lab.attainment(workload, rate) for rate in rates]
figures.tried_rates(rates, found, lab.TARGET, len(workload))

# %% name="part-3-evidence" tags=["solution"]
knee_guess.lock()
workload = lab.lab_workload()
rates = (1.0, 1.3, 1.5, 1.6, 1.8)  # first wide, then close to the target
found = [lab.attainment(workload, rate) for rate in rates]
figures.tried_rates(rates, found, lab.TARGET, len(workload))

# %% [markdown] name="part-3-do"
# **Do it.** Give a rate at which the promise holds, and a tenth above which it does not.

# %% name="part-3-answer" tags=["learner"]
my_knee_per_s = NOT_YET

# %% name="part-3-answer" tags=["solution"]
passed = [share >= lab.TARGET for share in found]  # it falls with the rate
my_knee_per_s = max(r for r, ok in zip(rates, passed, strict=True) if ok)

# %% name="knee-by-the-capacity" tags=["mutant"] exercise="the knee" hint="too high"
my_knee_per_s = 2.6

# %% name="knee-with-much-to-spare" tags=["mutant"] exercise="the knee" hint="too low"
my_knee_per_s = 1.0

# %% name="knee-without-a-number" tags=["mutant"] exercise="the knee" hint="is no rate"
my_knee_per_s = "half"

# %% name="part-3-check"
knee_verdict = check("the knee", my_knee_per_s)
knee_verdict

# %% name="part-3-reconcile"
reconcile(
    knee_guess,
    own={"your knee": my_knee_per_s if knee_verdict.passed else NOT_YET},
    note=f"N = {len(workload):,} requests a point; one run each.",
)

# %% [markdown] name="part-3-mind" tags=["learner"]
# **What changed your mind?** Half the workers: is the knee half as high? Think of what a second worker can do for a request that the
# first one cannot.

# %% [markdown] name="part-3-mind" tags=["solution"]
# **What changed your mind?** The knee is a little less than half. With four workers a long prompt finds an idle one more often: a
# larger pool wastes less waiting at the same load per worker.

# %% [markdown] name="notes-part-3" tags=["instructor", "slide"]
# **Usual misconceptions.** "The knee is where the GPUs are full" (the promise breaks before). "Half the workers, half the
# knee" (pooling). "A finer search gives a better knee" (one run is one sample of its queue).
#
# **Questions to ask.** What would eight workers give per worker? Would another draw of the traffic give the same knee, and
# how would you show it?
#
# **Answer key.** Any rate at which the target is met and a tenth above which it is missed; the solution's last cell of this
# part shows one.

# %% [markdown] name="part-4"
# ## Part 4: find the flaw
#
# **What you need to know.** Four people measured a fleet of four workers. One report is sound, three are wrong, each in its own
# way: arrival times on **ticks**, **too few requests** for the percentile that is claimed, a **closed loop** that hid the load, or
# **none**. Behind each report lie the workload that was planned (`.workload`) and the run (`.run`).

# %% name="part-4-card"
exercise("the flaws")

# %% [markdown] name="slides-part-4" tags=["slide-only"]
# ## Four reports, one is sound
#
# Ticks, too few requests, a closed loop, or nothing wrong. From the claims alone: which one do you believe?

# %% name="part-4-claims" tags=["slide"]
files = lab.reports()
claims = [[name, report.claim] for name, report in files.items()]
Table("Four reports", ["report", "claim"], claims)

# %% name="part-4-predict"
sound_guess = predict(
    "the sound report",
    "",
    default="B",
    choices="ABCD",
    ask="From the claims alone, which one do you believe?",
)

# %% name="part-4-evidence"
sound_guess.lock()
behind = {name: report.run for name, report in files.items()}
latency_table(behind, ["ttft_s"], caption="What the reports rest on")

# %% name="part-4-tools"
report, some = files["A"], slice(2000, 2005)  # look at the others too
planned = [round(r.arrival_s, 1) for r in report.workload.requests[some]]
print("planned:", planned)
sent = [round(t.arrival_s, 1) for t in report.run.timelines[some]]
print("sent:   ", sent)
print(fill(f"stable:  {stability(report.run.log).evidence}", 76))
for finding in describe(report.workload).findings:
    print(fill(f"found:   {finding}", 76))

# %% [markdown] name="part-4-do"
# **Do it.** Match each report with `"ticks"`, `"too few requests"`, `"closed loop"` or `"none"`.

# %% name="part-4-answer" tags=["learner"]
my_flaws = {"A": NOT_YET, "B": NOT_YET, "C": NOT_YET, "D": NOT_YET}

# %% name="part-4-answer" tags=["solution"]
my_flaws = {
    "A": "closed loop",  # sent long after it was planned
    "B": "too few requests",  # 300 requests: three of them are above the p99
    "C": "none",  # open loop, below the knee, thousands of requests, no tick
    "D": "ticks",  # describe() finds a 3 s grid
}

# %% name="flaws-nowhere" tags=["mutant"] exercise="the flaws" hint="3 of 4 do not fit"
my_flaws = dict.fromkeys("ABCD", "none")

# %% name="flaws-swapped" tags=["mutant"] exercise="the flaws" hint="2 of 4 do not fit. Report A: compare"
my_flaws |= {"A": "ticks", "D": "closed loop"}

# %% name="flaws-without-names" tags=["mutant"] exercise="the flaws" hint="give one flaw for each of the reports"
my_flaws = ["closed loop", "too few requests", "none", "ticks"]

# %% name="flaws-of-another-kind" tags=["mutant"] exercise="the flaws" hint="is no flaw in the list"
my_flaws |= {"B": "bad luck"}

# %% name="part-4-check"
flaws_verdict = check("the flaws", my_flaws)
flaws_verdict

# %% name="part-4-reconcile"
sound = NOT_YET
if flaws_verdict.passed:
    sound = next(name for name, flaw in my_flaws.items() if flaw == "none")
reconcile(sound_guess, truth=sound)

# %% [markdown] name="part-4-mind"
# **What changed your mind?** Take the last benchmark you read. Does it say from when TTFT counts, whether the loop was open, how
# many requests a percentile rests on, and what the arrival times looked like?

# %% [markdown] name="notes-part-4" tags=["instructor", "slide"]
# **Usual misconceptions.** "A stable run is an honest run" (the closed loop of report A is stable because it waits). "A
# percentile is a percentile" (three requests decide the p99 of 300). "A trace from production is its own truth" (the
# recording may round).
#
# **Questions to ask.** Which one number in each report would have given the flaw away? Which flaw would peer review have
# found?
#
# **Answer key.** A closed loop · B too few requests · C none · D ticks.

# %% [markdown] name="calibration"
# ## Your guesses so far
#
# Each dot is a guess of yours over the true value, for all chapters and labs that you have done on this machine. A dot at 1
# is exact. Being off is no fault: the numbers worth remembering are those where you were furthest off.

# %% name="calibration-figure"
calibration()
