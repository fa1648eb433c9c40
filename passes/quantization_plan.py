"""Which tensors of a float model are quantized, so that integer operators can compute everything in between.

An operator, the bias addition behind it and the ReLU or clip behind that form a unit; only the unit's result is
quantized. A chain of operators that act on every element by itself becomes one table, so only its ends are. Operators
that move values keep the scale of what they move.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from fnmatch import fnmatchcase

from ._tvm import Constant, relax, tvm
from .affine import Affine
from .module_params import get_params, input_vars, param_vars, static_shape
from .pointwise import pointwise_operands, scalar_value
from .rebuild import bindings, users

WEIGHTED = ("relax.nn.conv2d", "relax.matmul")
_SUMS = ("relax.add", "relax.subtract", "relax.multiply")
_CLIPS = ("relax.nn.relu", "relax.nn.relu6", "relax.clip")
# The result has the scale of the first operand.
_MOVES = tuple(
    f"relax.{name}"
    for name in ("reshape", "permute_dims", "squeeze", "expand_dims", "flatten", "strided_slice", "flip")
)
# Results in a known interval get the scale that TensorFlow Lite demands.
_FIXED = {
    "relax.nn.softmax": Affine(1.0 / 256.0, -128),
    "relax.sigmoid": Affine(1.0 / 256.0, -128),
    "relax.tanh": Affine(1.0 / 128.0, 0),
}


@dataclass(frozen=True)
class Point:
    """How a tensor gets its scale: from its own range, from another tensor, or as a fixed one.

    Attributes:
        same_as: The tensor whose scale it shares, if any.
        fixed: Its scale, if it is known beforehand.
    """

    same_as: relax.Var | None = None
    fixed: Affine | None = None


@dataclass
class Plan:
    """The decision for a whole module.

    Attributes:
        points: The tensors that are quantized, in order of computation.
        layers: The convolutions and matrix products whose weights are quantized; the value is the bias addition behind
            it.
        constants: Constant tensors that are operands of quantized operators: (operator's variable, argument's
            position).
        heads: The operator that begins the unit whose result a quantized tensor is, where it is another one.
    """

    points: dict[relax.Var, Point] = field(default_factory=dict)
    layers: dict[relax.Var, relax.Var | None] = field(default_factory=dict)
    constants: list[tuple[relax.Var, int]] = field(default_factory=list)
    heads: dict[relax.Var, relax.Var] = field(default_factory=dict)

    @property
    def observed(self) -> set[str]:
        """Names of the tensors whose ranges calibration must find."""
        return {var.name for var, point in self.points.items() if point.same_as is None and point.fixed is None}


    def root(self, var: relax.Var) -> relax.Var:
        """The tensor whose scale a quantized tensor has in the end: itself, or what it was moved from."""
        point = self.points[var]
        return var if point.same_as is None else self.root(point.same_as)


def plan_quantization(mod: tvm.IRModule, exclude: Collection[str] | Callable[[str], bool] = ()) -> Plan:
    """Decide on a module in canonical form.

    Args:
        mod: Float, parameters attached.
        exclude: Which layers stay in float: patterns (as of `fnmatch`) of their names, or a function of a name.
    """
    if callable(exclude):
        return _Planner(mod, exclude).run()
    patterns = tuple(exclude)
    return _Planner(mod, lambda name: any(fnmatchcase(name, pattern) for pattern in patterns)).run()


def is_global_pool(call: relax.Call) -> bool:
    """Whether an average pooling takes in its whole input with one window."""
    attrs = call.attrs
    layout = str(attrs.layout)
    shape = static_shape(call.args[0])
    size = [shape[layout.index("H")], shape[layout.index("W")]]
    out = static_shape(call)
    single = out[layout.index("H")] == out[layout.index("W")] == 1
    return single and [int(k) for k in attrs.pool_size] == size and not any(int(p) for p in attrs.padding)


class _Planner:
    def __init__(self, mod: tvm.IRModule, exclude: Callable[[str], bool]) -> None:
        self.main = mod["main"]
        self.program = list(bindings(self.main))
        self.values = dict(self.program)
        self.readers = users(self.main)
        values = get_params(mod)
        self.params = {var: values[var.name] for var in param_vars(self.main)}
        self.exclude = exclude
        self.plan = Plan()
        # Members of units other than the last, which are not quantized.
        self.inside: set[relax.Var] = set()
        # What belongs to layers that stay in float.
        self.floating: set[relax.Var] = set()
        self.unit_of: dict[relax.Var, relax.Var] = {}
        self.roots: dict[relax.Var, relax.Var] = {}
        self.wanted: set[relax.Var] = set()

    def run(self) -> Plan:
        self._find_units()
        self._find_wanted()
        for var in input_vars(self.main):
            if var in self.wanted:
                self._add(var, Point())
        for var, value in self.program:
            if isinstance(value, relax.Call):
                self._visit(var, value)
            elif isinstance(value, relax.TupleGetItem):
                split = self.values.get(value.tuple_value)
                if isinstance(split, relax.Call) and split.args[0] in self.plan.points and self._is_move(split):
                    self._add(var, Point(same_as=split.args[0]))
        return self.plan

    # What belongs together

    def _sole_reader(self, var: relax.Var) -> tuple[relax.Var, relax.Call] | None:
        readers = self.readers.get(var, [])
        if len(readers) != 1 or readers[0].same_as(var):
            return None
        value = self.values.get(readers[0])
        return (readers[0], value) if isinstance(value, relax.Call) else None

    def _find_units(self) -> None:
        """Units, and chains of pointwise operators on one tensor: their roots, and which members are inside."""
        for var, value in self.program:
            if self._excluded(var):
                self._exclude_unit(var, value)
            if var in self.inside or var in self.unit_of or self._excluded(var):
                continue
            root = self._root(value)
            if root is not None:
                self.roots[var] = root
            elif self._is_head(value):
                self._add_unit(var, value)
        for var, root in self.roots.items():
            readers = self.readers.get(var, [])
            if readers and all(not r.same_as(var) and self.roots.get(r) == root for r in readers):
                self.inside.add(var)

    def _exclude_unit(self, var: relax.Var, value: relax.Expr) -> None:
        """With a layer that stays in float, its bias and activation stay too."""
        if not self._is_head(value) or value.op.name not in WEIGHTED:
            return
        for belongs in (lambda call, end: self._is_bias(call, end), lambda call, end: call.op.name in _CLIPS):
            follower = self._sole_reader(var)
            if follower is not None and belongs(follower[1], var):
                var = follower[0]
                self.floating.add(var)

    def _add_unit(self, var: relax.Var, value: relax.Call) -> None:
        end = var
        if value.op.name in WEIGHTED:
            bias = None
            follower = self._sole_reader(end)
            if follower is not None and self._is_bias(follower[1], end):
                self.inside.add(end)
                bias = end = follower[0]
            self.plan.layers[var] = bias
        follower = self._sole_reader(end)
        if follower is not None and follower[1].op.name in _CLIPS and not self._excluded(follower[0]):
            self.inside.add(end)
            end = follower[0]
        self.unit_of[end] = var

    def _root(self, value: relax.Expr) -> relax.Var | None:
        """The one tensor that a pointwise operator, and those before it, are a function of."""
        operands = pointwise_operands(value, self.params)
        if operands is None or not _is_float(value):
            return None
        roots = {self.roots.get(operand, operand) for operand in operands}
        return roots.pop() if len(roots) == 1 else None

    def _is_head(self, value: relax.Expr) -> bool:
        """Whether a unit may begin here: an operator that requantizes its result."""
        if not isinstance(value, relax.Call) or not _is_float(value):
            return False
        name = getattr(value.op, "name", "")
        if name in WEIGHTED:
            weight = self.params.get(value.args[1]) if isinstance(value.args[1], relax.Var) else None
            if weight is None or (isinstance(value.args[0], relax.Var) and value.args[0] in self.params):
                return False
            return weight.ndim == 2 if name == "relax.matmul" else str(value.attrs.data_layout) == "NCHW"
        if name in _SUMS:
            return self._sum_constant(value) is not None
        if name == "relax.mean":
            return value.attrs.axis is not None
        if name == "relax.nn.adaptive_avg_pool2d":
            return static_shape(value)[2:] == (1, 1) and str(value.attrs.layout) == "NCHW"
        return name == "relax.nn.avg_pool2d" and is_global_pool(value)

    def _sum_constant(self, call: relax.Call) -> int | None:
        """-1 for a sum of two tensors; the position of the constant tensor when one is constant; None for others."""
        if any(scalar_value(arg, self.params) is not None for arg in call.args):
            return None
        constant = [isinstance(arg, Constant) or arg in self.params for arg in call.args]
        if not any(constant):
            return -1
        return constant.index(True) if constant.count(True) == 1 else None

    def _is_bias(self, call: relax.Call, layer: relax.Var) -> bool:
        if call.op.name != "relax.add":
            return False
        first, second = call.args
        value = self.params.get(second) if isinstance(second, relax.Var) else None
        if not first.same_as(layer) or value is None:
            return False
        axis = 1 if self.values[layer].op.name == "relax.nn.conv2d" else -1
        channels = static_shape(layer)[axis]
        rank = len(static_shape(layer))
        wide = value.reshape((1,) * (rank - value.ndim) + value.shape) if value.ndim <= rank else value
        return value.size == channels and wide.shape[axis] == channels

    def _excluded(self, var: relax.Var) -> bool:
        return var in self.floating or self.exclude(var.name)

    # What is wanted as an integer by some reader

    def _find_wanted(self) -> None:
        for var, value in reversed(self.program):
            if not isinstance(value, relax.Call):
                if isinstance(value, relax.TupleGetItem) and var in self.wanted:
                    self.wanted.add(value.tuple_value)
                continue
            computes = var in self.plan.layers or var in self.unit_of.values() or var in self.roots
            own = self._own_scale(value) and not self._excluded(var)
            if computes or own or (var in self.wanted and self._is_move(value)):
                self.wanted.update(operand for operand in _operands(value) if operand not in self.params)

    def _own_scale(self, call: relax.Call) -> bool:
        name = getattr(call.op, "name", "")
        return _is_float(call) and (name in ("relax.concat", "relax.nn.softmax") or self._is_pool(call))

    def _is_pool(self, call: relax.Call) -> bool:
        name = getattr(call.op, "name", "")
        if name not in ("relax.nn.max_pool2d", "relax.nn.avg_pool2d"):
            return False
        return all(int(d) == 1 for d in call.attrs.dilation) and str(call.attrs.layout) == "NCHW"

    def _is_move(self, call: relax.Call) -> bool:
        name = getattr(call.op, "name", "")
        if name == "relax.nn.pad":
            return str(call.attrs.pad_mode) == "constant" and float(call.attrs.pad_value) == 0.0
        if name == "relax.image.resize2d":
            return str(call.attrs.method) in ("nearest_neighbor", "linear") and str(call.attrs.layout) == "NCHW"
        return name in _MOVES or name == "relax.split"

    # The decision

    def _add(self, var: relax.Var, point: Point) -> None:
        ty = var.ty
        if isinstance(ty, relax.TensorType) and str(ty.dtype) == "float32" and var not in self.params:
            self.plan.points.setdefault(var, point)

    def _visit(self, var: relax.Var, value: relax.Call) -> None:
        if var in self.inside or not isinstance(var.ty, relax.TensorType):
            return
        name = getattr(value.op, "name", "")
        if self._excluded(var) and var not in self.unit_of:
            # Readers may still want it as an integer.
            if var in self.wanted:
                self._add(var, Point())
            return
        if var in self.unit_of:
            head = self.plan.heads[var] = self.unit_of[var]
            call = self.values[head]
            if call.op.name in _SUMS and (position := self._sum_constant(call)) is not None and position >= 0:
                self.plan.constants.append((head, position))
            self._add(var, Point())
        elif var in self.roots:
            fixed = _FIXED.get(name)
            self._add(var, Point(fixed=fixed))
        elif name == "relax.nn.softmax" and _is_float(value):
            self._add(var, Point(fixed=_FIXED[name]))
        elif name == "relax.concat" and _is_float(value):
            self._add(var, Point())
        elif self._is_pool(value) or self._is_move(value):
            source = value.args[0]
            if source in self.plan.points:
                self._add(var, Point(same_as=source))
            elif var in self.wanted:
                self._add(var, Point())
        elif var in self.wanted:
            self._add(var, Point())


def _is_float(call: relax.Call) -> bool:
    return isinstance(call.ty, relax.TensorType) and str(call.ty.dtype) == "float32"


def _operands(call: relax.Call) -> list[relax.Var]:
    found: list[relax.Var] = []
    for arg in call.args:
        found.extend(arg.fields if isinstance(arg, relax.Tuple) else [arg])
    return [arg for arg in found if isinstance(arg, relax.Var)]


def weight_axis(call: relax.Call) -> int:
    """The axis of a layer's weight that counts output channels."""
    return 0 if call.op.name == "relax.nn.conv2d" else 1
