# %% [markdown] name="title" tags=["learner"]
# # Lab 3: disaggregated inference
#
# > **This lab**
# >
# > Three parts, 60 minutes. You turn a blocking hand-off into an overlapped one and let it drive two running workers, choose a split
# > and defend it against workers that do both, find the link below which it loses, and decide which of four reports to believe.
# > **Before you start**: [chapter 3](../chapters/03_disaggregated_inference.ipynb). **Hardware**: any CPU. Hand-offs between
# > processes are *measured* on yours; fleets are *simulated*, with step times fitted to those of an H100 under load.
#
# Wherever you see `NOT_YET`, the answer is yours. Run a check as often as you like: it says *passed*, or *not yet* with a hint,
# and never stops the notebook. Run the cells one after the other: a guess is yours to change until the evidence is shown, and
# from then on the first one counts. Solutions lie in `labs/solutions`.

# %% [markdown] name="title" tags=["solution"]
# # Lab 3: disaggregated inference, with solutions
#
# Every answer is filled in, and every check passes. The tasks and explanations are those of the lab.

# %% [markdown] name="slides-title" tags=["slide-only"]
# # Lab 3: disaggregated inference
#
# 60 minutes: a hand-off, a split and its rival, and four reports of which one is sound.
#
# Guess first. The first guess counts.

# %% [markdown] name="notes-plan" tags=["instructor", "slide"]
# **Minute plan.** 0-3 what moves, and guesses written down · 3-22 part 1 (the live runs take less than half a minute: let them read
# the tables in pairs) · 22-45 part 2 (stop after 12 minutes: whose rival is a straw man?) · 45-57 part 3 in pairs · 57-60
# calibration chart. With 45 minutes, give the threshold as homework.
#
# **Before class.** Run the solution notebook from top to bottom. It starts four processes with a tiny model. No GPU. The first check
# of part 2 searches some thirty knees and takes several seconds; say so.

# %% name="setup" tags=["slide-hidden"]
from helpers.lessons import (
    NOT_YET,
    calibration,
    check,
    exercise,
    predict,
    reconcile,
)
from helpers.lessons import disaggregation as lab
from helpers.widgets import disaggregation_lab as figures
from helpers.widgets.table import Table

# %% [markdown] name="part-1"
# ## Part 1: from blocking to overlapped
#
# **What you need to know.** A prefill worker computes the layers of a prompt one after the other. The decode worker needs the KV
# of all of them. A blocking sender computes the whole prompt and then sends; it is `lab.blocking_starts`. But a layer that is
# computed does not change any more, so it can be on its way while the next ones are computed. The link carries one layer at a time,
# in order. What is sent after the end of the prefill is *exposed*: it delays the second token.

# %% name="part-1-card"
exercise("the overlapped hand-off")

# %% [markdown] name="slides-part-1" tags=["slide-only"]
# ## What is left of a transfer?
#
# Llama-3.1-8B, a prompt of 8,192 tokens, 1.07 GB of KV, one 100 Gbit/s card. Blocking, all of it is exposed.
#
# How many milliseconds are left when each layer goes out as soon as it may?

# %% [markdown] name="part-1-guess"
# **Your prediction.** A prompt of 8,192 tokens of Llama-3.1-8B is 1.07 GB of KV in 32 layers. An H100 computes it in about 0.25 s;
# a 100 Gbit/s card takes about 0.11 s to send it. How much of that stays exposed, layer by layer?

# %% name="part-1-predict" tags=["slide-hidden"]
exposed_guess = predict(
    "exposed transfer, layer by layer",
    "ms",
    default=40,
    ask="How many milliseconds of the transfer stay exposed?",
)

# %% [markdown] name="part-1-do"
# **Do it.** `compute_s[i]` and `transfer_s[i]` are the seconds to compute and to send layer `i`. Time 0 is the start of the prefill.
# Write when each transfer starts, as early as it may, and what is exposed, given those starts.


# %% name="part-1-answer" tags=["learner"]
def my_starts(compute_s, transfer_s):
    """When the transfer of each layer starts, in seconds: a list."""
    return NOT_YET


def my_exposed_s(starts_s, compute_s, transfer_s):
    """Seconds from the end of the prefill to the last arrival."""
    return NOT_YET


