"""The planner's workbench: what an operator's lowering uses to see its inputs, get memory for its outputs and emit steps."""
from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Sequence
from contextlib import contextmanager
from math import prod
from typing import Any, NamedTuple

import numpy as np
import onnx_ir as ir

from .. import _native
from ..errors import MemoryLimitError
from ..files import give_back
from ..ops.base import NeedsValue, NotNative
from ..passes.context import node_name
from .choice import Choice, Way, choose, offered
from .evaluate import Stage, evaluate
from .facts import Fact
from .graph import GraphView
from .options import PlanOptions
from .placement import Placement
from .program import make_step
from .store import Store
from .tensor import BF16, F32, TYPES, Buffer, Tensor, image_layout, pixel_stride, prefers_image, row_strides
from .walk import collapse

TURNED = 1024  # channels that are turned round on their way to bf16 (elementwise.c)


class Deferred(NamedTuple):
    """A per-channel map in front of one or more convolutions: out = clamp(source * scale + shift), not computed unless somebody
    needs it in memory. `make` emits the step that does. by_image: elements from the map of one image of the batch to that of the
    next;
    0: one map for all."""

    source: Tensor
    scale: Tensor
    shift: Tensor
    low: float
    high: float
    make: Callable[[], None]
    by_image: int = 0


