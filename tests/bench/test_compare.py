#!/usr/bin/env python3
"""bench/compare without a peer: arithmetic, parsers, files, charts, and the two programs'
refusals. Nothing here measures anything."""

import io
import json
import os
import pathlib
import struct
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ET
import zlib

ROOT = pathlib.Path(__file__).resolve().parents[2]
COMPARE = ROOT / "bench" / "compare"
BUILD = pathlib.Path(os.environ.get("TAMP_BINARY", ROOT / "build" / "gcc" / "tamp")).parent
sys.path[:0] = [str(COMPARE), str(ROOT / "tests")]
sys.dont_write_bytecode = True

import cases  # noqa: E402
import client  # noqa: E402
import gguf  # noqa: E402
import kernels  # noqa: E402
import measure  # noqa: E402
import plot  # noqa: E402
import programs  # noqa: E402
from measure import Result, Rounds  # noqa: E402
from plain import Skipped, run  # noqa: E402


# -- arithmetic ---------------------------------------------------------------------------


def test_ratio_says_how_many_times_better() -> None:
    speed = Result("prefill", "512", "rows/s", True, [20.0, 40.0, 30.0], [10.0, 10.0, 10.0])
    assert speed.ratios() == [2.0, 4.0, 3.0]
    time = Result("start", "ready", "ms", False, [50.0], [100.0])
    assert time.ratios() == [2.0]
    line = speed.to_json()
    assert (line["ratio"], line["ratio_min"], line["ratio_max"]) == (3.0, 2.0, 4.0)


def test_percentile_is_a_value_of_the_list() -> None:
    values = [float(v) for v in range(1, 101)]
    assert measure.percentile(values, 99) == 100.0
    assert measure.percentile(values, 50) == 51.0
    assert measure.percentile([7.0], 99) == 7.0


def test_rounds_alternate_and_number_every_call() -> None:
    calls: list[tuple[str, int]] = []
    rounds = Rounds(3, 0, programs.own_seconds)
    ours, peer = rounds.interleave(
        lambda i: calls.append(("ours", i)) or i, lambda i: calls.append(("peer", i)) or 10 + i
    )
    assert [who for who, _ in calls] == ["ours", "peer", "peer", "ours", "ours", "peer"]
    assert ours == [0, 1, 2] and peer == [10, 11, 12]


def test_a_disturbed_call_is_repeated_and_the_calmest_counts() -> None:
    # What /proc/stat says before and after each of three calls: much, little, nothing.
    others = iter([0.0, 99.0, 99.0, 100.0, 100.0, 100.0])
    before = measure.machine_busy_seconds
    measure.machine_busy_seconds = lambda: next(others)
    try:
        rounds = Rounds(1, 5, lambda: 0.0)
        numbers: list[int] = []
        value = rounds.calm(lambda i: numbers.append(i) or i, 1)
    finally:
        measure.machine_busy_seconds = before
    assert numbers == [6, 7, 8] and value == 8, numbers
    assert rounds.disturbance == [0.0]


# -- parsers --------------------------------------------------------------------------------


def test_sse_ends_at_done() -> None:
    stream = io.BytesIO(b'data: {"a": 1}\n\n: ping\n\ndata: {"a": 2}\n\ndata: [DONE]\n\ndata: {"a": 3}\n')
    assert [e["a"] for e in client.sse_events(stream)] == [1, 2]


def test_encode_time_is_read_from_the_log() -> None:
    log = "\n".join(
        [
            "0.59.900.000 I decoding image batch 1/1, n_tokens_batch = 256",
            "0.59.998.500 I slot encode: encoding mtmd batch from idx = 4, n_chunks = 1",
            "not a line of the log: encoding mtmd batch",
            "1.00.098.750 I decoding image batch 1/1, n_tokens_batch = 256",
            "1.00.200.000 I decoding image batch 1/1, n_tokens_batch = 256",
        ]
    )
    times = programs.encode_times_ms(log)
    assert len(times) == 1 and abs(times[0] - 100.25) < 1e-6, times


def stub(folder: pathlib.Path, name: str, script: str) -> None:
    path = folder / name
    path.write_text("#!/bin/sh\n" + script)
    path.chmod(0o755)


