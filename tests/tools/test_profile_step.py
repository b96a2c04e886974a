"""Kernels of a real trace matched to those of the compiled program."""

import pathlib
import sys

import jax
import jax.numpy as jnp
import pytest

sys.path.insert(0, str(pathlib.Path(__file__).parents[2] / "tools"))
import plan_gpu
import profile_step


@pytest.mark.filterwarnings("ignore:builtin type event_stats")  # jaxlib's own, on Python 3.12
def test_every_run_of_a_traced_program_is_found_with_its_traffic(tmp_path):
    x = jnp.ones((64, 32))
    compiled = jax.jit(lambda x: jnp.tanh(x) * 2 + jnp.cos(x)).lower(x).compile()
    jax.block_until_ready(compiled(x))
    with jax.profiler.trace(str(tmp_path)):
        for _ in range(4):
            jax.block_until_ready(compiled(x))
    rows = profile_step.match(profile_step.kernel_seconds(str(tmp_path)), compiled.as_text())
    ((kernel, _, seconds, runs),) = [row for row in rows if row[0].kind == "kLoop"]
    assert (runs, kernel.traffic) == (4, 2 * 4 * 64 * 32)
    assert seconds > 0


def test_kernels_of_a_recorded_graph_are_known_by_their_own_name():
    program = """ENTRY %main (a: f32[8]) -> f32[8] {
  %a = f32[8]{0} parameter(0)
  ROOT %loop_add_fusion.2 = f32[8]{0} fusion(%a), kind=kLoop, calls=%f, metadata={op_name="jit(train)/jvp(net)/bn1/add"}
}
"""
    seconds = {("command_buffer_7", "loop_add_fusion_2"): (1e-3, 3), ("command_buffer_7", "memcpy32"): (2e-3, 5)}
    unknown, known = profile_step.match(seconds, program)
    assert (unknown[0].kind, unknown[0].traffic, unknown[3]) == ("unknown", 0, 5)
    assert (known[0].name, known[0].traffic, known[2:]) == ("loop_add_fusion.2", 64, (1e-3, 3))
    assert plan_gpu.scope(known[0]) == ("forward", "bn1")