# %% name="part-1-answer" tags=["solution", "slide-hidden"]
def my_starts(compute_s, transfer_s):
    """When the transfer of each layer starts, in seconds: a list."""
    starts_s, ready_s, link_free_s = [], 0.0, 0.0
    for compute, transfer in zip(compute_s, transfer_s, strict=True):
        ready_s += compute
        starts_s.append(max(ready_s, link_free_s))
        link_free_s = starts_s[-1] + transfer
    return starts_s


def my_exposed_s(starts_s, compute_s, transfer_s):
    """Seconds from the end of the prefill to the last arrival."""
    return starts_s[-1] + transfer_s[-1] - sum(compute_s)


# %% name="sent-before-it-is-computed" tags=["mutant"] exercise="the overlapped hand-off" hint="before it is computed"
def my_starts(compute_s, transfer_s):
    return [sum(transfer_s[:layer]) for layer in range(len(transfer_s))]


# %% name="link-is-always-free" tags=["mutant"] exercise="the overlapped hand-off" hint="while the link is busy with layer"
def my_starts(compute_s, transfer_s):
    return [sum(compute_s[: layer + 1]) for layer in range(len(compute_s))]


# %% name="after-the-whole-prefill" tags=["mutant"] exercise="the overlapped hand-off" hint="waits for the whole prefill"
def my_starts(compute_s, transfer_s):
    return lab.blocking_starts(compute_s, transfer_s)


# %% name="one-layer-late" tags=["mutant"] exercise="the overlapped hand-off" hint="is computed and the link is idle"
def my_starts(compute_s, transfer_s):
    starts_s, free_s = [], 0.0
    for layer in range(len(compute_s)):
        starts_s.append(max(sum(compute_s[: layer + 2]), free_s))
        free_s = starts_s[-1] + transfer_s[layer]
    return starts_s


# %% name="a-number-for-a-list" tags=["mutant"] exercise="the overlapped hand-off" hint="return a list"
def my_starts(compute_s, transfer_s):
    return compute_s[0]


# %% name="starts-that-stop" tags=["mutant"] exercise="the overlapped hand-off" hint="your answer stops with IndexError"
def my_starts(compute_s, transfer_s):
    starts_s = []
    for layer in range(len(compute_s)):
        starts_s[layer] = sum(compute_s[: layer + 1])
    return starts_s


# %% name="last-layer-left-out" tags=["mutant"] exercise="the overlapped hand-off" hint="the transfer of the last layer is left out"
def my_exposed_s(starts_s, compute_s, transfer_s):
    return starts_s[-1] - sum(compute_s)


# %% name="whole-transfer-exposed" tags=["mutant"] exercise="the overlapped hand-off" hint="that is the whole transfer"
def my_exposed_s(starts_s, compute_s, transfer_s):
    return sum(transfer_s)


# %% name="sums-alone" tags=["mutant"] exercise="the overlapped hand-off" hint="the two sums do not tell it"
def my_exposed_s(starts_s, compute_s, transfer_s):
    return max(0.0, sum(transfer_s) - sum(compute_s))


# %% [markdown] name="part-1-evidence"
# **Evidence.** Six layers of unequal length, under the blocking sender and, once you have one, under yours.

# %% [markdown] name="slides-timeline" tags=["slide-only"]
# ## Each layer as soon as it may

# %% name="part-1-timeline" tags=["slide"]
case, starts = lab.schedules(my_starts)
figures.hand_offs(case, starts)

# %% name="part-1-check"
hand_off = "the overlapped hand-off"
hand_off_verdict = check(hand_off, my_starts, my_exposed_s)
hand_off_verdict

# %% name="part-1-reconcile"
exposed_ms = NOT_YET
if hand_off_verdict.passed:
    exposed_ms = 1e3 * lab.exposed_s(my_starts, my_exposed_s)
reconcile(
    exposed_guess,
    bound={
        "blocking": 1e3 * sum(lab.prompt_case().transfer_s),
        "closed form, layer by layer": 1e3 * lab.bound_s(),
    },
    own={"by your functions": exposed_ms},
    note="Equal layers, latency left out.",
    origin="predicted",
)

# %% [markdown] name="part-1-live"
# **And it must arrive.** A schedule is worth nothing if what arrives is wrong. Four processes on this machine now serve eight requests
# with a tiny model, two of them as prefill workers, two as decode workers: blocking, layer by layer, and twice with KV that is damaged
# on purpose. Each run is held against the same requests without a hand-off. Starting the processes takes a while; no time is judged.