def test_a_peer_that_fails_is_an_error_with_its_last_words() -> None:
    with tempfile.TemporaryDirectory() as folder:
        bin = pathlib.Path(folder)
        peer = programs.LlamaCpp(bin, 2, bin)
        stub(bin, "llama-bench", 'echo \'{"avg_ts": 12.5}\'\n')
        assert peer.prefill(bin / "model", 64) == 12.5
        stub(bin, "llama-bench", "echo no such model >&2; exit 3\n")
        try:
            peer.prefill(bin / "model", 64)
        except programs.ProgramFailed as error:
            assert "no such model" in str(error)
        else:
            raise AssertionError("a failing llama-bench was believed")


def test_a_peer_finds_the_libraries_beside_it() -> None:
    with tempfile.TemporaryDirectory() as folder:
        bin = pathlib.Path(folder)
        stub(bin, "llama-bench", 'echo "{\\"avg_ts\\": 3.5, \\"at\\": \\"$LD_LIBRARY_PATH\\"}"\n')
        said = programs.run([str(bin / "llama-bench")])
        assert str(bin.resolve()) in said.split('"at": "')[1].split(":")[0], said


def test_a_product_is_held_against_the_instruction_it_is_made_of() -> None:
    def line(kernel: str, kind: str, bulk: bool) -> dict[str, object]:
        return {"kernel": kernel, "type": kind, "bulk": bulk, "n_out": 5, "n_in": 7, "rows": 2}

    assert kernels.limit_of(line("amx", "Q4_1", True)) == "amx tdpbf16ps"
    assert kernels.limit_of(line("amx", "Q4_1", False)) == "avx512 vpdpbusd"
    assert kernels.limit_of(line("amx", "F16", False)) == "avx512 fma"
    assert kernels.limit_of(line("amx", "F32", True)) == "avx512 fma"
    assert kernels.limit_of(line("avx2", "Q8_0", False)) == "avx2 vpmaddubsw"
    assert kernels.limit_of(line("ref", "Q8_0", False)) == ""
    peak = [{"threads": n, "how": "avx2 fma", "value": 100.0 * n} for n in (1, 2)]
    assert kernels.peak_of(peak, "avx2 fma", 2) == 200.0
    assert kernels.peak_of(peak, "amx tdpbf16ps", 2) == 0.0
    assert kernels.name_of(line("amx", "Q4_1", True)) == ("kernels Q4_1", "5x7 x 2")


def test_every_limit_is_one_that_peak_measures() -> None:
    source = (ROOT / "bench" / "peak_loops.c").read_text()
    for how in {*kernels.INTEGER.values(), *kernels.FLOAT.values(), kernels.TILES}:
        assert f'"{how}"' in source, how


def test_kernels_give_a_share_of_the_peak_of_each_round() -> None:
    class Machine:
        threads = 2
        speed = 0.0

        def kernels(self) -> list[dict[str, object]]:
            self.speed += 100
            few = {"type": "Q4_1", "n_out": 8, "n_in": 8, "rows": 1, "bulk": False, "kernel": "avx2"}
            return [few | {"gops": self.speed, "gb_per_s": 5.0}, few | {"kernel": "ref", "gops": 1.0, "gb_per_s": 1.0}]

        def peak(self) -> list[dict[str, object]]:
            hows = {"avx2 vpmaddubsw": 400.0, "96 MiB": 10.0}
            return [{"threads": 2, "how": how, "value": value} for how, value in hows.items()]

    setup = cases.Setup(Machine(), None, ROOT, ROOT, ROOT, Rounds(2, 0, lambda: 0.0), False, [])
    (only,) = cases.kernels(setup)  # the portable loops have no peak
    assert only.ratios() == [0.25, 0.5], only
    assert only.extra["share_of_read_peak"] == 0.5 and only.extra["rows"] == 1


def test_the_case_avx2_says_what_it_lacks() -> None:
    setup = cases.Setup(None, None, ROOT, ROOT, ROOT, Rounds(1, 0, lambda: 0.0), True, [])
    try:
        list(cases.avx2(setup))
    except cases.NotHere as needs:
        assert "llamacpp.sh avx2" in str(needs)
    else:
        raise AssertionError("it compared with nothing")


# -- pictures and GGUF files -----------------------------------------------------------------


def test_a_png_holds_what_its_header_says() -> None:
    data = client.png(224, "a")
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    assert struct.unpack(">II", data[16:24]) == (224, 224)
    at = data.index(b"IDAT")
    n = struct.unpack(">I", data[at - 4 : at])[0]
    assert len(zlib.decompress(data[at + 4 : at + 4 + n])) == 224 * (1 + 3 * 224)
    assert data == client.png(224, "a") != client.png(224, "b")


