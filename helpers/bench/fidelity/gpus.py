"""What is served on GPUs: a large model, one worker a GPU, slices of a few seconds.

They are served once to learn from and some times to be held out, at other loads, under another router, from other
draws. Nobody is idle there under load, so hand-overs to an idle worker come from requests of a few tokens.
"""

from helpers.bench.fidelity.plan import Slice

LENGTHS, FEW = "gpu", "gpu, few tokens"
BURST = Slice("burst", "1", 1e4, 320, 1, lengths=LENGTHS)
LEARNT_FROM = (
    Slice("steps of one", "1", 0.6, 160, 2, lengths=LENGTHS),
    Slice("steps of two", "2", 0.6, 260, 3, lengths=LENGTHS),
    Slice("steps of a split", "1P1D", 0.5, 130, 4, lengths=LENGTHS),
    Slice("hand-overs", "1P1D", 0.12, 40, 5, lengths=FEW),
)
HELD_OUT = (
    Slice("one worker at 0.5", "1", 0.5, 130, 21, lengths=LENGTHS),
    Slice("one worker at 0.8", "1", 0.8, 210, 22, lengths=LENGTHS),
    Slice("round robin at 0.75", "2", 0.75, 360, 23, lengths=LENGTHS),
    Slice("least requests at 0.75", "2", 0.75, 360, 23, "least_requests", lengths=LENGTHS),
    Slice("1P1D at 0.4", "1P1D", 0.4, 110, 24, lengths=LENGTHS),
    Slice("1P1D at 0.7", "1P1D", 0.7, 180, 25, lengths=LENGTHS),
)
# The beginning of the digest of each slice: whoever changes one has to change it here, in plain sight.
FROZEN = {
    "burst": "9e7ee3d58e25b861",
    "steps of one": "7f34424dbebfc21c",
    "steps of two": "a52954df721a1723",
    "steps of a split": "3ebe48f533b9e2e2",
    "hand-overs": "44f658cbad7667f1",
    "one worker at 0.5": "26441e08ef70c0b3",
    "one worker at 0.8": "7b36d36eefc1f74e",
    "round robin at 0.75": "d853fa886f51485a",
    "least requests at 0.75": "1e6772314752d90b",
    "1P1D at 0.4": "922b54942c655d62",
    "1P1D at 0.7": "8d3991b3b6568f4e",
}