# %% name="part-1-exactness"
seen = lab.live("2P2D")  # lab.live("1P1D") leaves two of the four idle
figures.exactness({one.arm.name: one for one in seen.verdicts})

# %% [markdown] name="part-1-sender"
# **From a schedule to a sender.** A sender has no clock to follow: it acts when a layer is stored. So say, for each layer of a schedule,
# how many layers have been computed when its transfer starts. The sender of the prefill worker does exactly that: it lets the layer
# go once so many are stored.

# %% name="part-1-sender-card"
exercise("the schedule of a live sender")


# %% name="part-1-sender-answer" tags=["learner"]
def my_send_after(starts_s, compute_s):
    """After how many computed layers each one goes: a list of whole numbers."""
    return NOT_YET


# %% name="part-1-sender-answer" tags=["solution", "slide-hidden"]
def my_send_after(starts_s, compute_s):
    """After how many computed layers each one goes: a list of whole numbers."""
    computed = [0] * len(starts_s)
    ready_s = 0.0
    for seconds in compute_s:
        ready_s += seconds
        for layer, start_s in enumerate(starts_s):
            computed[layer] += ready_s <= start_s
    return computed


# %% name="computed-at-that-moment-left-out" tags=["mutant"] exercise="the schedule of a live sender" hint="at the very moment of a start counts"
def my_send_after(starts_s, compute_s):
    ready_s = [sum(compute_s[: i + 1]) for i in range(len(compute_s))]
    return [sum(ready < start for ready in ready_s) for start in starts_s]


# %% name="whatever-the-start" tags=["mutant"] exercise="the schedule of a live sender" hint="the starts are not obeyed"
def my_send_after(starts_s, compute_s):
    return list(range(1, len(compute_s) + 1))


# %% name="all-at-the-end" tags=["mutant"] exercise="the schedule of a live sender" hint="waits for the whole prefill, whatever its start"
def my_send_after(starts_s, compute_s):
    return [len(compute_s)] * len(compute_s)


# %% name="seconds-for-layers" tags=["mutant"] exercise="the schedule of a live sender" hint="a whole number of layers"
def my_send_after(starts_s, compute_s):
    return starts_s


# %% name="part-1-sender-check"
check("the schedule of a live sender", my_send_after)

# %% [markdown] name="part-1-timed"
# **And what of it is exposed, measured?** Two of the processes now take eight prompts, one at a time, each prefilled in one step. The
# time of a prefill is measured first, and the link is made so slow that the KV takes 0.8 times as long. All KV goes after the prefill,
# then, once you have one, by your schedule. Other programs on your machine are in these times; compare the least ones too.

# %% [markdown] name="slides-timed" tags=["slide-only"]
# ## Two running workers, one schedule each
#
# The sender of the prefill worker lets a layer go once so many layers are stored.

# %% name="part-1-timed-run" tags=["slide"]
figures.timed(lab.timed(my_starts, my_send_after))

# %% [markdown] name="part-1-mind" tags=["learner"]
# **What changed your mind?** How much faster would the link have to be for half of what is still exposed? And over a link of 2 GB/s,
# what does `lab.exposed_s(my_starts, my_exposed_s, 2e9)` say: which of the two is then waiting for the other?

# %% [markdown] name="part-1-mind" tags=["solution"]
# **What changed your mind?** While a layer is sent faster than it is computed, one layer stays exposed: the last, behind which
# nothing is computed. A link twice as fast halves it. Over 2 GB/s the link is the slower one: it is busy from the first layer on,
# and what does not fit behind the prefill is exposed.
#
# The engine of this course does the same by itself: it begins a layer by asking for its pages, and then the layer before it may go.
# What is measured lies above the arithmetic: the last pieces wait for the next turn of both processes, which costs some milliseconds.

# %% [markdown] name="notes-part-1" tags=["instructor", "slide"]
# **Usual misconceptions.** "Overlap hides everything" (never the last layer). "A faster link always helps" (it shortens what one
# layer takes, and that was little already). "Equal tokens on a few prompts prove the hand-off" (the damaged runs are there to show
# that the check can fail).
#
# **Questions to ask.** Which layer is exposed, and could it be another? What does a hand-off cost that goes out in 32 pieces?
# Why are logits not compared for equality?
#
# **Answer key.** A start is the later of "computed" and "link free". Exposed: last start, plus last transfer, less the prefill. The
# sender: how many layers are computed at the start, one that ends at that very moment included.