def string(text: str) -> bytes:
    return struct.pack("<Q", len(text)) + text.encode()


def write_gguf(path: pathlib.Path, keys: dict[str, int], tensors: dict[str, tuple[tuple[int, ...], bytes]]) -> None:
    """uint32 keys and an array of strings; fp32 tensors, dimensions innermost first."""
    head = struct.pack("<4sIQQ", b"GGUF", 3, len(tensors), len(keys) + 1)
    head += string("words") + struct.pack("<IIQ", 9, 8, 2) + string("a") + string("bc")
    for key, value in keys.items():
        head += string(key) + struct.pack("<II", 4, value)
    data = b""
    for name, (shape, values) in tensors.items():
        head += string(name) + struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape, 0, len(data))
        data += values + bytes(-len(values) % 32)
    path.write_bytes(head + bytes(-len(head) % 32) + data)


def test_gguf_counts_operations_and_bytes() -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "m.gguf"
        tensors = {
            "token_embd.weight": ((8, 16), bytes(512)),
            "blk.0.attn_q.weight": ((8, 8), bytes(256)),
            "blk.0.attn_norm.weight": ((8,), bytes(32)),
            "blk.0.ffn_up.weight": ((8, 24), bytes(768)),
        }
        write_gguf(path, {"n": 5}, tensors)
        f = gguf.File(path)
        assert f.values["n"] == 5
        assert f.ops_per_row() == 2 * (64 + 192)
        assert f.bytes_per_token() == 256 + 768 + 512  # the embedding is the output too
        tensors["output.weight"] = ((8, 32), bytes(1024))
        write_gguf(path, {}, tensors)
        assert gguf.File(path).bytes_per_token() == 256 + 768 + 1024


def test_mmproj_copy_has_the_new_size_and_everything_else_as_it_was() -> None:
    def floats(n: int, first: float) -> bytes:
        return struct.pack(f"<{n}f", *(first + i for i in range(n)))

    with tempfile.TemporaryDirectory() as folder:
        source, target = pathlib.Path(folder) / "a.gguf", pathlib.Path(folder) / "b.gguf"
        keys = {"clip.vision.image_size": 28, "clip.vision.patch_size": 14}
        # 2 x 2 patches of width 3 and the class token, in both orders; the same in all patches.
        patch, token = floats(3, 1), floats(3, 50)
        tensors = {
            "before": ((5,), floats(5, 7)),
            "v.position_embd.weight": ((3, 5), patch * 4 + token),
            "v.position_embd_full.weight": ((3, 5), token + patch * 4),
            "after": ((9,), floats(9, -3)),
        }
        write_gguf(source, keys, tensors)
        gguf.write_mmproj_for(source, 56, target)
        f = gguf.File(target)
        assert f.values["clip.vision.image_size"] == 56

        def bytes_of(name: str, n: int) -> bytes:
            begin = f.data_at + f.tensors[name].offset
            return f.bytes[begin : begin + n]

        assert f.tensors["v.position_embd.weight"].shape == (3, 17)
        table = struct.unpack("<51f", bytes_of("v.position_embd.weight", 204))
        assert all(abs(v - w) < 1e-5 for v, w in zip(table, [1.0, 2.0, 3.0] * 16 + [50.0, 51.0, 52.0]))
        for name in ("before", "v.position_embd_full.weight", "after"):
            assert bytes_of(name, len(tensors[name][1])) == tensors[name][1], name


# -- charts -----------------------------------------------------------------------------------


def test_charts_are_well_formed() -> None:
    results = [
        Result("prefill", str(n), "rows/s", True, [2.0 * n, 2.2 * n], [1.0 * n, 1.5 * n]) for n in (64, 512)
    ]
    results.append(Result("start", "<ready> & more", "ms", False, [40.0], [10.0]))
    space = "{http://www.w3.org/2000/svg}"
    bars = ET.fromstring(plot.ratio_bars(results, "title"))
    assert len(bars.findall(space + "rect")) == 1 + len(results)
    assert any("<ready> & more" in (t.text or "") for t in bars.iter(space + "text"))
    for rect in bars.findall(space + "rect"):
        assert float(rect.get("width", "0")) >= 1
    lines = ET.fromstring(plot.by_size(results[:2], "title"))
    assert len(lines.findall(space + "polyline")) == 2
    shapes = [
        Result("kernels Q4_1", f"{shape} x {n}", "GOPS", True, [1.0 * n], [90.0], {"shape": shape, "rows": n})
        for shape in ("8x8", "8x16")
        for n in (1, 64)
    ]
    lines = ET.fromstring(plot.by_shape(shapes, "title"))
    assert len(lines.findall(space + "polyline")) == 3
    heights = [float(t.get("y", "0")) for t in lines.iter(space + "text") if t.text in ("8x8", "8x16", "at most")]
    assert len(heights) == 3 and all(abs(a - b) >= 13 for a in heights for b in heights if a is not b), heights


