"""A radix tree of prompts: as long as no two prompts part, their blocks are one node."""

from collections import OrderedDict
from collections.abc import Iterator, Sequence


class Node:
    """A run of blocks. `context` counts the tokens from the beginning of the prompt to the end of the run.

    `workers` is the mask of the workers that were sent a prompt which passes through.
    """

    __slots__ = ("blocks", "children", "context", "parent", "used_s", "workers")

    def __init__(self, blocks: Sequence[int], parent: "Node | None", context: int, workers: int = 0) -> None:
        self.blocks, self.parent, self.context, self.workers = blocks, parent, context, workers
        self.children: dict[int, Node] = {}
        self.used_s = 0.0

    @property
    def tokens(self) -> int:
        """Tokens of the run itself. A split takes some away."""
        return self.context - self.parent.context if self.parent else 0

    def path(self) -> Iterator["Node"]:
        """The node, its parent, and so on to the root."""
        node: Node | None = self
        while node is not None:
            yield node
            node = node.parent


class RadixTree:
    """The prompts that were put in, in blocks of `block_tokens` tokens, each until it was not used for some time."""

    __slots__ = ("_order", "block_tokens", "root")

    def __init__(self, block_tokens: int) -> None:
        self.block_tokens = block_tokens
        self.root = Node((), None, 0)
        self._order: OrderedDict[Node, None] = OrderedDict()  # by last use, a node always after those below it

    def __len__(self) -> int:
        """Nodes below the root."""
        return len(self._order)

    def match(self, blocks: Sequence[int]) -> tuple[Node, int]:
        """The last node that a prompt reaches, maybe only in part, and how many of its blocks are in the tree."""
        node, at = self.root, 0
        while at < len(blocks):
            child = node.children.get(blocks[at])
            if child is None:
                break
            same = common(child.blocks, blocks, at)
            node, at = child, at + same
            if same < len(child.blocks):
                break
        return node, at

    def insert(self, blocks: Sequence[int], tokens: int, now: float) -> tuple[Node, Node | None]:
        """Put in a prompt of `tokens` tokens; returns its last node, and the node that had to be split, if any."""
        node, at, split = self.root, 0, None
        while at < len(blocks):
            child = node.children.get(blocks[at])
            if child is None:
                child = node.children[blocks[at]] = Node(blocks[at:], node, tokens)
                same = len(child.blocks)
            else:
                same = common(child.blocks, blocks, at)
                if same < len(child.blocks):
                    split, child = child, self._split(child, same)
            node, at = child, at + same
        for used in node.path():
            used.used_s = now
            if used.parent:
                self._order[used] = None
                self._order.move_to_end(used)
        return node, split

    def _split(self, node: Node, blocks: int) -> Node:
        """Give the first blocks of a node a node of their own above it, with the same workers; returns that one."""
        parent = node.parent
        upper = Node(node.blocks[:blocks], parent, parent.context + blocks * self.block_tokens, node.workers)
        parent.children[node.blocks[0]] = upper
        node.blocks, node.parent = node.blocks[blocks:], upper
        upper.children[node.blocks[0]] = node
        return upper

    def expire(self, before: float) -> None:
        """Take out the nodes whose last use was earlier than `before`."""
        while self._order and (node := next(iter(self._order))).used_s < before:
            del self._order[node], node.parent.children[node.blocks[0]]

    def drop(self, worker: int) -> None:
        """A worker is gone from every node."""
        for node in (self.root, *self._order):
            node.workers &= ~(1 << worker)


def common(run: Sequence[int], blocks: Sequence[int], at: int) -> int:
    """How many blocks of `run` are those of `blocks` from `at` on."""
    same = 0
    for one, other in zip(run, blocks[at : at + len(run)], strict=False):
        if one != other:
            break
        same += 1
    return same