# %% [markdown] name="part-2"
# ## Part 2: a split, and its rival
#
# **What you need to know.** Four H100 serve Llama-3.1-8B: prompts of about 3,000 tokens, answers of about 150, lengths lognormal.
# The promise is a TTFT of 1 s and a TPOT of 12 ms. The *knee* is the highest rate at which nine requests in ten get both. You may
# split the GPUs into prefill and decode workers (`"1P3D"`, `"2P2D"`, `"3P1D"`), or let all do both, with chunks of prompts beside
# their decodes. Chunks are 256, 512, 1024 or 2048 tokens; routers are `round_robin`, `least_requests` and `least_tokens`.
# Five draws of this traffic are frozen.

# %% name="part-2-card"
exercise("a split under an SLO", "where the split loses")

# %% [markdown] name="slides-part-2" tags=["slide-only"]
# ## Apart or together?
#
# Four GPUs, 3,000 tokens in, 150 out, TTFT 1 s, TPOT 12 ms.
#
# How many percent more does the best split carry than the best four workers that do both?

# %% [markdown] name="part-2-guess"
# **Your prediction.** How much more goodput at the knee than the *best* co-located fleet, over the GPUs' own 400 Gbit/s cards?

# %% name="part-2-predict" tags=["slide-hidden"]
split_guess = predict(
    "what the best split of four gains",
    "%",
    default=10,
    ask="How many percent more does the best split carry?",
)

# %% [markdown] name="part-2-do"
# **Do it.** Choose a split, its chunks and its router. Then defend it: against which rival, by which figure (one of `lab.FIGURES`),
# on which of the draws 1 to 5? It has to carry 30 % more, with a 95 % interval of the paired difference above 0.

# %% name="part-2-answer" tags=["learner"]
my_fleet = {
    "split": NOT_YET,
    "chunk_tokens": NOT_YET,
    "router": NOT_YET,
}
my_defence = {
    "rival": {
        "workers": NOT_YET,
        "chunk_tokens": NOT_YET,
        "router": NOT_YET,
    },
    "figure": NOT_YET,  # lab.FIGURES[0] or lab.FIGURES[1]
    "draws": [NOT_YET],
}

# %% name="part-2-answer" tags=["solution"]
my_fleet = {
    "split": "2P2D",
    "chunk_tokens": 2048,
    "router": "least_tokens",
}
my_defence = {
    "rival": {
        "workers": 4,
        "chunk_tokens": 256,
        "router": "least_tokens",
    },
    "figure": lab.FIGURES[0],  # goodput at the knee
    "draws": [1, 2, 3, 4, 5],
}

# %% name="six-against-four" tags=["mutant"] exercise="a split under an SLO" hint="unequal GPUs"
my_fleet |= {"split": "3P3D"}

# %% name="weak-rival-of-two" tags=["mutant"] exercise="a split under an SLO" hint="unequal GPUs: the rival has 2"
my_defence["rival"] = my_defence["rival"] | {"workers": 2}

# %% name="ttft-past-the-knee" tags=["mutant"] exercise="a split under an SLO" hint="past the knees of both sides"
my_defence |= {"figure": lab.FIGURES[1]}

# %% name="too-few-decode" tags=["mutant"] exercise="a split under an SLO" hint="too few workers decode"
my_fleet |= {"split": "3P1D"}

# %% name="too-few-prefill" tags=["mutant"] exercise="a split under an SLO" hint="too few workers prefill"
my_fleet |= {"split": "1P3D"}

# %% name="straw-man" tags=["mutant"] exercise="a split under an SLO" hint="its chunks are too large"
my_defence["rival"] = my_defence["rival"] | {"chunk_tokens": 2048}

# %% name="one-draw" tags=["mutant"] exercise="a split under an SLO" hint="one draw has no interval"
my_defence |= {"draws": [1]}

# %% name="small-chunks-for-prefill" tags=["mutant"] exercise="a split under an SLO" hint="each chunk costs a step"
my_fleet |= {"chunk_tokens": 512}