# -- programs -----------------------------------------------------------------------------------


def outcome(*command: object, **variables: str) -> tuple[int, str]:
    done = subprocess.run(
        [str(c) for c in command],
        capture_output=True, text=True, check=False, env=os.environ | variables, cwd=ROOT,
    )
    return done.returncode, done.stdout + done.stderr


def test_without_a_peer_it_says_how_to_get_one() -> None:
    with tempfile.TemporaryDirectory() as folder:
        status, said = outcome(COMPARE / "run.py", "--if-present", "--quick", LLAMACPP=folder)
        assert status == 0 and "bench/peers/llamacpp.sh" in said, said
        status, said = outcome(COMPARE / "run.py", LLAMACPP=folder)
        assert status == 1 and "bench/peers/llamacpp.sh" in said, said


def test_too_few_rounds_and_unknown_cases_are_refused() -> None:
    status, said = outcome(COMPARE / "run.py", "--rounds", "4")
    assert status == 2 and "--rounds" in said, said
    status, said = outcome(COMPARE / "run.py", "speed")
    assert status == 2 and "no case speed" in said, said


def test_the_peer_script_refuses_what_it_does_not_know() -> None:
    status, said = outcome(ROOT / "bench" / "peers" / "llamacpp.sh", "fast")
    assert status == 1 and "usage" in said, said


def test_benchmark_refuses_wrong_arguments() -> None:
    program = BUILD / "benchmark"
    if not program.is_file():
        raise Skipped("no benchmark program")
    for wrong in (["--prefill"], ["--prefill", "0"], ["--runs", "33"], ["--picture", "--decode", "3"], ["--no"]):
        status, said = outcome(program, *wrong)
        assert status == 2 and said, (wrong, status)
    status, said = outcome(program, "--profile", "none", "--prefill", "64")
    assert status == 2 and "none" in said, said


def test_products_are_measured_by_shape() -> None:
    if not (BUILD / "benchmark").is_file():
        raise Skipped("no benchmark program")
    for wrong in (["--runs", "0"], ["--runs"], ["--fast"]):
        status, said = outcome(BUILD / "benchmark", "kernels", *wrong)
        assert status == 2 and "usage" in said, (wrong, status)
    status, said = outcome(BUILD / "benchmark", "kernels", "--kernel", "none")
    assert status == 1 and "none" in said, said
    status, said = outcome(BUILD / "benchmark", "kernels", "--runs", "1", "--only", "F32", "--threads", "1", "--json")
    lines = [json.loads(line) for line in said.splitlines()]
    assert status == 0 and [x["rows"] for x in lines] == [1, 8, 64, 256, 512], said
    for x in lines:
        assert x["type"] == "F32" and not x["bulk"], x
        ops = 2e-6 * x["n_out"] * x["n_in"] * x["rows"]
        assert abs(x["gops"] * x["ms"] - ops) <= 0.01 * ops + 1e-3, x


def test_benchmark_runs_as_many_rows_as_asked() -> None:
    model = ROOT / "models" / "SmolLM2-135M-Instruct.Q4_1.gguf"
    if not model.is_file() or not (BUILD / "benchmark").is_file():
        raise Skipped("no model")
    ours = programs.Tamp(BUILD, 1, ROOT)
    got = ours.bench(model, "--prefill", "64")
    assert got["case"] == "prefill" and got["rows"] == 64 and got["prompt_ms"] > 0, got
    got = ours.bench(model, "--decode", "3", "--context", "64")
    assert got["case"] == "decode" and got["tokens"] == 4 and got["predicted_ms"] > 0, got


def test_peak_refuses_wrong_arguments() -> None:
    if not (BUILD / "peak").is_file():
        raise Skipped("no peak program")
    for wrong in (["--threads", "0"], ["--threads"], ["--fast"]):
        status, said = outcome(BUILD / "peak", *wrong)
        assert status == 2 and "usage" in said, (wrong, said)


if __name__ == "__main__":
    sys.exit(run(globals()))
