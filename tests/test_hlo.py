"""The reader of compiled programs, on programs whose kernels, loops and bytes are known."""

import jax
import jax.numpy as jnp
import pytest

from experiments.benchmark import hlo

PROGRAM = """
HloModule known, entry_computation_layout={()->f32[]}

%sliced (p.0: f32[100,8], p.1: s32[]) -> f32[10,8] {
  %p.0 = f32[100,8]{1,0} parameter(0)
  %p.1 = s32[] parameter(1)
  %zero = s32[] constant(0)
  %taken = f32[10,8]{1,0} dynamic-slice(%p.0, %p.1, %zero), dynamic_slice_sizes={10,8}
  ROOT %double = f32[10,8]{1,0} add(%taken, %taken)
}

%body (state: (s32[], f32[100,8])) -> (s32[], f32[100,8]) {
  %state = (s32[], f32[100,8]{1,0}) parameter(0)
  %i = s32[] get-tuple-element(%state), index=0
  %x = f32[100,8]{1,0} get-tuple-element(%state), index=1
  %part = f32[10,8]{1,0} fusion(%x, %i), kind=kLoop, calls=%sliced, metadata={op_name="jit(f)/batch_10_/add"}
  %next = s32[] add(%i, %i)
  %product = (f32[10,10]{1,0}, s8[64]{0}) custom-call(%part, %part), custom_call_target="__cublas$lt$matmul"
  ROOT %out = (s32[], f32[100,8]{1,0}) tuple(%next, %x)
}

%test (state.1: (s32[], f32[100,8])) -> pred[] {
  %state.1 = (s32[], f32[100,8]{1,0}) parameter(0)
  ROOT %less = pred[] constant(true)
}

%left (l: f32[4]) -> f32[4] {
  %l = f32[4]{0} parameter(0)
  ROOT %negated = f32[4]{0} negate(%l)
}

%right (r: f32[4]) -> f32[4] {
  %r = f32[4]{0} parameter(0)
  %sine = f32[4]{0} sine(%r)
  ROOT %twice = f32[4]{0} add(%sine, %sine)
}

ENTRY %main (a: (s32[], f32[100,8]), b: f32[4], c: s32[]) -> f32[4] {
  %a = (s32[], f32[100,8]{1,0}) parameter(0)
  %b = f32[4]{0} parameter(1)
  %c = s32[] parameter(2)
  %loop = (s32[], /*index=1*/f32[100,8]{1,0}) while(%a), condition=%test, body=%body, backend_config={"known_trip_count":{"n":"7"}}
  %sum = f32[4]{0} all-reduce-start(%b), to_apply=%left
  ROOT %chosen = f32[4]{0} conditional(%c, %b, %b), branch_computations={%left, %right}
}
"""  # noqa: E501


@pytest.fixture(scope="module")
def program():
    return hlo.parse(PROGRAM)


@pytest.mark.parametrize(("branch", "last"), [(0, [("negate", 1)]), (1, [("sine", 1), ("add", 1)])])
def test_kernels_are_counted_as_often_as_their_loop_runs(program, branch, last):
    kernels = [(kernel.operation.opcode, kernel.times) for kernel in hlo.walk(program, branch)]
    assert kernels == [("fusion", 7), ("add", 7), ("custom-call", 7), ("all-reduce-start", 1), *last]


def test_depth_is_the_longest_chain(program):
    # In the loop the product waits for the slice, and the counter for nothing.
    assert hlo.measure_depth(program, 0) == 7 * 2
    assert (
        hlo.measure_depth(hlo.parse(PROGRAM.replace("conditional(%c, %b", "conditional(%c, %sum")), 1) == 14
    )
    assert (
        hlo.measure_depth(
            hlo.parse(PROGRAM.replace("start(%b)", "start(%loop)").replace("%c, %b", "%c, %sum")), 1
        )
        == 17
    )


def test_bytes_are_those_that_kernels_move(program):
    kernels = {kernel.operation.name: kernel for kernel in hlo.walk(program)}
    # 10 of the 100 rows, and the index.
    assert hlo.list_bytes_read(program, kernels["part"]) == [10 * 8 * 4, 4]
    assert hlo.count_bytes_written(program, kernels["part"]) == 10 * 8 * 4
    # The product's workspace does not count.
    assert hlo.count_bytes_written(program, kernels["product"]) == 10 * 10 * 4
    assert hlo.count_bytes("(f32[2,3]{1,0}, /*index=1*/u8[5]{0}, pred[], token[])") == 30
    with pytest.raises(ValueError, match="size of f8e5m2"):
        hlo.count_bytes("f8e5m2[3]{0}")


def test_products_scopes_and_kinds_are_found(program):
    kernels = {kernel.operation.name: kernel.operation for kernel in hlo.walk(program)}
    assert [name for name, operation in kernels.items() if hlo.is_product(program, operation)] == ["product"]
    assert "batch_10_" in kernels["part"].scope
    assert kernels["product"].scope == ""
    assert hlo.collect_opcodes(program, kernels["part"]) >= {"fusion", "dynamic-slice", "add"}
    assert hlo.count_opcodes(program, hlo.COLLECTIVES) == hlo.count_opcodes(program, ["conditional"]) == 1


@pytest.mark.parametrize(
    ("limit", "times"), [("constant(9)", 9), ("parameter(9)", None), ("constant(nan)", None)]
)
def test_a_loop_without_its_number_of_iterations_counts_to_a_constant(limit, times):
    text = PROGRAM.replace(', backend_config={"known_trip_count":{"n":"7"}}', "")
    condition = f"%nine = s32[] {limit}\n  ROOT %less = pred[] compare(%i.1, %nine), direction=LT"
    program = hlo.parse(text.replace("ROOT %less = pred[] constant(true)", condition))
    if times:
        assert next(hlo.walk(program)).times == times
    else:
        with pytest.raises(ValueError, match="iterations of the loop loop is unknown"):
            next(hlo.walk(program))


def test_a_loop_of_unknown_length_is_an_error():
    endless = jax.jit(lambda x: jax.lax.while_loop(lambda x: x < 5, lambda x: x * 2, x))
    with pytest.raises(ValueError, match="iterations of the loop while"):
        list(hlo.walk(hlo.parse(endless.lower(jnp.array(1.0)).compile().as_text())))


def test_a_program_of_this_machine_is_read():
    def step(carry, x):
        return jnp.sin(carry @ x), None

    looped = jax.jit(lambda carry, xs: jax.lax.scan(step, carry, xs)[0])
    text = looped.lower(jnp.zeros((20, 30)), jnp.zeros((5, 30, 30))).compile().as_text()
    program = hlo.parse(text)
    assert {kernel.times for kernel in hlo.walk(program)} >= {5}
    products = [k for k in hlo.walk(program) if hlo.is_product(program, k.operation)]
    assert [kernel.times for kernel in products] == [5]
    assert hlo.measure_depth(program) >= 10