# %% [markdown] name="part-2-evidence"
# **Evidence.** Both sides at their knees, and draw 1 at 10 and at 24 requests/s.

# %% name="part-2-try"
split_guess.lock()
figures.duel(lab.duel(my_fleet, my_defence), (10, 24))

# %% name="part-2-check"
split_verdict = check("a split under an SLO", my_fleet, my_defence)
split_verdict

# %% name="part-2-reconcile"
gain = NOT_YET
if split_verdict.passed:
    gain = lab.gain(my_fleet, my_defence)
reconcile(
    split_guess,
    own={"your split against its rival": gain},
    note="Five paired draws, N = 500 requests counted in each.",
)

# %% [markdown] name="part-2-when"
# **When does it lose?** So far the hand-off went layer by layer. Take that away: with the *blocking* hand-off, below which rate of
# the link does your split lose to the best co-located fleet? Guess, look at some links, and give the rate. You are right when the
# split wins over a link three times as fast and loses over one a third as fast, by goodput at the knee, on paired draws.

# %% name="part-2-link-predict"
link_guess = predict(
    "link below which a blocking split loses",
    "GB/s",
    default=60,
    ask="Below how many GB/s does your split lose, blocking?",
)

# %% name="part-2-links"
link_guess.lock()
my_links = [37.5]  # GB/s, a 400 Gbit/s card; try others
figures.links(lab.over_links(my_fleet, my_links))

# %% name="part-2-threshold" tags=["learner"]
my_threshold = NOT_YET  # GB/s

# %% name="part-2-threshold" tags=["solution"]
my_threshold = 17  # GB/s

# %% name="link-that-is-fast-enough" tags=["mutant"] exercise="where the split loses" hint="it does not lose yet"
my_threshold = 100

# %% name="link-with-its-unit" tags=["mutant"] exercise="where the split loses" hint="give a number of GB/s"
my_threshold = "17 GB/s"

# %% name="link-that-carries-the-load" tags=["mutant"] exercise="where the split loses" hint="it does not win either"
my_threshold = 3

# %% name="part-2-threshold-check"
link_verdict = check("where the split loses", my_fleet, my_threshold)
link_verdict

# %% name="part-2-threshold-reconcile"
threshold = my_threshold if link_verdict.passed else NOT_YET
reconcile(
    link_guess,
    own={"your threshold": threshold},
    note="Right within a factor of three, on five paired draws.",
)

# %% [markdown] name="part-2-mind" tags=["learner"]
# **What changed your mind?** Say in one sentence for which traffic, promise and link you would split, and against what you compared.
# What would a TPOT of 15 or of 30 ms do to your choice?

# %% [markdown] name="part-2-mind" tags=["solution"]
# **What changed your mind?** For prompts twenty times as long as answers, a tight TPOT and an overlapped hand-off, 2P2D carries more
# than four workers with small chunks, which pay a step for each chunk. At 15 ms the two are even: the rival may have more decodes
# and larger chunks, and wins back what it lost. With a blocking hand-off a 400 Gbit/s card keeps half of the lead, and one of 200
# hardly any: a prompt takes 100 ms to prefill on average, and its transfer over that card 25 ms, for which the worker computes nothing.

# %% [markdown] name="notes-part-2" tags=["instructor", "slide"]
# **Usual misconceptions.** "Splitting is a speed-up" (it is a trade: each pool is idle when the other is full). "Chunks of 2,048 are
# the default, so they are fair" (with a tight TPOT they are a straw man). "A link that carries the load is fast enough" (a
# blocking sender loses every second of a transfer, however idle the link is otherwise).
#
# **Questions to ask.** Which of the two bounds is missed first by 3P1D, and which by 1P3D? Why do small chunks hurt a prefill worker?
# Who gains when the answers get longer?
#
# **Answer key.** 2P2D, chunks of 2,048, `least_tokens`; rival 4 workers, chunks of 256, `least_tokens`; goodput at the knee; all five
# draws. Threshold about 17 GB/s (7 to 37 is right).

# %% [markdown] name="part-3"
# ## Part 3: find the flaw
#
# **What you need to know.** Four people report that a hand-off layer by layer is faster, or exact. One report is sound, three are
# wrong, each in its own way: **start-up in the clock** of one arm; **a test that zeros pass**, so that it says nothing of what
# arrived; **two changes at once**, of which one gets the credit; or **none**.