class Lowering:
    """One plan in the making. Values are `Tensor` views by name; steps are emitted in execution order."""

    def __init__(self, graph: GraphView, facts: dict[str, Fact], options: PlanOptions, store: Store) -> None:
        self.graph, self.facts, self.store, self.options, self.isa = graph, facts, store, options, options.isa
        self.lanes, self.nr, macs = (_native.isa_info(self.isa)[k] for k in ("lanes", "nr", "bf16_macs"))
        self.halves = options.precision == "medium" and bool(macs or "bf16" in options.algorithms.values())
        self.values: dict[str, Tensor] = {}
        self.steps: list = []          # Step, or the runtime's fallback calls
        self.buffers: list[Buffer] = []
        self.done: set[ir.Node] = set()  # nodes that an earlier one has taken into its epilogue
        self.node: ir.Node | None = None
        self.placement = Placement(self)
        self.deferred: dict[str, Deferred] = {}
        self.fused: dict[ir.Node, list[ir.Node]] = {}  # BatchNorm that costs no memory pass of its own -> nodes that do its work
        self.choices: dict[str, Choice] = {}  # by node name
        self.counts: dict[str, str] = {}  # output whose length is counted -> where the count goes (see Op.bound)
        self._sections = self._track = 0
        self._scratch: dict[int, Buffer] = {}  # by track
        self._tables = Store(1 << 16)         # constants of this plan alone
        self._staged: dict[str, list[Tensor]] = {}
        self._file_stage = Stage()
        self._found: dict[tuple[Callable, ir.Node], object] = {}

    # What is known

    def opset(self, node: ir.Node) -> int:
        return self.graph.opset(node)

    def once(self, compute: Callable[[Lowering, ir.Node], Any], node: ir.Node) -> Any:
        """compute(self, node), which follows from facts alone, computed once; it is kept and must hold no weights."""
        if (compute, node) not in self._found:
            self._found[compute, node] = compute(self, node)
        return self._found[compute, node]

    def shape(self, name: str) -> tuple[int, ...]:
        return self.facts[name].shape

    def constant_value(self, value: ir.Value | None) -> np.ndarray | None:
        """The value's contents if they do not depend on this run's data."""
        fact = None if value is None else self.facts.get(value.name)
        return None if fact is None else fact.value

    def need(self, value: ir.Value | None) -> np.ndarray | None:
        """Like `constant_value`, but a value that only the run will know cuts the plan here, to continue when it is known."""
        if value is None:
            return None
        array = self.constant_value(value)
        if array is None:
            raise NeedsValue(value.name)
        return array

    def key(self, name: str) -> tuple:
        """What tells this constant from all others in the store: an initializer's name, or the contents of what was computed (which
        may follow from the shapes this plan is for)."""
        value = self.graph.model.graph.initializers.get(name)
        if value is not None and not value.is_graph_input():
            return (name,)
        array = self.facts[name].value
        return name, array.shape, None if array is None else array.tobytes()

    # Inputs

    def tensor(self, name: str, half: bool = False) -> Tensor:
        """The value in whatever layout it has; half: as bf16 numbers, if a float32 image is kept as such."""
        if name in self.deferred:
            self.deferred.pop(name).make()
        if name not in self.values:
            value = self.facts[name].value
            if value is None:
                raise NotNative(f"the value {name!r} is not a tensor")
            key = self.key(name)
            self.values[name] = self.constant(("value", *key), lambda: value, value.shape, shared=len(key) == 1)
        tensor = self.values[name]
        if half or tensor.dtype != BF16 or self.facts[name].dtype == BF16:
            return tensor
        return self._stage(name, lambda t: t.dtype == F32, lambda: self.new_image(tensor.shape, tensor.border), tensor)

    def wide(self, tensor: Tensor) -> Tensor:
        """An image as float32 numbers, whatever it is kept as."""
        if tensor.dtype != BF16:
            return tensor
        target = self.new_image(tensor.shape, tensor.border)
        self.copy(tensor, target)
        return target

    def rounded(self, name: str, border) -> Tensor:
        """A float32 image as bf16 numbers, with at least this border."""
        tensor = self.tensor(name)
        return self._stage(name, lambda t: t.dtype == BF16 and t.has_border(border),
                           lambda: self.new_image(tensor.shape, border, BF16), tensor)

    def computed(self, name: str) -> bool:
        """Whether the value exists already at this point of the plan."""
        return name in self.values or name in self.deferred

    def rows(self, name: str) -> Tensor:
        """The value, row-major and contiguous."""
        tensor = self.tensor(name)
        if tensor.is_rows():
            return tensor
        return self._stage(name, lambda t: t.is_rows(), lambda: self.temporary(tensor.shape, tensor.dtype), tensor)

    def image(self, name: str, border=None, half: bool = False) -> Tensor:
        """The value, an (N, C, spatial...) image with contiguous channels and at least the given zero border; half: `tensor`'s."""
        tensor = self.tensor(name, half)
        border = border or ((0, 0),) * (len(tensor.shape) - 2)

        def fits(t: Tensor) -> bool:
            return t.is_image() and t.dtype == tensor.dtype and t.has_border(border)

        if fits(tensor):
            return tensor
        wanted = self.placement.border(name) or border
        wide = tuple((max(a[0], b[0]), max(a[1], b[1])) for a, b in zip(border, wanted))
        return self._stage(name, fits, lambda: self.new_image(tensor.shape, wide, tensor.dtype), tensor)

    def _stage(self, name: str, fits, make, source: Tensor) -> Tensor:
        """A copy of the value's `source` that fits: one that is there, or else what `make` gives memory for."""
        for tensor in self._staged.setdefault(name, []):
            if fits(tensor):
                return tensor
        target = make()
        self.copy(source, target)
        self._staged[name].append(target)
        return target

    # Memory

    def arena(self, nbytes: int) -> Buffer:
        self.afford(nbytes)
        buffer = Buffer("arena", nbytes)
        self.buffers.append(buffer)
        return buffer

    def afford(self, nbytes: int) -> None:
        """Refuse at once what alone exceeds the memory that the session may use."""
        limit = self.options.max_memory
        if limit is not None and nbytes > limit:
            who = "the plan" if self.node is None else f"node {self.node.name!r} ({self.node.op_type})"
            raise MemoryLimitError(f"{who} needs {nbytes} bytes for one value; max_memory is {limit}")

    def temporary(self, shape, dtype=F32) -> Tensor:
        """Row-major memory that lives as long as the steps that touch it."""
        dtype = np.dtype(dtype)
        return Tensor(self.arena(prod(shape) * dtype.itemsize), tuple(shape), row_strides(shape), dtype)

    def scratch(self, count: int, dtype) -> Tensor:
        """Memory whose contents do not outlive a step: all steps share it, but for those of another track."""
        dtype = np.dtype(dtype)
        if self._track not in self._scratch:
            self._scratch[self._track] = self.arena(0)
        buffer = self._scratch[self._track]
        buffer.nbytes = max(buffer.nbytes, count * dtype.itemsize)
        return Tensor(buffer, (count,), (1,), dtype)

    def constant(self, key, make, shape=None, shared: bool = False) -> Tensor:
        """An array made once per key, 64-byte aligned: for this plan, or if `shared` for all plans of the session, which then must
        not depend on shapes: see `key`."""
        def build():
            array = np.asarray(make())
            out = self.store.zeros(array.size, array.dtype).reshape(array.shape)
            out[...] = array
            return out
        array = (self.store if shared else self._tables).get(key, build)
        return Tensor(Buffer("const", array.nbytes, array), tuple(array.shape if shape is None else shape),
                      row_strides(array.shape if shape is None else shape), array.dtype)

    def new_image(self, shape, border=(), dtype=F32) -> Tensor:
        """NHWC memory for an image, its zero border written by a step of its own."""
        border = tuple(border) or ((0, 0),) * (len(shape) - 2)
        strides, first, count = image_layout(shape, pixel_stride(shape[1], dtype), border)
        tensor = Tensor(self.arena(dtype.itemsize * count), tuple(shape), strides, dtype, dtype.itemsize * first, border)
        self._zero_border(tensor)
        return tensor

    def _zero_border(self, t: Tensor) -> None:
        """Runs of memory: in front of an image's first pixel, behind its last, and between neighbours along each dimension but the
        innermost, where what ends one and what begins the next are one run."""
        (images, _, *n), (stride, _, *step) = t.shape, t.strides
        if 0 in n:  # nothing but border
            return self.fill(t.view([images, stride], [stride, 1], -sum(b * s for (b, _), s in zip(t.border, step))), 0.0)
        for d in range(len(n)):
            before, after = (sum(pair[i] * s for pair, s in zip(t.border[d:], step[d:])) for i in (0, 1))
            behind = sum((size - 1) * s for size, s in zip(n[d:], step[d:])) + step[-1]  # the last pixel
            lead = [*n[:d - 1], n[d - 1] - 1] if d else []
            for start, count in [(behind, after + before)] if d else [(-before, before), (behind, after)]:
                if count * prod(lead):
                    self.fill(t.view([images, *lead, count], [stride, *step[:d], 1], start), 0.0)

    def output(self, name: str, image: bool, like: Tensor | None = None, half: bool = False) -> Tensor:
        """Memory for an output of the node being lowered, bound to its name: where its readers want it to be.

        like: a tensor of the same shape whose order of dimensions suits it, whatever its data type; half: whether the step that
        writes it can round to bf16, if that is how the image is kept (the result's dtype says so).
        """
        image = image or (like is not None and like.dtype == F32 == self.facts[name].dtype and prefers_image(like))
        tensor = self.placement.output(name, image, like, half)
        self.values[name] = tensor
        return tensor

    def bind(self, name: str, tensor: Tensor) -> None:
        """Let an output be a view of existing memory."""
        self.values[name] = tensor

    # Steps

    def choose(self, node: ir.Node, ways: Sequence[Way]) -> Way:
        """The way in which a node is, or will be, computed."""
        return choose(node_name(node), ways, self.options.algorithms, self.options.tuned)

    def compute(self, ways: Sequence[Way]) -> None:
        """Lower the node at hand in the best of these ways."""
        way = self.choose(self.node, ways)
        self.choices[node_name(self.node)] = Choice(way.name, offered(ways))
        way.emit()

    def emit(self, step: str, args: dict[str, Tensor | None], /, flops: int = 0, **params) -> None:
        """Add a call of the C operation `step`; params by the names of its parameter struct."""
        step = make_step(step, args, params, node_name(self.node) if self.node is not None else "", flops)
        self.add(step)

    def add(self, step) -> None:
        step.touch(len(self.steps))
        self.steps.append(step)

    @contextmanager
    def side_by_side(self):
        """Steps emitted inside run on several threads: those of one `with track():` in order on one thread, tracks in any order.
        The memory they touch stays theirs from the first step to the last."""
        begin, self._sections = len(self.steps), self._sections + 1
        tracks = 0

        @contextmanager
        def track():
            nonlocal tracks
            mark, self._track = len(self.steps), tracks + 1
            yield
            self._track = 0
            for step in self.steps[mark:]:
                step.section, step.track = self._sections, tracks
            tracks += 1

        yield track
        for step in self.steps[begin:]:
            step.touch(begin)
            step.touch(len(self.steps) - 1)

    def copy(self, source: Tensor, target: Tensor) -> None:
        """target = source, any strides; shapes must be equal, and data types but where an image is widened or rounded."""
        if (source.dtype, target.dtype) == (F32, BF16) and self._rounds(source, target):
            self.unary("IDENTITY", source, target)
        elif source.dtype != target.dtype:
            self.map(f"CAST_{TYPES[source.dtype]}_{TYPES[target.dtype]}", [source], target)
        elif source.dtype.itemsize == 4:
            self.unary("IDENTITY", source, target)
        elif source.is_words() and target.is_words():
            self.unary("IDENTITY", source.words(), target.words())
        else:
            self.map(f"COPY_{source.dtype.itemsize}", [source], target)

    @staticmethod
    def _rounds(source: Tensor, target: Tensor) -> bool:
        """Whether the unary operation can round the source to the target's bf16 numbers: rows in order, or turned round."""
        shape, (inside, out) = collapse(target.shape, source.strides, target.strides)
        return out[-1] == 1 and (inside[-1] == 1 or (inside[-2] == 1 and shape[-1] <= TURNED))

    def unary(self, act: str, source: Tensor, target: Tensor, a: float = 0.0, b: float = 0.0) -> None:
        """target = act(source), any strides; shapes must be equal."""
        if target.size == 0:
            return
        shape, strides = collapse(target.shape, source.strides, target.strides)
        self.emit("unary", {"in": source, "out": target}, shape=shape, a_stride=strides[0], out_stride=strides[1],
                  op=_native.ACTS[act], a=a, b=b, half=target.dtype == BF16)

    def map(self, loop: str, sources: list[Tensor], target: Tensor) -> None:
        """target = loop(*sources), a typed loop of drivers/loops.h, any strides; sources broadcast to the target's shape."""
        if loop not in _native.LOOPS:
            raise NotNative(f"no loop {loop}")
        if target.size == 0:
            return
        sources = [t.broadcast(target.shape) for t in sources]
        shape, strides = collapse(target.shape, *(t.strides for t in sources), target.strides)
        names = ("a", "b", "c")[:len(sources)]
        self.emit("map", {**dict(zip(names, sources)), "out": target}, shape=shape, out_stride=strides[-1],
                  loop=_native.LOOPS[loop], **{f"{n}_stride": s for n, s in zip(names, strides)})

    def cast(self, source: Tensor, dtype) -> Tensor:
        """A copy of the tensor in another element type."""
        target = self.temporary(source.shape, dtype)
        self.map(f"CAST_{TYPES[source.dtype]}_{TYPES[target.dtype]}", [source], target)
        return target

    def fill(self, target: Tensor, value: float) -> None:
        """Every element of the target, of any strides and data type, becomes the value."""
        if target.size:
            shape, strides = collapse(target.shape, target.strides)
            bits = int.from_bytes(np.asarray(value).astype(target.dtype).tobytes(), sys.byteorder, signed=True)
            self.emit("fill", {"out": target}, shape=shape, out_stride=strides[0], item=target.dtype.itemsize, bits=bits)

    def scalar(self, value: float, dtype=F32) -> Tensor:
        """A constant of rank 0."""
        array = np.asarray(value).astype(dtype)
        return self.constant(("scalar", array.dtype, array.tobytes()), lambda: array)

    def precompute(self, key, step: str, count: int, pieces: Iterable[tuple[np.ndarray, int, int, dict]],
                   dtype: np.dtype = F32) -> Tensor:
        """`count` numbers that a native operation (args in, out) makes of constants, run now and kept in the store.

        pieces: (source, first number of the result, how many, parameters) of each call; drawn only if they are needed.
        """
        def make():
            out, stage = self.store.zeros(count, dtype), self._file_stage
            for source, first, size, params in pieces:
                evaluate(self.isa, step, stage(source), out[first:first + size], params, self.options.threads)
                give_back(source)
            return out
        array = self.store.get((self.isa, *key), make)
        return Tensor(Buffer("const", array.nbytes, array), (count,), (1,), dtype)

    def release(self, name: str, again: Callable[[], np.ndarray] | None = None) -> None:
        """Give up the memory of an initializer that is kept in another form, from which `again` makes it when it is asked for;
        without that, only what can be read from the model's file once more."""
        value, reread = self.graph.model.graph.initializers.get(name), self.options.reread
        if value is None or value.is_graph_input() or not self.options.release or name in self.graph.outputs \
                or len(self.graph.readers(name)) > 1 or (again is None and reread is None):
            return
        make = again if again is not None else reread.later(name)
        dtype, shape = value.const_value.dtype, value.const_value.shape
        value.const_value = ir.LazyTensor(lambda: ir.Tensor(make().reshape(shape.numpy())), dtype, shape, name=name,
                                          cache=again is None)
        self.facts[name] = Fact.of_constant(value.const_value)
