"""Kernels and traffic of a compiled program. Compiling for a GPU needs the CUDA wheels and is not tested here."""

import pathlib
import sys
import types

sys.path.insert(0, str(pathlib.Path(__file__).parents[2] / "tools"))
import plan_gpu

# Three iterations of a loop with a fusion of two operands and one result, and a library call outside it.
PROGRAM = """HloModule jit_step

%fused (p: f32[4,8], q: f32[8]) -> bf16[4,8] {
  %p = f32[4,8]{1,0} parameter(0)
  %q = f32[8]{0} parameter(1)
  ROOT %c = bf16[4,8]{1,0} convert(%p)
}

%body (arg: (s32[], f32[4,8])) -> (s32[], f32[4,8]) {
  %arg = (s32[], f32[4,8]{1,0}) parameter(0)
  %x = f32[4,8]{1,0} get-tuple-element(%arg), index=1
  %w = f32[8]{0} constant({...})
  %y = bf16[4,8]{1,0} fusion(%x, %w), kind=kLoop, calls=%fused, metadata={op_name="jit(step)/jvp(net)/bn1/mul"}
  ROOT %t = (s32[], f32[4,8]{1,0}) tuple(%x)
}

%c (arg: (s32[], f32[4,8])) -> pred[] {
  %arg = (s32[], f32[4,8]{1,0}) parameter(0)
  ROOT %less = pred[] constant(true)
}

ENTRY %main (a: f32[4,8]) -> f32[4,4] {
  %a = f32[4,8]{1,0} parameter(0)
  %init = (s32[], f32[4,8]{1,0}) tuple(%a)
  %loop = (s32[], f32[4,8]{1,0}) while(%init), condition=%c, body=%body, backend_config={"known_trip_count":{"n":"3"}}
  %b = f32[4,8]{1,0} get-tuple-element(%loop), index=1
  ROOT %conv = (f32[4,4]{1,0}, u8[16]{0}) custom-call(%b, %a), custom_call_target="__cudnn$convForward"
}
"""


def test_traffic_is_that_of_operands_and_results_as_often_as_they_run():
    fusion, call = plan_gpu.kernels(PROGRAM)
    assert (fusion.kind, fusion.layer, fusion.calls) == ("kLoop", "jit(step)/jvp(net)/bn1/mul", 3)
    assert fusion.traffic == 3 * (4 * 32 + 4 * 8 + 2 * 32)
    assert (call.kind, call.calls, call.traffic) == ("__cudnn$convForward", 1, 2 * 4 * 32 + 4 * 16 + 16)


def test_kernels_of_a_loop_in_a_loop_run_as_often_as_both_say():
    (line,) = (line for line in PROGRAM.splitlines() if " while(" in line)
    head = "%outer (arg: (s32[], f32[4,8])) -> (s32[], f32[4,8]) {\n  %arg = (s32[], f32[4,8]{1,0}) parameter(0)\n"
    outer = f"{head}{line.replace('%init', '%arg')}\n}}\n\nENTRY"
    fusion, call = plan_gpu.kernels(PROGRAM.replace("body=%body", "body=%outer").replace("ENTRY", outer))
    assert (fusion.calls, fusion.traffic, call.calls) == (9, 9 * (4 * 32 + 4 * 8 + 2 * 32), 1)


def test_the_report_sums_up_the_program(capsys, monkeypatch):
    memory = types.SimpleNamespace(temp_size_in_bytes=300 * 2**20, argument_size_in_bytes=500 * 2**20)
    program = PROGRAM.replace("[4,8]", "[4000,8000]")
    compiled = types.SimpleNamespace(as_text=lambda: program, memory_analysis=lambda: memory)
    monkeypatch.setattr(plan_gpu, "compile_step", lambda *_: compiled)
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    assert plan_gpu.main([]) == 0
    fusion, call = 3 * (4 + 2) * 32e6, 2 * 4 * 32e6
    _, *lines = capsys.readouterr().out.splitlines()
    assert [" ".join(line.split()) for line in lines] == [
        "kernels 4 per step",
        f"traffic {(fusion + call) / 1e9:.1f} GB, {1e3 * (fusion + call) / 4.8e12:.1f} ms at the H200's 4.8 TB/s",
        "memory 300 MiB, plus 500 for state and batch",
        f"{fusion / 1e9:.2f} GB 3 calls forward bn1 kLoop",
        f"{call / 1e9:.2f} GB 1 calls update __cudnn$convForward",
    ]


def test_kernels_are_told_apart_by_pass_and_layer():
    for origin, expected in (
        ("jit(step)/jvp(net)/backbone/bn1/mul", ("forward", "bn1")),
        ("jit(step)/transpose(jvp(net))/backbone/conv_head/conv", ("backward", "conv_head")),
        ("jit(step)/adam/mul", ("update", "")),
    ):
        assert plan_gpu.scope(plan_gpu.Kernel("x", "kLoop", origin, 1, 0)) == expected


# Of 64 squared numbers, only the first four and, twice, the eight from the tenth on are used; all of the others.
SLICES = """HloModule jit_cut

%fused (p: f32[64], q: f32[4], r: f32[64]) -> (f32[4], f32[8], f32[64]) {
  %p = f32[64]{0} parameter(0)
  %q = f32[4]{0} parameter(1)
  %r = f32[64]{0} parameter(2)
  %square = f32[64]{0} multiply(%p, %p)
  %head = f32[4]{0} slice(%square), slice={[0:4]}
  %tail = f32[8]{0} slice(%square), slice={[10:18]}
  %again = f32[8]{0} slice(%p), slice={[10:18]}
  %cut = f32[4]{0} slice(%r), slice={[0:4]}
  %sum = f32[4]{0} add(%head, %cut)
  %scaled = f32[8]{0} multiply(%tail, %again)
  %whole = f32[64]{0} negate(%r)
  ROOT %t = (f32[4]{0}, f32[8]{0}, f32[64]{0}) tuple(%sum, %scaled, %whole)
}

ENTRY %main (a: f32[64], b: f32[4], c: f32[64]) -> (f32[4], f32[8], f32[64]) {
  %a = f32[64]{0} parameter(0)
  %b = f32[4]{0} parameter(1)
  %c = f32[64]{0} parameter(2)
  ROOT %all = (f32[4]{0}, f32[8]{0}, f32[64]{0}) fusion(%a, %b, %c), kind=kLoop, calls=%fused
}
"""


def test_of_an_operand_that_is_cut_only_the_slices_are_traffic():
    (fusion,) = plan_gpu.kernels(SLICES)
    assert fusion.traffic == 4 * ((4 + 8) + 4 + 64) + 4 * (4 + 8 + 64)


def test_programs_of_this_machine_are_read():
    import jax
    import jax.numpy as jnp

    def repeated(x, y):
        return jax.lax.fori_loop(0, 5, lambda _, x: jnp.tanh(x @ y) * 2, x)

    compiled = jax.jit(repeated).lower(jnp.ones((16, 16)), jnp.ones((16, 16))).compile()
    found = list(plan_gpu.kernels(compiled.as_text()))
    assert sum(kernel.calls for kernel in found if kernel.kind in ("dot", "kLoop", "kOutput", "call")) >= 5


def test_a_machine_without_the_compiler_is_told_what_to_install(capsys, monkeypatch):
    def refuse(*args, **kwargs):
        raise NotImplementedError("platform cuda")

    monkeypatch.setattr(plan_gpu, "compile_step", refuse)
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    assert plan_gpu.main([]) == 1
    assert "pip install 'jax[cuda13]'" in capsys.readouterr().err