# %% name="part-3-card"
exercise("the flaws in four hand-off reports")

# %% [markdown] name="slides-part-3" tags=["slide-only"]
# ## Four reports, one is sound
#
# Start-up in the clock, a test that zeros pass, two changes at once, or nothing wrong. From the claims alone: which one do you
# believe?

# %% name="part-3-claims"
files = lab.reports()
claims = [[name, report.claim] for name, report in files.items()]
Table("Four reports", ["report", "claim"], claims)

# %% name="part-3-predict"
sound_guess = predict(
    "the sound report on hand-offs",
    "",
    default="D",
    choices="ABCD",
    ask="From the claims alone, which one do you believe?",
)

# %% [markdown] name="part-3-evidence"
# **Evidence.** What can be said of the arms behind a report. For a report with several changes, the arms between are run too; where
# tokens were compared, the same test is asked about zeros in place of the KV.

# %% name="part-3-tools"
sound_guess.lock()
report = files["A"]  # look at the others too
figures.findings(report.arms)

# %% [markdown] name="part-3-do"
# **Do it.** Match each report with `"start-up in the clock"`, `"a test that zeros pass"`, `"two changes at once"` or `"none"`.

# %% name="part-3-answer" tags=["learner"]
my_flaws = {"A": NOT_YET, "B": NOT_YET, "C": NOT_YET, "D": NOT_YET}

# %% name="part-3-answer" tags=["solution"]
my_flaws = {
    "A": "two changes at once",  # the router alone gives most of it
    "B": "start-up in the clock",  # only the first run started workers
    "C": "none",  # one change, five draws, paired
    "D": "a test that zeros pass",  # first tokens come before the hand-off
}

# %% name="split-flaws-nowhere" tags=["mutant"] exercise="the flaws in four hand-off reports" hint="3 of 4 do not fit"
my_flaws = dict.fromkeys("ABCD", "none")

# %% name="split-flaws-swapped" tags=["mutant"] exercise="the flaws in four hand-off reports" hint="2 of 4 do not fit. Report B: look"
my_flaws |= {"B": "a test that zeros pass", "D": "start-up in the clock"}

# %% name="split-flaws-without-names" tags=["mutant"] exercise="the flaws in four hand-off reports" hint="give one flaw for each"
my_flaws = [
    "two changes at once",
    "start-up in the clock",
    "none",
    "a test that zeros pass",
]

# %% name="split-flaws-of-another-kind" tags=["mutant"] exercise="the flaws in four hand-off reports" hint="is no flaw in the list"
my_flaws |= {"D": "noise"}

# %% name="part-3-check"
flaws_verdict = check("the flaws in four hand-off reports", my_flaws)
flaws_verdict

# %% name="part-3-reconcile"
sound = NOT_YET
if flaws_verdict.passed:
    sound = next(name for name, flaw in my_flaws.items() if flaw == "none")
reconcile(sound_guess, truth=sound)

# %% [markdown] name="part-3-mind" tags=["learner"]
# **What changed your mind?** Every number in the claims is that of its runs. Which question would have found each flaw before
# anything ran? And what would have to stand beside report D, so that you believe it?

# %% [markdown] name="part-3-mind" tags=["solution"]
# **What changed your mind?** What else differs (A)? When does the clock start, in both arms (B)? What would the test say if nothing
# had been sent (D)? The first token of an answer is computed where the prompt is, so it is equal whatever arrives. Beside D belong
# later tokens, logits, digests of the pages, and a run with damaged KV that the test turns down: the table of part 1.

# %% [markdown] name="notes-part-3" tags=["instructor", "slide"]
# **Usual misconceptions.** "Equal output proves an equal cache" (only of tokens that were computed from it). "Wall clock is honest"
# (it is, about everything at once). "A large gain is suspicious" (C has the largest in the simulation, and is sound).
#
# **Questions to ask.** Which of your benchmarks has a run that must fail? Who pays for start-up in production, and how often? How many
# arms do two changes need?
#
# **Answer key.** A two changes at once · B start-up in the clock · C none · D a test that zeros pass.

# %% [markdown] name="calibration"
# ## Your guesses so far
#
# Each dot is a guess of yours over the true value, for all chapters and labs that you have done on this machine. A dot at 1
# is exact.

# %% name="calibration-figure"
calibration()
